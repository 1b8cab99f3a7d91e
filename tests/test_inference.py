"""The engine: tiles that agree with the whole, every size and type, and what it does when things go wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_models import SMALL, _with_weights

from sr_cli import inference
from sr_cli.errors import OutOfMemory, UsageError, WeightsError
from sr_cli.weights import LoadedModel


def loaded(name: str = "mesrgan", overlap: int | None = None) -> LoadedModel:
    return LoadedModel(name, None, _with_weights(SMALL[name]), overlap, "0" * 64, Path("none"), None)


def upscaler(name: str = "mesrgan", **options: object) -> inference.Upscaler:
    return inference.Upscaler(loaded(name), device="cpu", **options)  # type: ignore[arg-type]


def _picture(height: int, width: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(height * 1000 + width).random((height, width, channels), np.float32)
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    return values if dtype is np.float32 else np.rint(values * top).astype(dtype)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(8, 40))
def test_tiles_with_full_overlap_equal_the_whole(name: str, height: int, width: int, tile: int) -> None:
    pixels = _picture(height, width, np.float32)
    whole = upscaler(name, tile=0, overlap="full").upscale(pixels)
    tiled = upscaler(name, tile=tile, overlap="full").upscale(pixels)
    assert np.abs(whole.pixels - tiled.pixels).max() < 2e-5
    assert whole.tiles == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", ["mesrgan", "bicubic", "lanczos"])
def test_type_and_channels_are_kept(model: str, dtype: type, channels: int) -> None:
    upscale = upscaler() if model == "mesrgan" else inference.Upscaler(model)
    result = upscale.upscale(_picture(5, 7, dtype, channels)).pixels
    assert result.dtype == dtype
    assert result.shape == (20, 28, channels)


def test_8_and_16_bit_agree() -> None:
    small = _picture(9, 9)
    fine = upscaler().upscale(small.astype(np.uint16) * 257).pixels
    assert np.abs(fine / 257 - upscaler().upscale(small).pixels).max() <= 0.51


def test_flat_picture_stays_flat_up_to_its_edges() -> None:
    """The border is padded by replication, so it sees what the middle sees."""
    flat = np.full((30, 30, 3), 128, np.uint8)
    result = upscaler(tile=8, overlap="full").upscale(flat).pixels
    middle = result[60:64, 60:64]
    assert np.array_equal(result, np.tile(middle, (30, 30, 1)))


def test_progress_and_rows_arrive_in_order() -> None:
    steps: list[tuple[int, int]] = []
    rows: list[np.ndarray] = []
    result = upscaler(tile=8).upscale(_picture(20, 30), lambda *s: steps.append(s), lambda r: rows.append(r.copy()))
    assert steps == [(i + 1, result.tiles) for i in range(result.tiles)]
    assert np.array_equal(np.concatenate(rows), result.pixels)


def test_short_memory_makes_smaller_tiles_and_the_same_picture() -> None:
    pixels = _picture(64, 64)
    expected = upscaler(tile=0, overlap="full").upscale(pixels).pixels
    tight = upscaler(tile=0, overlap="full")
    network = tight.network
    assert network is not None
    calls = []

    def grumbling(batch: torch.Tensor) -> torch.Tensor:
        calls.append(batch.shape[-1])
        # Runs out for large tiles, and once in the middle of a pass.
        if batch.shape[-1] > 32 + 2 * tight.overlap or len(calls) == 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return network(batch)

    tight.network = grumbling
    rows: list[np.ndarray] = []
    result = tight.upscale(pixels, on_rows=lambda r: rows.append(r.copy()))
    assert result.tile == 16
    assert np.abs(result.pixels.astype(int) - expected).max() <= 1
    assert np.array_equal(np.concatenate(rows), result.pixels)


def test_no_memory_at_all_is_a_clear_error() -> None:
    hopeless = upscaler()

    def refuse(_batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hopeless.network = refuse
    with pytest.raises(OutOfMemory, match="tiles of"):
        hopeless.upscale(_picture(64, 64))


def test_other_errors_of_the_network_are_not_taken_for_short_memory() -> None:
    broken = upscaler()

    def refuse(_batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    broken.network = refuse
    with pytest.raises(RuntimeError, match="shapes"):
        broken.upscale(_picture(4, 4))


def test_a_tile_that_overflows_is_redone_in_a_wider_format() -> None:
    half = upscaler(precision="bf16", tile=8)
    network = half.network
    assert network is not None
    half.network = lambda batch: network(batch) * torch.inf
    result = half.upscale(_picture(16, 16))
    assert result.redone == result.tiles == 4
    assert np.array_equal(result.pixels, upscaler(tile=8).upscale(_picture(16, 16)).pixels)


def test_weights_that_give_nan_are_named() -> None:
    model = loaded()
    next(model.generator.parameters()).data.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not finite"):
        inference.Upscaler(replace(model, name="bad"), device="cpu").upscale(_picture(4, 4))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        inference.Upscaler(loaded(), device=device)


def test_unknown_precision() -> None:
    with pytest.raises(UsageError, match="fp32"):
        upscaler(precision="fp8")


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4), "u1"), ((4, 4, 2), "u1"), ((0, 4, 3), "u1"), ((4, 4, 3), "f8")])
def test_arrays_of_another_kind_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    pixels = np.zeros(shape, dtype)
    with pytest.raises(ValueError, match="pixels must be"):
        upscaler().upscale(pixels)


@pytest.mark.parametrize("kind", ["bicubic", "lanczos"])
def test_interpolation_is_pillows(kind: str) -> None:
    # Without overshoot beyond 0..255, which Pillow clips between its two passes on 8 bits.
    pixels = _picture(11, 13) // 2 + 64
    resample = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}[kind]
    expected = np.asarray(Image.fromarray(pixels).resize((52, 44), resample))
    assert np.array_equal(inference.Upscaler(kind).upscale(pixels).pixels, expected)
    fine = inference.Upscaler(kind).upscale(pixels.astype(np.uint16) * 257).pixels
    # Pillow rounds to 8 bits between its two passes, which the second one amplifies a little.
    assert np.abs(fine / 257 - expected).max() <= 1.5
