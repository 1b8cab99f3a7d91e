"""Root mean square error (less is better), and peak signal-to-noise ratio, in dB (more is better)."""

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


def psnr(output: NDArray[Any], reference: NDArray[Any], peak: float = 255.0) -> float:
    """Compute 10 log10(peak² / MSE) over all values of two arrays of one shape; infinite where they are equal."""
    error = mean_square_error(output, reference)
    return 10 * math.log10(peak**2 / error) if error else math.inf


def psnr_damped(output: NDArray[Any], reference: NDArray[Any], peak: float = 255.0) -> float:
    """Return PSNR with 1e-6 added to the error of values scaled to 0..1, so at most 60 dB.

    Eriksson and Löf, "Lightweight Super-Resolution": the code published with it.
    """
    error = mean_square_error(output, reference) / peak**2
    return float(-10 * np.log10(error + 1e-6))
