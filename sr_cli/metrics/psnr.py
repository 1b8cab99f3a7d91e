"""Peak signal-to-noise ratio, in dB; more is better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_cli.metrics.rmse import mean_square_error


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
