"""Every weights file that ships with the package: its tiles do not show, and it keeps colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_cli import inference, weights
from sr_cli.weights import manifest

BUNDLED = [
    f"{entry.name}:{stage.name}"
    for entry in manifest.read_file(manifest.builtin_path(), manifest.PACKAGE / "bundled").models.values()
    for stage in entry.stages.values()
    if stage.file
]


@pytest.fixture(scope="module", params=BUNDLED)
def model(request: pytest.FixtureRequest) -> weights.LoadedModel:
    """A bundled network."""
    return weights.load(request.param, offline=True)


@pytest.fixture(scope="module")
def upscaler(model: weights.LoadedModel) -> inference.Upscaler:
    """It with the overlap of the manifest and small tiles, in fp32: bf16 rounds by more than a level's half."""
    return inference.Upscaler(model, device="cpu", precision="fp32", tile=36)


def test_tiles_do_not_show(model: weights.LoadedModel, upscaler: inference.Upscaler, shared: Path) -> None:
    """No value differs by more than one level from the network's own picture, made in one pass by another backend."""
    with Image.open(shared / "data/test/Set14/img_003_SRF_4_LR.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))[:72, :72]
    tiled = upscaler.upscale(pixels)
    whole = inference.Upscaler(model, device="cpu", precision="fp32", backend="eager", tile=0).upscale(pixels)
    assert tiled.tiles > whole.tiles == 1
    assert np.abs(tiled.pixels.astype(int) - whole.pixels).max() <= 1


def test_flat_colours_stay(upscaler: inference.Upscaler) -> None:
    for blue in range(0, 256, 51):
        flat = np.empty((9, 9, 3), np.uint8)
        flat[:] = 255, 128, blue
        assert (upscaler.upscale(flat).pixels == flat[0, 0]).all()
    grey = np.full((9, 9, 3), 128, np.uint8)
    assert (upscaler.upscale(grey).pixels == 128).all()


def test_means_do_not_drift(upscaler: inference.Upscaler, shared: Path) -> None:
    with Image.open(sorted((shared / "data/val").iterdir())[0]) as image:
        photo = np.asarray(image.convert("RGB").reduce(8))[:72, :72]  # the size of the test above: compiled once
    large = upscaler.upscale(photo).pixels
    drift = large.reshape(-1, 3).mean(0) - photo.reshape(-1, 3).mean(0)
    assert np.abs(drift).max() < 0.25
