"""Resampling to the size asked for: flat stays flat, light is averaged, alpha weighs, bands do not show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sr_cli import images
from sr_cli.upscale import resample as module
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.resample import resample, to_encoded, to_linear

DEPTHS = (np.uint8, np.uint16)


@settings(max_examples=30)
@given(
    st.sampled_from(DEPTHS),
    st.integers(0, 65535),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)
def test_flat_colours_stay_exact(
    depth: type, value: int, height: int, width: int, rows: int, columns: int, transparent: bool
) -> None:
    value = value if depth == np.uint16 else value >> 8
    pixels = np.full((height, width, 3), value, depth)
    alpha = np.full((height, width), np.iinfo(depth).max // 3, depth) if transparent else None
    result, opacity = resample(pixels, alpha, columns, rows)
    assert result.shape == (rows, columns, 3) and result.dtype == depth
    assert (result == value).all()
    if opacity is not None and alpha is not None:
        assert opacity.shape == (rows, columns) and (opacity == alpha.flat[0]).all()


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_level_survives(depth: type) -> None:
    levels = np.arange(np.iinfo(depth).max + 1, dtype=np.float64) / np.iinfo(depth).max
    there = to_linear(levels.astype(np.float32))
    back = np.rint(to_encoded(there) * np.iinfo(depth).max)
    assert np.array_equal(back, np.arange(len(levels)))


@pytest.mark.parametrize("depth", DEPTHS)
def test_light_is_averaged_not_its_encoding(depth: type) -> None:
    """Black and white lines seen from afar are half the light: 188 of 255, where averaged codes would give 128."""
    lines = np.zeros((64, 64, 1), depth)
    lines[::2] = np.iinfo(depth).max
    result, _ = resample(lines, None, 16, 16)
    middle = result[4:-4, 4:-4].astype(float) / np.iinfo(depth).max
    assert np.abs(middle - 0.7354).max() < 0.003  # 1.055 * 0.5 ** (1 / 2.4) - 0.055


def test_agrees_with_one_pass_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    alpha = np.random.default_rng(1).integers(0, 256, (90, 70), np.uint8)
    whole = resample(pixels, alpha, 43, 57)
    monkeypatch.setattr(module, "_BAND_PIXELS", 43 * 5)
    banded = resample(pixels, alpha, 43, 57)
    for one, other in zip(whole, banded, strict=True):
        assert one is not None and other is not None
        assert np.abs(one.astype(int) - other).max() <= 1


def test_agrees_with_lanczos_written_out() -> None:
    """One row against the sum over a widened sinc window, in double precision."""
    row = np.random.default_rng(2).integers(0, 65536, (1, 60, 1), np.uint16)
    result, _ = resample(row, None, 25, 1)
    light = to_linear((row[0, :, 0] / 65535).astype(np.float32)).astype(float)
    step = 60 / 25
    expected = []
    for x in range(25):
        centre = (x + 0.5) * step
        first, last = max(0, int(centre - 3 * step + 0.5)), min(60, int(centre + 3 * step + 0.5))
        at = (np.arange(first, last) + 0.5 - centre) / step
        weights = np.where(np.abs(at) < 3, np.sinc(at) * np.sinc(at / 3), 0)
        expected.append((light[first:last] * weights).sum() / weights.sum())
    wanted = to_encoded(np.clip(np.array(expected), 0, 1).astype(np.float32)) * 65535
    assert np.abs(result[0, :, 0] - wanted).max() < 2


def test_hidden_colours_do_not_leak() -> None:
    """Red beside fully transparent green: the visible edge stays red."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :21] = (255, 0, 0)
    pixels[:, 21:] = (0, 255, 0)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:, :21] = 255
    result, opacity = resample(pixels, alpha, 25, 25)
    assert opacity is not None
    seen = opacity > 16
    assert result[seen][:, 1].max() <= 1 and result[seen][:, 0].min() >= 254
    assert (result[:, -1] == (0, 255, 0)).all(), "what is invisible keeps its colour, too"


def test_profile_is_left_alone(tmp_path) -> None:
    from sr_cli.upscale.batch import run

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (10, 8), (1, 2, 3)).save(tmp_path / "a.png", icc_profile=profile)
    options = UpscaleOptions(model="bicubic", scale=2.5)
    (result,) = run([tmp_path / "a.png"], tmp_path / "b.png", options, lambda event: None)
    assert (result.width, result.height) == (25, 20)
    photo = images.read(tmp_path / "b.png")
    assert photo.icc_profile == profile
    assert (photo.pixels == (1, 2, 3)).all()
