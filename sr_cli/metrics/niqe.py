"""NIQE, the natural image quality evaluator: needs no reference; less is better.

Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer" (2013): 36 statistics
of each 96x96 block, at two scales, are set against a Gaussian model of the same statistics in pristine
photos. The model's parameters are the authors' (`niqe_modelparameters.mat`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import gammaln

BLOCK = 96
FEATURES = 36
_FULL_RANGE = np.array([0.298936021293776, 0.587043074451121, 0.114020904255103])  # MATLAB's rgb2gray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NiqeParameters:
    """The pristine model: `mean` (36,) and `covariance` (36, 36) of the features."""

    mean: Floats
    covariance: Floats

    def __post_init__(self) -> None:
        if self.mean.shape != (FEATURES,) or self.covariance.shape != (FEATURES, FEATURES):
            raise ValueError(f"NIQE's parameters are {FEATURES} means and a {FEATURES}x{FEATURES} covariance")
        if not (np.isfinite(self.mean).all() and np.allclose(self.covariance, self.covariance.T)):
            raise ValueError("NIQE's parameters are not finite, or their covariance is not symmetric")


def parse_parameters(data: bytes) -> NiqeParameters:
    """Read the parameters from the authors' MAT file or from an NPZ archive of the same two arrays.

    Raises ValueError for anything else.
    """
    try:
        file: Any = io.BytesIO(data)  # streams are documented, but not in the stubs
        arrays = np.load(file, allow_pickle=False) if data[:2] == b"PK" else scipy.io.loadmat(file)
        by_start = {name.split("_")[0]: arrays[name] for name in arrays}
        mean, covariance = (by_start[name].astype(np.float64) for name in ("mu", "cov"))
    except Exception as error:  # scipy raises errors of many kinds for files that are not MAT files
        raise ValueError(f"no NIQE parameters in it ({error!r})") from None
    return NiqeParameters(mean.ravel(), covariance)


def grey(rgb: NDArray[Any]) -> Floats:
    """Compute the full-range BT.601 luma of (H, W, 3) in 0..255, rounded, as MATLAB's rgb2gray on 8 bits: (H, W)."""
    return np.floor(rgb @ _FULL_RANGE + 0.5)


def _local_mean(image: Floats) -> Floats:
    """Compute 7x7 Gaussian means, the border repeated outside."""
    return np.asarray(ndimage.gaussian_filter(image, 7 / 6, radius=3, mode="nearest"))


def normalise(image: Floats) -> Floats:
    """Normalise luma by its local mean and contrast: (I - mu) / (sigma + 1), section 2.1. (H, W) in 0..255."""
    mean = _local_mean(image)
    deviation = np.sqrt(np.abs(_local_mean(image * image) - mean * mean))
    return np.asarray((image - mean) / (deviation + 1))


@cache
def shape_table(lowest: float) -> tuple[Floats, Floats]:
    """Tabulate shapes from `lowest` to 10 in steps of 0.001, and E|x|² / E(x²) of each generalised Gaussian."""
    shapes = np.arange(round(1000 * lowest), 10001) / 1000
    first, second, third = (gammaln(k / shapes) for k in (1, 2, 3))
    return shapes, np.exp(2 * second - first - third)


def nearest_shape(ratio: Floats, table: tuple[Floats, Floats]) -> Floats:
    """Look up the shapes whose ratios are nearest; the table is of shapes and their ratios, which ascend."""
    shapes, ratios = table
    above = np.searchsorted(ratios, ratio).clip(1, len(ratios) - 1)
    return np.asarray(shapes[above - (ratio - ratios[above - 1] < ratios[above] - ratio)])


def fit_asymmetric(samples: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit the shape, left scale and right scale of an asymmetric generalised Gaussian to each row of (N, K).

    By moment matching: Lasmar, Stitou and Berthoumieu, "Multiscale skewed heavy tailed model for texture
    analysis" (2009). A row without negative or without positive samples gives NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = samples * samples
        negative, positive = samples < 0, samples > 0
        left_sum = np.einsum("nk,nk->n", squares, negative)
        total = squares.sum(1)
        left = np.sqrt(left_sum / negative.sum(1))
        right = np.sqrt((total - left_sum) / positive.sum(1))
        balance = left / right
        ratio = np.abs(samples).mean(1) ** 2 / (total / samples.shape[1])
        ratio *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = nearest_shape(ratio, shape_table(0.2))
    scale = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    return shape, left * scale, right * scale


def block_features(normalised: Floats, side: int) -> Floats:
    """Compute 18 features of each whole block of `side` pixels: (blocks, 18). Sections 2.1 and 2.3."""
    rows, columns = (n // side for n in normalised.shape)
    grid = normalised[: rows * side, : columns * side].reshape(rows, side, columns, side)
    blocks = np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(-1, side, side)
    shape, left, right = fit_asymmetric(blocks.reshape(len(blocks), -1))
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbours = blocks * np.roll(blocks, shift, axis=(1, 2))  # around the block's edge, as the authors do
        shape, left, right = fit_asymmetric(neighbours.reshape(len(blocks), -1))
        features += [shape, (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape)), left, right]
    return np.stack(features, axis=1)


_HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256  # Keys' kernel, a = -0.5, stretched by 2


def halve(image: Floats) -> Floats:
    """Halve by MATLAB's imresize(image, 0.5): antialiased bicubic, mirrored at the border. (H, W), even sides."""
    rows = ndimage.correlate1d(image, _HALVING, axis=0, mode="reflect")[1::2]
    return np.ascontiguousarray(ndimage.correlate1d(rows, _HALVING, axis=1, mode="reflect")[:, 1::2])


def niqe_of_luma(luma: Floats, parameters: NiqeParameters) -> float:
    """Compute NIQE of luma (H, W) in 0..255; equation 10. Raises ValueError for images it is not defined on.

    Only whole blocks count: the right and bottom remainder is left out, as in the authors' code.
    """
    rows, columns = (n // BLOCK for n in luma.shape)
    if rows * columns < 2:
        raise ValueError(f"NIQE needs at least two blocks of {BLOCK}x{BLOCK} pixels")
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    coarse = block_features(normalise(halve(luma)), BLOCK // 2)
    features = np.concatenate([block_features(normalise(luma), BLOCK), coarse], axis=1)
    whole = features[np.isfinite(features).all(1)]
    if len(whole) < 2:
        raise ValueError("NIQE needs at least two blocks that are not flat")
    difference = parameters.mean - np.nanmean(features, axis=0)
    pooled = (parameters.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def niqe(rgb: NDArray[Any], parameters: NiqeParameters) -> float:
    """Compute NIQE of an image (H, W, 3) in 0..255, on rounded full-range luma: the authors' convention."""
    return niqe_of_luma(grey(rgb), parameters)
