"""Every weights file that ships with the package: it loads, and its tiles do not show."""

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


@pytest.mark.parametrize("spec", BUNDLED)
def test_tiles_do_not_show(spec: str, shared: Path) -> None:
    """With the overlap of the manifest no value differs by more than one level from the picture in one pass."""
    picture = Image.open(shared / "data/test/Set14/img_003_SRF_4_LR.png").convert("RGB")
    pixels = np.asarray(picture)[:72, :72]
    model = weights.load(spec, offline=True)
    tiled = inference.Upscaler(model, device="cpu", tile=36).upscale(pixels)
    whole = inference.Upscaler(model, device="cpu", tile=0).upscale(pixels)
    assert tiled.tiles > whole.tiles == 1
    assert np.abs(tiled.pixels.astype(int) - whole.pixels).max() <= 1


@pytest.mark.parametrize("spec", BUNDLED)
def test_a_grey_card_stays_grey(spec: str) -> None:
    card = np.full((9, 9, 3), 128, np.uint8)
    result = inference.Upscaler(spec, device="cpu", offline=True).upscale(card).pixels
    assert np.abs(result.astype(int) - 128).max() <= 2
