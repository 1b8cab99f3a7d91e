"""NRQM: each feature against a second, straightforward computation; its forest against hand-made ones."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.io
import scipy.linalg
from PIL import Image
from scipy import ndimage, special, stats
from skimage import color

from sr_cli.evaluate import self_check
from sr_cli.metrics import niqe, nrqm, perceptual, pyramid
from sr_cli.metrics.ssim import contrast_structure


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 120, (height, width))
    return np.clip(128 + ndimage.gaussian_filter(noise, 1.2), 0, 255).round()


# --- block DCT -------------------------------------------------------------------------------------


def seven_by_seven(image: np.ndarray) -> list[np.ndarray]:
    """Each 3x3 block with two pixels around it, zero outside, one at a time."""
    rows, columns = math.ceil(image.shape[0] / 3) * 3, math.ceil(image.shape[1] / 3) * 3
    found = []
    for top in range(0, rows, 3):
        for left in range(0, columns, 3):
            block = np.zeros((7, 7))
            for i in range(7):
                for j in range(7):
                    y, x = top + i - 2, left + j - 2
                    if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                        block[i, j] = image[y, x]
            found.append(block)
    return found


def shape_by_search(values: np.ndarray) -> float:
    gammas = np.arange(0.03, 10.0005, 0.001)
    ratios = special.gamma(1 / gammas) * special.gamma(3 / gammas) / special.gamma(2 / gammas) ** 2
    rho = values.var(ddof=1) / (np.abs(values - values.mean()).mean() ** 2 + 1e-7)
    return float(gammas[np.abs(ratios - rho).argmin()])


def variation(values: np.ndarray, epsilon: float) -> float:
    return float(np.abs(values).std(ddof=1) / (np.abs(values).mean() + epsilon))


def test_dct_features() -> None:
    image = texture(31, 44) / 255
    transformed = [scipy.fft.dctn(block, norm="ortho") for block in seven_by_seven(image)]
    assert len(transformed) == 11 * 15
    shapes, variations, orientations = [], [], []
    for t in transformed:
        others = t.T.ravel()[1:]
        shapes.append(shape_by_search(others))
        variations.append(variation(others, 1e-7))
        horizontal = [*t[0, 1:], *t[1, 2:], *t[2, 4:], *t[3, 5:]]
        diagonal = [t[1, 1], *t[2, 2:4], *t[3, 2:5], *t[4, 3:], *t[5, 4:], *t[6, 4:]]
        vertical = [*t[1:, 0], *t[2:, 1], *t[4:, 2], *t[5:, 3]]
        orientations.append(np.var([variation(np.array(v), 1e-8) for v in (horizontal, diagonal, vertical)], ddof=1))
    count = len(transformed)
    expected = [
        np.mean(sorted(shapes)[: math.ceil(0.1 * count)]),
        np.mean(shapes),
        np.mean(sorted(variations)[math.floor(0.9 * count) - 1 :]),
        np.mean(variations),
        np.mean(sorted(orientations)[math.floor(0.9 * count) - 1 :]),
        np.mean(orientations),
    ]
    np.testing.assert_allclose(nrqm.dct_features(image), expected, rtol=1e-6)


def test_every_coefficient_but_the_mean_has_one_orientation() -> None:
    groups = nrqm._orientations()
    assert [len(group) for group in groups] == [16, 16, 16]
    assert sorted(np.concatenate(groups)) == list(range(1, 49))


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 5.0])
def test_shape_of_a_known_distribution(shape: float) -> None:
    samples = stats.gennorm.rvs(shape, size=(2, 200_000), random_state=3)
    assert nrqm.generalised_gaussian_shape(samples) == pytest.approx(shape, rel=0.03)
    few = samples[:, :60]
    assert nrqm.generalised_gaussian_shape(few) == pytest.approx([shape_by_search(row) for row in few], abs=1.1e-3)


# --- steerable pyramid -----------------------------------------------------------------------------


def plain_band(image: np.ndarray, scale: int, orientation: int) -> np.ndarray:
    """One subband at full size, from the definition: radial and angular parts over FFT frequencies."""
    v, u = np.meshgrid(np.fft.fftfreq(image.shape[0]) * 2, np.fft.fftfreq(image.shape[1]) * 2, indexing="ij")
    radius = np.hypot(u, v)
    radius[0, 0] = 1e-9
    octave = np.log2(radius)

    def high(at: float) -> np.ndarray:
        return np.where(octave >= at, 1, np.where(octave <= at - 1, 0, np.cos(np.pi / 2 * (octave - at))))

    radial = high(-scale)
    for step in range(scale):
        radial = radial * np.sqrt(1 - high(-step) ** 2)
    order = 5
    gain = math.sqrt(2 ** (2 * order) * math.factorial(order) ** 2 / (6 * math.factorial(2 * order)))
    angular = gain * np.cos(np.arctan2(v, u) - np.pi * orientation / 6) ** order
    return np.fft.ifft2(np.fft.fft2(image) * radial * angular * (-1j) ** order).real


@pytest.mark.parametrize("size", [(64, 96), (80, 64)])
def test_pyramid_against_its_definition(size: tuple[int, int]) -> None:
    image = texture(*size)
    found = pyramid.steerable_pyramid(image, scales=2)
    for orientation in range(6):
        np.testing.assert_allclose(found.bands[0][orientation], plain_band(image, 1, orientation), atol=1e-8)
        coarse = 4 * plain_band(image, 2, orientation)[::2, ::2]  # nothing above half the frequencies is left
        np.testing.assert_allclose(found.bands[1][orientation], coarse, atol=1e-8)


@pytest.mark.parametrize("size", [(61, 75), (64, 75), (61, 64)])
def test_pyramid_of_odd_sizes(size: tuple[int, int]) -> None:
    found = pyramid.steerable_pyramid(texture(*size), scales=2)
    assert found.high.shape == size
    assert {band.shape for band in found.bands[1]} == {((size[0] + 1) // 2, (size[1] + 1) // 2)}


def test_pyramid_keeps_the_energy() -> None:
    """High, oriented and low parts are a tight frame: what is left for the low part is not negative."""
    image = texture(96, 96) - 128
    found = pyramid.steerable_pyramid(image, scales=1)
    energy = (found.high**2).sum() + sum((band**2).sum() for band in found.bands[0])
    spectrum = np.fft.fft2(image)
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(96) * 2,) * 2))
    octave = np.log2(np.maximum(radius, 1e-9))
    low = np.where(octave >= -1, 0, np.where(octave <= -2, 1, np.sin(-np.pi / 2 * (octave + 1))))
    rest = (np.abs(spectrum * low) ** 2).sum() / image.size
    assert energy + rest == pytest.approx((image**2).sum(), rel=1e-6)


def test_pyramid_tells_orientations() -> None:
    across = np.tile(np.cos(2 * np.pi * np.arange(64) * 12 / 64), (64, 1))
    bands = pyramid.steerable_pyramid(across, scales=2).bands[0]
    energies = [float((band**2).sum()) for band in bands]
    assert np.argmax(energies) == 0
    assert energies[3] < 1e-6 * energies[0]


def test_cubic_enlargement_is_pillows_inside() -> None:
    image = texture(20, 24).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((48, 40), Image.Resampling.BICUBIC))
    found = pyramid.resize_cubic(image.astype(np.float64), (40, 48))
    np.testing.assert_allclose(found[6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-3)
    np.testing.assert_allclose(pyramid.resize_cubic(np.full((5, 7), 3.0), (10, 13)), 3.0)


def test_cubic_enlargement_mirrors_the_border() -> None:
    image = texture(6, 8)
    whole = pyramid.resize_cubic(np.pad(image, 4, mode="symmetric"), (28, 32))
    np.testing.assert_allclose(pyramid.resize_cubic(image, (12, 16)), whole[8:-8, 8:-8])


# --- Gaussian scale mixture ------------------------------------------------------------------------


def test_normalised_band() -> None:
    rng = np.random.default_rng(4)
    band, parent, *siblings = rng.normal(0, 3, (7, 15, 17))
    vectors = []
    for y in range(1, 14):
        for x in range(1, 16):
            neighbours = band[y - 1 : y + 2, x - 1 : x + 2].ravel()
            vectors.append([*neighbours, parent[y, x], *(other[y, x] for other in siblings)])
    samples = np.array(vectors)
    inverse = scipy.linalg.inv(sum(np.outer(v, v) for v in samples) / len(samples))
    scale = np.sqrt([v @ inverse @ v / 10 for v in samples])
    centre = band[1:-1, 1:-1]
    expected = ((centre - centre.mean()) / scale.reshape(13, 15))[2:-2, 2:-2]
    found = nrqm.normalise_band(band, parent, siblings, border=2)
    np.testing.assert_allclose(found, expected - expected.mean(), rtol=1e-8)


def test_flat_bands_do_not_divide_by_zero() -> None:
    flat = np.zeros((20, 20))
    assert np.isfinite(nrqm.normalise_band(flat, flat, [flat] * 5, border=4)).all()


def test_contrast_structure() -> None:
    x, y = texture(30, 40), texture(30, 40, seed=1)
    u = np.arange(-5, 6)
    window = np.exp(-(u[:, None] ** 2 + u**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.correlate(values, window)[5:-5, 5:-5]

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    expected = ((2 * covariance + 58.5225) / (variances + 58.5225)).mean()
    assert contrast_structure(x, y) == pytest.approx(expected, rel=1e-9)


def test_wavelet_features_are_put_together_in_order() -> None:
    image = texture(96, 112)
    found = nrqm.wavelet_features(image)
    bands = [[plain_band(image, 1, o) for o in range(6)], [4 * plain_band(image, 2, o)[::2, ::2] for o in range(6)]]
    normalised = []
    for scale in (0, 1):
        for o in range(6):
            has_parent = scale == 0 and o < 5
            parent = pyramid.resize_cubic(bands[1][o], (96, 112)) if has_parent else None
            siblings = [bands[scale][other] for other in range(6) if other != o]
            normalised.append(nrqm.normalise_band(bands[scale][o], parent, siblings, (16, 8)[scale]))
    expected = [shape_by_search(band.ravel()) for band in normalised]
    expected += [shape_by_search(np.concatenate([normalised[o].ravel(), normalised[o + 6].ravel()])) for o in range(6)]
    high = pyramid.steerable_pyramid(image, 2).high
    for scale in (0, 1):
        expected += [contrast_structure(pyramid.resize_cubic(band, (96, 112)), high) for band in bands[scale]]
    expected += [contrast_structure(normalised[i], normalised[j]) for i in range(6) for j in range(i + 1, 6)]
    assert len(found) == 45
    np.testing.assert_allclose(found, expected, atol=1.1e-3)


# --- principal components --------------------------------------------------------------------------


def test_pca_features() -> None:
    image = texture(23, 32) / 255
    columns = []
    for left in range(0, 35, 5):
        for top in range(0, 25, 5):
            block = np.zeros((5, 5))
            part = image[top : top + 5, left : left + 5]
            block[: part.shape[0], : part.shape[1]] = part
            columns.append(block.ravel())
    np.testing.assert_allclose(nrqm.pca_features(image), scipy.linalg.svdvals(np.array(columns)), rtol=1e-9)


def test_few_blocks_leave_zeros() -> None:
    values = nrqm.pca_features(texture(10, 10))
    assert np.count_nonzero(values > 1e-9) <= 4


def test_reduction_by_two() -> None:
    image = texture(21, 30)
    weights = np.exp(-(np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]])) / (2 * 0.5**2))
    expected = ndimage.correlate(image, weights / weights.sum(), mode="constant")[1::2, 1::2]
    np.testing.assert_allclose(nrqm.reduce_by_two(image), expected)


def test_feature_vectors() -> None:
    dct, wavelet, pca = nrqm.features(texture(96, 80))
    assert (len(dct), len(wavelet), len(pca)) == nrqm.FEATURES
    with pytest.raises(ValueError, match="60 pixels"):
        nrqm.features(texture(59, 200))
    assert all(np.isfinite(vector).all() for vector in nrqm.features(texture(60, 61)))
    assert all(np.isfinite(vector).all() for vector in nrqm.features(np.full((64, 64), 128.0)))


# --- forests and the blend -------------------------------------------------------------------------


def tree(*nodes: tuple[int, int, int, float, float]) -> np.ndarray:
    """Nodes as (left, right, feature, threshold, value), counted from 1, 0 for none: the MATLAB package's way."""
    return np.array(nodes)


# if x2 <= 0.5: (if x1 <= -1: 1.0 else 2.0) else 3.0     and     if x1 <= 4: 10.0 else 20.0
TREES = [
    tree((2, 3, 2, 0.5, 0), (4, 5, 1, -1.0, 0), (0, 0, 0, 0, 3.0), (0, 0, 0, 0, 1.0), (0, 0, 0, 0, 2.0)),
    tree((2, 3, 1, 4.0, 0), (0, 0, 0, 0, 10.0), (0, 0, 0, 0, 20.0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
]


def forest_struct(trees: list[np.ndarray]) -> dict[str, Any]:
    left, right, feature, threshold, value = np.stack(trees, axis=-1).transpose(1, 0, 2)
    status = np.where(left > 0, -3, -1).astype(np.int8)
    return {
        "lDau": left.astype(np.int32),
        "rDau": right.astype(np.int32),
        "nodestatus": status,
        "nrnodes": len(left),
        "upper": threshold,
        "avnode": value,
        "mbest": feature.astype(np.int32),
        "ntree": len(trees),
    }


def model_file(forests: list[dict[str, Any]], linear: Any = (0.5, 1.0, -2.0, 0.25), column: bool = False) -> bytes:
    cell = np.empty((3, 1) if column else (1, 3), dtype=object)
    cell.ravel()[:] = forests
    file = io.BytesIO()
    scipy.io.savemat(file, {"model": {"rf": cell, "linear": np.array(linear).reshape(-1, 1)}}, do_compression=True)
    return file.getvalue()


@pytest.mark.parametrize("column", [False, True])
def test_hand_made_forest(column: bool) -> None:
    model = nrqm.parse_model(model_file([forest_struct(TREES)] * 3, column=column))
    forest = model.forests[0]
    cases = {(0, 0): (2 + 10) / 2, (-1, 0.5): (1 + 10) / 2, (-5, 0.6): (3 + 10) / 2, (4.1, 0): (2 + 20) / 2}
    for features, expected in cases.items():
        assert forest.predict(np.array(features, float)) == expected
    vectors = [np.array(v, float) for v in ((0, 0), (-1, 0.5), (4.1, 0))]
    assert model.predict(vectors) == pytest.approx(0.5 + 6 - 2 * 5.5 + 0.25 * 11)


def test_random_forests_against_recursion() -> None:
    rng = np.random.default_rng(0)

    def grow(depth: int, nodes: list[list[float]]) -> int:
        nodes.append([0, 0, 0, 0, rng.normal()])
        at = len(nodes)
        if depth and rng.random() < 0.9:
            left, right = grow(depth - 1, nodes), grow(depth - 1, nodes)
            nodes[at - 1] = [left, right, int(rng.integers(1, 19)), rng.normal(), 0.0]
        return at

    def follow(nodes: np.ndarray, x: np.ndarray, at: int = 1) -> float:
        left, right, feature, threshold, value = nodes[at - 1]
        if not left:
            return float(value)
        return follow(nodes, x, int(left if x[int(feature) - 1] <= threshold else right))

    trees = []
    for _ in range(20):
        nodes: list[list[float]] = []
        grow(6, nodes)
        trees.append(np.array(nodes + [[0.0] * 5] * (200 - len(nodes))))
    forest = nrqm.parse_model(model_file([forest_struct(trees)] * 3)).forests[1]
    for x in rng.normal(size=(30, 18)):
        assert forest.predict(x) == pytest.approx(np.mean([follow(nodes, x) for nodes in trees]))


def test_files_that_are_not_the_model() -> None:
    outside = forest_struct(TREES)
    outside["lDau"] = outside["lDau"] + 9
    feature = forest_struct(TREES)
    feature["mbest"] = feature["mbest"] + 40
    ragged = forest_struct(TREES)
    ragged["upper"] = ragged["upper"][:-1]
    good = forest_struct(TREES)
    for data in (
        b"",
        b"<html>",
        model_file([good] * 3, linear=(1.0, 2.0)),
        model_file([good] * 3, linear=(1.0, 2.0, 3.0, np.nan)),
        model_file([outside, good, good]),
        model_file([feature, good, good]),
        model_file([good, good, ragged]),
    ):
        with pytest.raises(ValueError, match="NRQM"):
            nrqm.parse_model(data)


# --- the perceptual index --------------------------------------------------------------------------


def test_perceptual_index(shared: Path) -> None:
    parameters = niqe.parse_parameters((shared / "reference/niqe_modelparameters.mat").read_bytes())
    model = nrqm.parse_model(model_file([forest_struct(TREES)] * 3))
    with Image.open(shared / "data/test/Set14/img_002_SRF_4_HR.png") as image:
        rgb = np.asarray(image.convert("RGB"))[:200, :210]
    y = color.rgb2ycbcr(rgb)[4:-4, 4:-4, 0].round()
    np.testing.assert_array_equal(perceptual.pirm_luma(rgb), y)
    expected = ((10 - nrqm.nrqm_of_luma(y, model)) + niqe.niqe_of_luma(y, parameters)) / 2
    assert perceptual.perceptual_index(rgb, parameters, model) == pytest.approx(expected)
    own = ((10 - nrqm.nrqm(rgb, model)) + niqe.niqe(rgb, parameters)) / 2
    assert perceptual.perceptual_index(rgb, parameters, model) != pytest.approx(own, abs=1e-6)


@pytest.mark.needs("nrqm model")
def test_official_scores_where_the_model_is_at_hand(shared: Path) -> None:
    checks = self_check.run(shared / "reference/calibration", shared / "reference/niqe_modelparameters.mat")
    assert [check for check in checks if not check.agrees] == []
