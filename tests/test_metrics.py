"""PSNR, SSIM and RMSE against scikit-image, against published scores, and against their own laws."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage import color, metrics

from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.psnr import psnr, psnr_damped, rmse
from sr_cli.metrics.ssim import ssim, ssim_global

images = hnp.arrays(np.uint8, st.tuples(st.integers(11, 40), st.integers(11, 40), st.just(3)))


def noisy(image: np.ndarray, amount: int = 25) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-amount, amount + 1, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


@settings(max_examples=30)
@given(images)
def test_agree_with_scikit_image(image: np.ndarray) -> None:
    other = noisy(image)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = metrics.structural_similarity(image, other, channel_axis=2, **window)
    assert ssim(image, other) == pytest.approx(expected, abs=1e-9)
    y, other_y = luma(image), luma(other)
    assert ssim(y, other_y) == pytest.approx(metrics.structural_similarity(y, other_y, **window), abs=1e-9)
    assert psnr(image, other) == pytest.approx(metrics.peak_signal_noise_ratio(image, other), abs=1e-9)
    assert rmse(image, other) == pytest.approx(math.sqrt(metrics.mean_squared_error(image, other)), abs=1e-9)


@given(images)
def test_luma_is_scikit_images(image: np.ndarray) -> None:
    np.testing.assert_allclose(luma(image), color.rgb2ycbcr(image)[..., 0], atol=1e-9)


def test_luma_range() -> None:
    assert luma(np.array([[[0, 0, 0], [255, 255, 255]]]))[0] == pytest.approx([16, 235])


@given(images)
def test_equal_images(image: np.ndarray) -> None:
    assert psnr(image, image) == math.inf
    assert psnr_damped(image, image) == pytest.approx(60)
    assert ssim(image, image) == pytest.approx(1)
    assert rmse(image, image) == 0


@given(images, images)
def test_symmetric_and_bounded(a: np.ndarray, b: np.ndarray) -> None:
    b = np.resize(b, a.shape)
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    assert -1 <= ssim(a, b) <= 1 + 1e-12
    assert ssim_global(a, b) == pytest.approx(ssim_global(b, a))
    assert 0 <= rmse(a, b) <= 255


def test_known_psnr() -> None:
    flat = np.zeros((8, 8), np.uint8)
    assert psnr(flat, flat + 1) == pytest.approx(48.1308, abs=1e-4)
    assert rmse(flat, flat + 3) == 3


def test_strips_do_not_show() -> None:
    image = np.random.default_rng(0).integers(0, 256, (201, 64), dtype=np.uint8)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = metrics.structural_similarity(image, noisy(image), **window)
    assert ssim(image, noisy(image)) == pytest.approx(expected, abs=1e-9)


def test_global_ssim_by_hand() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 1, (2, 9, 7, 3))
    channels = []
    for c in range(3):
        a, b = x[..., c].ravel(), y[..., c].ravel()
        covariance = np.cov(a, b, bias=True)[0, 1]
        top = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
        channels.append(top / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var(ddof=1) + b.var(ddof=1) + 9e-4)))
    assert ssim_global(x, y, peak=1.0) == pytest.approx(np.mean(channels), abs=1e-12)


def test_refuses_what_it_cannot_compare() -> None:
    small, large = np.zeros((10, 40, 3)), np.zeros((12, 40, 3))
    for measure in (psnr, rmse, ssim, ssim_global):
        with pytest.raises(ValueError, match="sizes differ"):
            measure(small, large)
    with pytest.raises(ValueError, match="11x11"):
        ssim(small, small)
    with pytest.raises(ValueError, match="nothing is left"):
        crop_border(small, 5)
    assert crop_border(large, 4).shape == (4, 32, 3)


def official(shared: Path, method: str) -> dict[str, float]:
    with (shared / "reference/calibration/results_official.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["Method"] == method)
    return {name: float(score) for name, score in row.items() if name != "Method"}


def test_official_scores_of_the_calibration_images(shared: Path) -> None:
    """Their PSNR is on RGB, their SSIM on full-range luma rounded to integers."""
    folder = shared / "reference/calibration"
    psnrs, ssims = official(shared, "psnr"), official(shared, "ssim")
    for path in sorted((folder / "dist_dir").iterdir()):
        pair = [np.asarray(Image.open(folder / side / path.name).convert("RGB")) for side in ("dist_dir", "ref_dir")]
        assert psnr(*pair) == pytest.approx(psnrs[path.name], abs=0.006)
        grey = [np.round(image @ [0.299, 0.587, 0.114]) for image in pair]
        assert ssim(*grey) == pytest.approx(ssims[path.name], abs=6e-5)
