"""Structural similarity, at most 1; more is better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_STRIP_ROWS = 24  # a strip's intermediate arrays then stay in the processor's cache

Floats = NDArray[np.float64]


def _gaussian() -> Floats:
    x = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(x**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum())


def _smooth(maps: Floats, weights: Floats) -> Floats:
    """Compute the Gaussian-weighted means of (N, H, W) over each whole window: (N, H - 10, W - 10)."""
    height, width = maps.shape[1] - WINDOW + 1, maps.shape[2] - WINDOW + 1
    half = WINDOW // 2  # the window is symmetric: add the two ends, multiply once
    rows = weights[half] * maps[:, half : half + height]
    for i in range(half):
        rows += weights[i] * (maps[:, i : i + height] + maps[:, WINDOW - 1 - i : WINDOW - 1 - i + height])
    smooth = weights[half] * rows[:, :, half : half + width]
    for i in range(half):
        smooth += weights[i] * (rows[:, :, i : i + width] + rows[:, :, WINDOW - 1 - i : WINDOW - 1 - i + width])
    return smooth


def _moments(output: NDArray[Any], reference: NDArray[Any]) -> Iterator[tuple[Floats, Floats]]:
    """Yield, strip by strip, the local means of (x, y) and of (x², y², xy) of two images (H, W).

    Raises ValueError for different shapes or a side below 11.
    """
    if output.shape != reference.shape:
        raise ValueError(f"sizes differ: {output.shape} and {reference.shape}")
    if min(output.shape) < WINDOW:
        raise ValueError(f"smaller than the {WINDOW}x{WINDOW} window of SSIM")
    weights = _gaussian()
    for top in range(0, output.shape[0] - WINDOW + 1, _STRIP_ROWS):
        rows = slice(top, top + _STRIP_ROWS + WINDOW - 1)
        x, y = output[rows].astype(np.float64), reference[rows].astype(np.float64)
        smooth = _smooth(np.stack([x, y, x * x, y * y, x * y]), weights)
        yield smooth[:2], smooth[2:]


def _mean(maps: Iterator[Floats]) -> float:
    sums = [(float(part.sum()), part.size) for part in maps]
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


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

    def similarity(mean: Floats, mean_of: Floats) -> Floats:
        product, squares = mean[0] * mean[1], mean[0] ** 2 + mean[1] ** 2
        covariance, variances = mean_of[2] - product, mean_of[0] + mean_of[1] - squares
        return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))

    return _mean(similarity(mean, mean_of) for mean, mean_of in _moments(output, reference))


def contrast_structure(x: NDArray[Any], y: NDArray[Any], peak: float = 255.0) -> float:
    """Compute the mean of SSIM's contrast and structure terms alone, without luminance, of two images (H, W).

    (2 cov + C2) / (var + var + C2), with the window and constants of `ssim`.
    """
    c2 = (_K2 * peak) ** 2

    def similarity(mean: Floats, mean_of: Floats) -> Floats:
        covariance = mean_of[2] - mean[0] * mean[1]
        variances = mean_of[0] + mean_of[1] - mean[0] ** 2 - mean[1] ** 2
        return (2 * covariance + c2) / (variances + c2)

    return _mean(similarity(mean, mean_of) for mean, mean_of in _moments(x, y))


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
