"""NIQE, the natural image quality evaluator: needs no reference; less is better.

Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer" (2013): 36 statistics
of each 96x96 block, at two scales, are set against a Gaussian model of the same statistics in pristine
photos. The model's parameters are the authors' (`niqe_modelparameters.mat`).
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 96
FEATURES = 36
_FULL_RANGE = np.array([0.298936021293776, 0.587043074451121, 0.114020904255103])  # MATLAB's rgb2gray
_STRIP_ROWS = 96

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
        arrays = _npz_arrays(data) if data[:2] == b"PK" else read_mat_matrices(data)
        by_start = {name.split("_")[0]: array for name, array in arrays.items()}
        return NiqeParameters(by_start["mu"].astype(np.float64).ravel(), by_start["cov"].astype(np.float64))
    except (KeyError, IndexError, OSError, EOFError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"no NIQE parameters in it ({error!r})") from None


def _npz_arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


def _mat_elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (type, content) of each data element: "MAT-File Format", version 5, section "Data Elements"."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # a small element keeps its size and its content in one word each
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
        else:
            yield kind, data[at + 8 : at + 8 + size]
            at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


_COMPRESSED, _MATRIX, _DOUBLE_CLASS = 15, 14, 6
_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}


def read_mat_matrices(data: bytes) -> dict[str, Floats]:
    """Read the real double matrices of a little-endian MAT file of version 5, by name.

    Little enough of the format to do without scipy. Raises ValueError for another format.
    """
    if data[:6] != b"MATLAB" or data[126:128] != b"IM":
        raise ValueError("not a MAT file of version 5")
    matrices = {}
    for kind, content in _mat_elements(data[128:]):
        if kind == _COMPRESSED:
            kind, content = next(_mat_elements(zlib.decompressobj().decompress(content, 1 << 24)))
        parts = list(_mat_elements(content)) if kind == _MATRIX else []
        if len(parts) >= 4 and parts[0][1][0] == _DOUBLE_CLASS and parts[3][0] in _NUMBERS:
            shape = np.frombuffer(parts[1][1], "<i4")
            values = np.frombuffer(parts[3][1], _NUMBERS[parts[3][0]]).astype(np.float64)
            matrices[parts[2][1].decode("ascii", "replace")] = values.reshape(shape, order="F")
    return matrices


def grey(rgb: NDArray[Any]) -> Floats:
    """Compute the full-range BT.601 luma of (H, W, 3) in 0..255, rounded, as MATLAB's rgb2gray on 8 bits: (H, W)."""
    return np.floor(rgb @ _FULL_RANGE + 0.5)


def _gaussian() -> Floats:
    x = np.arange(-3, 4)
    weights = np.exp(-(x**2) / (2 * (7 / 6) ** 2))
    return np.asarray(weights / weights.sum())


def _blur(image: Floats, weights: Floats) -> Floats:
    """Compute 7x7 Gaussian means of an image that already has three more rows and columns at each side."""
    height, width = image.shape[0] - 6, image.shape[1] - 6
    rows = weights[3] * image[3 : 3 + height]
    for i in range(3):
        rows += weights[i] * (image[i : i + height] + image[6 - i : 6 - i + height])
    smooth = weights[3] * rows[:, 3 : 3 + width]
    for i in range(3):
        smooth += weights[i] * (rows[:, i : i + width] + rows[:, 6 - i : 6 - i + width])
    return smooth


def normalise(image: Floats) -> Floats:
    """Normalise luma by its local mean and contrast: (I - mu) / (sigma + 1), section 2.1. (H, W) in 0..255."""
    padded = np.pad(image, 3, mode="edge")
    weights = _gaussian()
    result = np.empty_like(image)
    for top in range(0, len(image), _STRIP_ROWS):
        strip = padded[top : top + _STRIP_ROWS + 6]
        mean = _blur(strip, weights)
        deviation = np.sqrt(np.abs(_blur(strip * strip, weights) - mean * mean))
        result[top : top + _STRIP_ROWS] = (strip[3:-3, 3:-3] - mean) / (deviation + 1)
    return result


@cache
def _shape_table() -> tuple[Floats, Floats]:
    """Tabulate shapes 0.2 to 10 in steps of 0.001, and the ratio E|x|² / E(x²) of each generalised Gaussian."""
    shapes = np.arange(200, 10001) / 1000
    log_gamma = [[math.lgamma(k / shape) for k in (1, 2, 3)] for shape in shapes.tolist()]
    first, second, third = np.array(log_gamma).T
    return shapes, np.exp(2 * second - first - third)


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
    shapes, table = _shape_table()
    above = np.searchsorted(table, ratio).clip(1, len(table) - 1)
    nearest = above - (ratio - table[above - 1] < table[above] - ratio)
    shape = shapes[nearest]
    scale = np.array([math.exp((math.lgamma(1 / a) - math.lgamma(3 / a)) / 2) for a in shape.tolist()])
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
        mean = [math.exp(math.lgamma(2 / a) - math.lgamma(1 / a)) for a in shape.tolist()]
        features += [shape, (right - left) * np.array(mean), left, right]
    return np.stack(features, axis=1)


_HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256  # Keys' kernel, a = -0.5, stretched by 2


def halve(image: Floats) -> Floats:
    """Halve by MATLAB's imresize(image, 0.5): antialiased bicubic, mirrored at the border. (H, W), even sides."""
    for axis in (0, 1):
        padding = [(3, 3) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.moveaxis(np.pad(image, padding, mode="symmetric"), axis, 0)
        count = image.shape[axis] // 2
        taps = [padded[i : i + 2 * count : 2] for i in range(8)]
        image = np.moveaxis(sum(w * tap for w, tap in zip(_HALVING, taps, strict=True)), 0, axis)
    return np.ascontiguousarray(image)


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
