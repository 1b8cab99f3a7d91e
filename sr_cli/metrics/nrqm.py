"""NRQM, a no-reference quality metric learned for super-resolution: 0 to 10; more is better.

Ma, Yang, Yang and Yang, "Learning a No-Reference Quality Metric for Single-Image Super-Resolution"
(2017): three kinds of statistics (block DCT, steerable pyramid, principal components), a regression
forest for each, and a linear blend. The conventions below are those of the authors' MATLAB code, which
made the published scores. The trained model is theirs, and licensed for non-commercial use.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import dctn

from sr_cli.metrics.niqe import grey, nearest_shape, shape_table
from sr_cli.metrics.pyramid import BANDS, resize_cubic, steerable_pyramid
from sr_cli.metrics.ssim import contrast_structure

SMALLEST_SIDE = 60  #: Below it the coarser subbands, without their border, do not hold SSIM's window.

FEATURES = (18, 45, 75)  #: Numbers of DCT, wavelet and PCA features.

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forest:
    """A regression forest. All arrays are (nodes, trees); node 0 is the root, a left child of -1 marks a leaf."""

    left: NDArray[np.int64]  #: Node to go to where the feature is at most the threshold.
    right: NDArray[np.int64]  #: Node to go to otherwise.
    feature: NDArray[np.int64]  #: Index of the feature that a node looks at.
    threshold: Floats  #: What it is compared with.
    value: Floats  #: What a leaf predicts.

    def predict(self, features: Floats) -> float:
        """Return the mean of the trees' predictions for one vector of features."""
        trees = np.arange(self.left.shape[1])
        nodes = np.zeros(len(trees), np.int64)
        for _ in range(len(self.left)):  # no path is longer than a tree has nodes
            inner = self.left[nodes, trees] >= 0
            if not inner.any():
                break
            goes_left = features[self.feature[nodes, trees]] <= self.threshold[nodes, trees]
            following = np.where(goes_left, self.left[nodes, trees], self.right[nodes, trees])
            nodes = np.where(inner, following, nodes)
        return float(self.value[nodes, trees].mean())


@dataclass(frozen=True)
class NrqmModel:
    """The trained model: one forest for each kind of features, and the blend of their predictions."""

    forests: tuple[Forest, Forest, Forest]  #: For the DCT, wavelet and PCA features.
    blend: Floats  #: (4,): the constant, and a weight for each forest.

    def predict(self, features: Sequence[Floats]) -> float:
        """Return the score of one image's three vectors of features."""
        opinions = [forest.predict(vector) for forest, vector in zip(self.forests, features, strict=True)]
        return float(self.blend @ [1.0, *opinions])


def parse_model(data: bytes) -> NrqmModel:
    """Read the authors' model from their MAT file (`NRQM_model.mat`). Raises ValueError for another file."""
    try:
        file = cast("str", io.BytesIO(data))  # streams are documented, but not in the stubs
        model = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["model"]
        forests = [_forest(forest, count) for forest, count in zip(model.rf, FEATURES, strict=True)]
        blend = np.asarray(model.linear, np.float64).ravel()
    except ValueError:
        raise
    except Exception as error:  # scipy raises errors of many kinds for files that are not MAT files
        raise ValueError(f"not NRQM's model ({type(error).__name__}: {error})") from None
    if blend.shape != (4,) or not np.isfinite(blend).all():
        raise ValueError(f"not NRQM's model: its blend has shape {blend.shape} instead of (4,)")
    return NrqmModel((forests[0], forests[1], forests[2]), blend)


def _forest(struct: Any, features: int) -> Forest:
    """Read one forest of the `randomforest-matlab` package: its indices count from 1, and 0 is none."""
    left, right, feature = (
        np.asarray(getattr(struct, name)).astype(np.int64) - 1 for name in ("lDau", "rDau", "mbest")
    )
    threshold, value = (np.asarray(getattr(struct, name)).astype(np.float64) for name in ("upper", "avnode"))
    shapes = {array.shape for array in (left, right, feature, threshold, value)}
    if len(shapes) != 1 or left.ndim != 2:
        raise ValueError(f"not NRQM's model: a forest's arrays have the shapes {sorted(shapes)}")
    inner = left >= 0
    if inner.any():
        lowest = min(right[inner].min(), feature[inner].min())
        if max(left.max(), right[inner].max()) >= len(left) or lowest < 0 or feature[inner].max() >= features:
            raise ValueError("not NRQM's model: a forest points outside of itself or of its features")
    return Forest(left, right, feature, threshold, value)


def generalised_gaussian_shape(samples: Floats) -> Floats:
    """Fit the shape of a generalised Gaussian to each row of (N, K), by moment matching. Section 3.1."""
    centred = samples - samples.mean(1, keepdims=True)
    variance = np.einsum("nk,nk->n", centred, centred) / (samples.shape[1] - 1)
    ratio = variance / (np.abs(centred).mean(1) ** 2 + 1e-7)
    shapes, inverse_ratios = shape_table(0.03)
    return nearest_shape(ratio, (shapes[::-1], 1 / inverse_ratios[::-1]))  # ascending, as it is searched


def _variation(coefficients: Floats, epsilon: float) -> Floats:
    """Compute the coefficient of variation of the magnitudes in each row of (N, K)."""
    magnitudes = np.abs(coefficients)
    return np.asarray(magnitudes.std(1, ddof=1) / (magnitudes.mean(1) + epsilon))


_CORE, _MARGIN = 3, 2
_BLOCK = _CORE + 2 * _MARGIN


def _orientations() -> tuple[NDArray[np.intp], ...]:
    """Return the indices, in a flattened block, of the coefficients of each orientation."""
    starts = {0: 1, 1: 2, 2: 4, 3: 5}
    horizontal = {(row, column) for row, start in starts.items() for column in range(start, _BLOCK)}
    vertical = {(column, row) for row, column in horizontal}
    everything = {(row, column) for row in range(_BLOCK) for column in range(_BLOCK)} - {(0, 0)}
    groups = (horizontal, everything - horizontal - vertical, vertical)
    return tuple(np.array(sorted(row * _BLOCK + column for row, column in group)) for group in groups)


def blocks(image: Floats) -> Floats:
    """Cut flattened 7x7 neighbourhoods of each 3x3 core out of (H, W), zero outside: (cores, 49)."""
    padded = np.pad(image, [(_MARGIN, _MARGIN + -side % _CORE) for side in image.shape])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_BLOCK, _BLOCK))[::_CORE, ::_CORE]
    return np.asarray(windows.reshape(-1, _BLOCK * _BLOCK))


def _pooled(values: Floats, lowest: bool) -> list[float]:
    """Return the mean of the lowest or highest tenth, and the mean of all."""
    ordered, count = np.sort(values), len(values)
    tenth = ordered[: math.ceil(count * 0.1)] if lowest else ordered[max(int(count * 0.9) - 1, 0) :]
    return [float(tenth.mean()), float(values.mean())]


def dct_features(image: Floats) -> list[float]:
    """Compute six statistics of the block DCT of one scale, (H, W) in 0..1. Section 3.1."""
    coefficients = dctn(blocks(image).reshape(-1, _BLOCK, _BLOCK), axes=(1, 2), norm="ortho").reshape(-1, _BLOCK**2)
    oriented = np.stack([_variation(coefficients[:, group], 1e-8) for group in _orientations()])
    return [
        *_pooled(generalised_gaussian_shape(coefficients[:, 1:]), lowest=True),
        *_pooled(_variation(coefficients[:, 1:], 1e-7), lowest=False),
        *_pooled(oriented.var(0, ddof=1), lowest=False),
    ]


def _neighbourhood(band: Floats, parent: Floats | None, siblings: Sequence[Floats]) -> Floats:
    """Collect of each inner coefficient: its 3x3 neighbourhood, its parent, and its siblings in orientation: (K, N)."""
    height, width = band.shape[0] - 2, band.shape[1] - 2
    rows = [band[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    rows += [other[1:-1, 1:-1] for other in ([] if parent is None else [parent]) + list(siblings)]
    return np.stack([row.ravel() for row in rows])


def normalise_band(band: Floats, parent: Floats | None, siblings: Sequence[Floats], border: int) -> Floats:
    """Divide a subband by the local scale of a Gaussian scale mixture, without `border` coefficients. Section 3.2.

    The scale is estimated from the coefficient's neighbours in space, scale and orientation.
    """
    samples = _neighbourhood(band, parent, siblings)
    values, vectors = np.linalg.eigh(samples @ samples.T / samples.shape[1])
    positive = np.maximum(values, 0)  # numerical negatives go, without changing the overall variance
    covariance = (vectors * positive * (values.sum() / (positive.sum() or 1.0))) @ vectors.T
    size = 9 + (parent is not None)
    squares = np.einsum("kn,kn->n", np.linalg.pinv(covariance, hermitian=True) @ samples, samples) / size
    scale = np.sqrt(np.maximum(squares, 0))
    centre = band[1:-1, 1:-1].ravel()
    centre = centre - centre.mean()
    normalised = np.divide(centre, scale, out=np.zeros_like(centre), where=scale > 0)
    inner = normalised.reshape(band.shape[0] - 2, -1)[border:-border, border:-border]
    return np.asarray(inner - inner.mean())


def wavelet_features(image: Floats) -> Floats:
    """Compute 45 statistics of the steerable pyramid of (H, W) in 0..255: 2 scales, 6 orientations. Section 3.2."""
    pyramid = steerable_pyramid(image, scales=2)
    fine, coarse = pyramid.bands
    normalised = []
    for scale, level in enumerate(pyramid.bands):
        for i, band in enumerate(level):
            parent = None
            if scale == 0 and i < BANDS - 1:  # in the authors' code the last orientation has no parent
                parent = resize_cubic(coarse[i], (2 * coarse[i].shape[0], 2 * coarse[i].shape[1]))
                parent = parent[: band.shape[0], : band.shape[1]]
            siblings = [other for j, other in enumerate(level) if j != i]
            normalised.append(normalise_band(band, parent, siblings, 16 >> scale))
    samples = [band.reshape(1, -1) for band in normalised]
    pairs = [np.concatenate(samples[i::BANDS], axis=1) for i in range(BANDS)]
    shapes = [float(generalised_gaussian_shape(values)[0]) for values in samples + pairs]
    size = pyramid.high.shape
    across = [contrast_structure(resize_cubic(band, size), pyramid.high) for band in fine + coarse]
    between = [contrast_structure(normalised[i], normalised[j]) for i in range(BANDS) for j in range(i + 1, BANDS)]
    return np.array(shapes + across + between)


def pca_features(image: Floats) -> Floats:
    """Compute 25 singular values of all distinct 5x5 blocks of one scale, (H, W) in 0..1. Section 3.3."""
    padded = np.pad(image, [(0, -side % 5) for side in image.shape])
    height, width = (side // 5 for side in padded.shape)
    columns = padded.reshape(height, 5, width, 5).transpose(1, 3, 0, 2).reshape(25, -1)
    found = np.linalg.svd(columns, compute_uv=False)
    return np.pad(found, (0, 25 - len(found)))


def reduce_by_two(image: Floats) -> Floats:
    """Reduce by two: a 3x3 Gaussian of sigma 0.5, zero outside, then every second pixel from the second on."""
    smooth = ndimage.gaussian_filter(image, 0.5, radius=1, mode="constant")
    return np.ascontiguousarray(smooth[1::2, 1::2])


def features(luma: Floats) -> tuple[Floats, Floats, Floats]:
    """Compute DCT (18,), wavelet (45,) and PCA (75,) features of luma (H, W) in 0..255.

    Raises ValueError below 60 pixels.
    """
    if min(luma.shape) < SMALLEST_SIDE:
        raise ValueError(f"smaller than the {SMALLEST_SIDE} pixels a side that NRQM needs")
    scales = [luma / 255]
    for _ in range(2):
        scales.append(reduce_by_two(scales[-1]))
    dct = np.array([value for image in scales for value in dct_features(image)])
    return dct, wavelet_features(luma), np.concatenate([pca_features(image) for image in scales])


def nrqm_of_luma(luma: Floats, model: NrqmModel) -> float:
    """Compute NRQM of luma (H, W) in 0..255."""
    return model.predict(features(luma))


def nrqm(rgb: NDArray[Any], model: NrqmModel) -> float:
    """Compute NRQM of an image (H, W, 3) in 0..255, on rounded full-range luma: the authors' convention."""
    return nrqm_of_luma(grey(rgb), model)
