"""NIQE against the official scores, and its parts against other computations of the same."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy import ndimage, special, stats

from sr_cli.metrics import niqe


@pytest.fixture(scope="session")
def parameters(shared: Path) -> niqe.NiqeParameters:
    return niqe.parse_parameters((shared / "reference/niqe_modelparameters.mat").read_bytes())


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 60, (height, width))
    return np.clip(128 + ndimage.gaussian_filter(noise, 1) * 2, 0, 255)


def test_official_scores(shared: Path, parameters: niqe.NiqeParameters) -> None:
    """Within 1 %; the last, most of which is one flat colour, is where implementations usually miss."""
    with (shared / "reference/calibration/results_official.csv").open() as file:
        official = next(row for row in csv.DictReader(file) if row["Method"] == "niqe")
    for path in sorted((shared / "reference/calibration/dist_dir").iterdir()):
        score = niqe.niqe(np.asarray(Image.open(path).convert("RGB")), parameters)
        assert score == pytest.approx(float(official[path.name]), rel=0.01), path.name


def test_parameters_from_both_published_files(shared: Path, parameters: niqe.NiqeParameters) -> None:
    expected = scipy.io.loadmat(shared / "reference/niqe_modelparameters.mat")
    np.testing.assert_array_equal(parameters.mean, expected["mu_prisparam"][0])
    np.testing.assert_array_equal(parameters.covariance, expected["cov_prisparam"])
    other = niqe.parse_parameters((shared / "reference/niqe_pris_params.npz").read_bytes())
    np.testing.assert_array_equal(parameters.covariance, other.covariance)


@pytest.mark.parametrize("compressed", [False, True])
def test_parameters_from_mat_files(compressed: bool) -> None:
    mean, root = np.arange(36.0), np.random.default_rng(0).normal(size=(36, 36))
    matrices = {"mu_prisparam": mean[None], "cov_prisparam": root @ root.T, "cell": np.array([{}], dtype=object)}
    file = io.BytesIO()
    scipy.io.savemat(file, matrices, do_compression=compressed)
    found = niqe.parse_parameters(file.getvalue())
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.covariance, root @ root.T)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4 nothing",
        b"MATLAB" + bytes(200),
        b"<html>not found</html>",
        b"MATLAB" + bytes(120) + b"IM" + b"\xff" * 64,
    ],
)
def test_files_that_are_no_parameters(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"NIQE|MAT"):
        niqe.parse_parameters(data)


def test_normalise_is_the_formula() -> None:
    image = texture(110, 100)
    x = np.arange(-3, 4)
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = ndimage.correlate(image, window, mode="nearest")
    deviation = np.sqrt(abs(ndimage.correlate(image**2, window, mode="nearest") - mean**2))
    np.testing.assert_allclose(niqe.normalise(image), (image - mean) / (deviation + 1), atol=1e-9)


def test_halving_weights_are_keys_kernel() -> None:
    """A step of one pixel: the response is the kernel itself, sampled at odd quarters and scaled."""

    def keys(x: float) -> float:
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    impulse = np.zeros((1, 32))
    impulse[0, 16] = 1
    centres = 2 * np.arange(16) + 0.5
    expected = [keys((16 - centre) / 2) / 2 for centre in centres]
    np.testing.assert_allclose(niqe.halve(np.repeat(impulse, 32, 0))[5], expected, atol=1e-12)
    np.testing.assert_allclose(niqe.halve(np.full((8, 8), 7.0)), 7.0)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_fit_finds_the_distribution(shape: float) -> None:
    rng = np.random.default_rng(1)
    magnitude = stats.gennorm.rvs(shape, size=(1, 200_000), random_state=rng)
    skewed = np.where(magnitude < 0, 2 * magnitude, 3 * magnitude)
    keep = rng.random(skewed.shape) < np.where(skewed < 0, 2 / 3, 1.0)  # a side's weight follows its scale
    found = niqe.fit_asymmetric(skewed[keep][None])
    assert found[0][0] == pytest.approx(shape, rel=0.03)
    assert found[1][0] == pytest.approx(2, rel=0.03)
    assert found[2][0] == pytest.approx(3, rel=0.03)


def test_shape_table() -> None:
    shapes, table = niqe.shape_table(0.2)
    gamma = special.gamma
    np.testing.assert_allclose(table, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes)), rtol=1e-9)
    assert len(shapes) == 9801


def test_noise_and_blur_are_worse_than_a_photograph(shared: Path, parameters: niqe.NiqeParameters) -> None:
    photo = np.asarray(Image.open(shared / "data/test/Set14/img_002_SRF_4_HR.png").convert("RGB")).astype(float)
    noisy = photo + np.random.default_rng(0).normal(0, 25, photo.shape)
    blurred = ndimage.gaussian_filter(photo, (3, 3, 0))
    clean = niqe.niqe(photo, parameters)
    assert clean < niqe.niqe(noisy.clip(0, 255), parameters)
    assert clean < niqe.niqe(blurred, parameters)


def test_images_it_is_not_defined_on(parameters: niqe.NiqeParameters) -> None:
    with pytest.raises(ValueError, match="two blocks of 96x96"):
        niqe.niqe_of_luma(texture(120, 150), parameters)
    with pytest.raises(ValueError, match="not flat"):
        niqe.niqe_of_luma(np.full((192, 192), 128.0), parameters)
