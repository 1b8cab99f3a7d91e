"""Structural similarity, at most 1; more is better."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03

Floats = NDArray[np.float64]


def _moments(output: NDArray[Any], reference: NDArray[Any]) -> list[Floats]:
    """Compute the Gaussian-weighted means of x, y, x², y² and xy over each whole window of two images (H, W).

    Five arrays of (H - 10, W - 10). Raises ValueError for different shapes or a side below 11.
    """
    if output.shape != reference.shape:
        raise ValueError(f"sizes differ: {output.shape} and {reference.shape}")
    if min(output.shape) < WINDOW:
        raise ValueError(f"smaller than the {WINDOW}x{WINDOW} window of SSIM")
    x, y = output.astype(np.float64), reference.astype(np.float64)
    half = WINDOW // 2
    smooth = (ndimage.gaussian_filter(image, _SIGMA, radius=half) for image in (x, y, x * x, y * y, x * y))
    return [image[half:-half, half:-half] for image in smooth]


def ssim(output: NDArray[Any], reference: NDArray[Any], peak: float = 255.0) -> float:
    """Compute the mean SSIM of two images (H, W) or (H, W, C), averaged over channels.

    11x11 Gaussian window of sigma 1.5, only windows that lie wholly inside, K1 = 0.01, K2 = 0.03,
    population covariance: Wang et al., "Image quality assessment: from error visibility to structural
    similarity" (2004), section III. Raises ValueError for different shapes or a side below 11.
    """
    if output.ndim == 3 and output.shape == reference.shape:
        channels = range(output.shape[2])
        return float(np.mean([ssim(output[..., c], reference[..., c], peak) for c in channels]))
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2

    mean_x, mean_y, square_x, square_y, both = _moments(output, reference)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    similarity = (2 * product + c1) * (2 * (both - product) + c2)
    similarity /= (squares + c1) * (square_x + square_y - squares + c2)
    return float(similarity.mean())


def contrast_structure(x: NDArray[Any], y: NDArray[Any], peak: float = 255.0) -> float:
    """Compute the mean of SSIM's contrast and structure terms alone, without luminance, of two images (H, W).

    (2 cov + C2) / (var + var + C2), with the window and constants of `ssim`.
    """
    c2 = (_K2 * peak) ** 2

    mean_x, mean_y, square_x, square_y, both = _moments(x, y)
    variances = square_x + square_y - mean_x**2 - mean_y**2
    return float(((2 * (both - mean_x * mean_y) + c2) / (variances + c2)).mean())


def ssim_global(output: NDArray[Any], reference: NDArray[Any], peak: float = 255.0) -> float:
    """Return SSIM from the statistics of each whole channel of (H, W, C), without a window.

    Not comparable with windowed SSIM: it is far closer to 1. Variances divide by n - 1 and the covariance
    by n, as in the code published with Eriksson and Löf, "Lightweight Super-Resolution".
    """
    if output.shape != reference.shape:
        raise ValueError(f"sizes differ: {output.shape} and {reference.shape}")
    x, y = (image.reshape(-1, image.shape[-1]).astype(np.float64) for image in (output, reference))
    n = len(x)
    means = np.stack([x.mean(0), y.mean(0)])
    x -= means[0]
    y -= means[1]
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    variances = ((x * x).sum(0) + (y * y).sum(0)) / (n - 1)
    covariance = (x * y).sum(0) / n
    similarity = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    return float((similarity / (((means**2).sum(0) + c1) * (variances + c2))).mean())
