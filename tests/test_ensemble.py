"""The ensemble of flips and rotations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from test_inference import upscaler

from tests.networks import SMALL

PICTURE = np.random.default_rng(1).random((9, 14, 3), np.float32)
TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flip left to right": lambda a: a[:, ::-1],
    "flip top to bottom": lambda a: a[::-1],
    "turn by 90 degrees": lambda a: np.rot90(a),
    "turn by 270 degrees": lambda a: np.rot90(a, 3),
    "transpose": lambda a: a.swapaxes(0, 1),
}


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        pytest.param(
            name, transform, marks=() if name == "mesrgan" or transform == "turn by 90 degrees" else pytest.mark.slow
        )
        for name in SMALL
        for transform in TRANSFORMS
    ],
)
def test_it_is_equivariant(name: str, transform: str) -> None:
    turn = TRANSFORMS[transform]
    both = upscaler(name, tile=0, overlap="full", ensemble=True)
    turned_first = both.upscale(np.ascontiguousarray(turn(PICTURE))).pixels
    turned_last = turn(both.upscale(PICTURE).pixels)
    assert np.abs(turned_first - turned_last).max() < 1e-5
    alone = upscaler(name, tile=0, overlap="full")
    turned_first = alone.upscale(np.ascontiguousarray(turn(PICTURE))).pixels
    assert np.abs(turned_first - turn(alone.upscale(PICTURE).pixels)).max() > 1e-3


def test_it_is_the_mean_of_the_eight() -> None:
    alone = upscaler(tile=0, overlap="full")
    turned = [np.rot90(PICTURE[:, ::-1] if flip else PICTURE, turn) for flip in (False, True) for turn in range(4)]
    results = [alone.upscale(np.ascontiguousarray(t)).pixels for t in turned]
    upright = [np.rot90(r, -(i % 4)) for i, r in enumerate(results)]
    expected = np.mean([u[:, ::-1] if i >= 4 else u for i, u in enumerate(upright)], axis=0)
    actual = upscaler(tile=0, overlap="full", ensemble=True).upscale(PICTURE).pixels
    # The engine clamps once, after the mean; the small network of this test stays within 0..1 nearly everywhere.
    inside = (expected > 0.02) & (expected < 0.98)
    assert np.abs(actual - expected)[inside].max() < 0.02


def test_it_holds_with_tiles_and_in_half_precision() -> None:
    whole = upscaler(tile=0, overlap="full", ensemble=True).upscale(PICTURE).pixels
    tiled = upscaler(tile=8, overlap="full", ensemble=True).upscale(PICTURE).pixels
    half = upscaler(tile=8, overlap="full", ensemble=True, precision="bf16").upscale(PICTURE).pixels
    assert np.abs(whole - tiled).max() < 2e-5
    assert np.abs(whole - half).max() < 0.05
