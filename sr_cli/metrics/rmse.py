"""Root mean square error, in levels of 0..255; less is better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_square_error(output: NDArray[Any], reference: NDArray[Any]) -> float:
    """Compute the mean of the squared differences of two arrays. Raises ValueError for different shapes."""
    if output.shape != reference.shape:
        raise ValueError(f"sizes differ: {output.shape} and {reference.shape}")
    difference = output.astype(np.float64).ravel() - reference.astype(np.float64).ravel()
    return float(difference @ difference) / difference.size


def rmse(output: NDArray[Any], reference: NDArray[Any]) -> float:
    """Compute the square root of the mean square error over all values of two arrays of one shape, in their unit."""
    return math.sqrt(mean_square_error(output, reference))
