"""Inference: tiles that agree with the whole, every size and type, and what it does when things go wrong."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sr_cli import inference
from sr_cli.errors import OutOfMemory, UsageError, WeightsError
from sr_cli.inference import backends
from sr_cli.inference.backends import FunctionNetwork, Network
from sr_cli.inference.colours import keep_colours
from sr_cli.models import Generator
from sr_cli.weights import LoadedModel
from tests.networks import SMALL, with_weights


def loaded(name: str = "mesrgan", overlap: int | None = None) -> LoadedModel:
    return LoadedModel(name, None, with_weights(SMALL[name]), overlap, "0" * 64, Path("none"), None)


def upscaler(name: str = "mesrgan", **options: object) -> inference.Upscaler:
    """On the CPU by plain torch: what converts a network takes longer than these small pictures."""
    return inference.Upscaler(loaded(name), **{"device": "cpu", "backend": "eager", **options})  # type: ignore[arg-type]


def _picture(height: int, width: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(height * 1000 + width).random((height, width, channels), np.float32)
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    return values if dtype is np.float32 else np.rint(values * top).astype(dtype)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(8, 40))
def test_tiles_with_full_overlap_equal_the_whole(name: str, height: int, width: int, tile: int) -> None:
    pixels = _picture(height, width, np.float32)
    whole = upscaler(name, tile=0, overlap="full").upscale(pixels)
    tiled = upscaler(name, tile=tile, overlap="full").upscale(pixels)
    assert np.abs(whole.pixels - tiled.pixels).max() < 2e-5
    assert whole.tiles == 1


@pytest.mark.parametrize("name", SMALL)
def test_a_network_sees_the_picture_as_it_is_up_to_its_border(name: str) -> None:
    pixels = _picture(19, 23, np.float32)
    rgb = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = keep_colours(with_weights(SMALL[name])(rgb), rgb).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(upscaler(name).upscale(pixels).pixels - expected).max() < 2e-5


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
    """Also with weights that answer the border of what they see."""
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


def around(forward: Callable[[Network, torch.Tensor], torch.Tensor]) -> Callable[[Network], Network]:
    """For `wrap_network`: a function of the network and a batch, in the network's place."""
    return lambda network: FunctionNetwork(lambda batch: forward(network, batch))


def test_short_memory_makes_smaller_tiles_and_the_same_picture() -> None:
    pixels = _picture(128, 128)
    expected = upscaler(tile=0, overlap="full").upscale(pixels).pixels
    calls = []

    def grumbling(network: Network, batch: torch.Tensor) -> torch.Tensor:
        calls.append(batch.shape[-1])
        # Runs out for large tiles, and once in the middle of a pass.
        if batch.shape[-1] > 32 + 2 * tight.overlap or len(calls) == 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return network(batch)

    tight = upscaler(tile=0, overlap="full", wrap_network=around(grumbling))
    rows: list[np.ndarray] = []
    result = tight.upscale(pixels, on_rows=lambda r: rows.append(r.copy()))
    assert result.tile == 16
    assert np.abs(result.pixels.astype(int) - expected).max() <= 1
    assert np.array_equal(np.concatenate(rows), result.pixels)


def test_after_a_shortage_nothing_of_the_failed_attempt_is_kept() -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    class Grumbling(FunctionNetwork):
        def release(self) -> None:
            gc.collect()
            alive.extend(reference() is not None for reference in kept)

    def forward(batch: torch.Tensor) -> torch.Tensor:
        if batch.shape[-1] > 64:
            activations = torch.zeros(8)
            kept.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch.repeat_interleave(4, 2).repeat_interleave(4, 3)

    upscaler(tile=0, overlap=8, wrap_network=lambda _network: Grumbling(forward)).upscale(_picture(96, 96))
    assert alive == [False]


def test_no_memory_at_all_is_a_clear_error() -> None:
    def refuse(_network: Network, _batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match="tiles of"):
        upscaler(wrap_network=around(refuse)).upscale(_picture(64, 64))


def test_other_errors_of_the_network_are_not_taken_for_short_memory() -> None:
    def refuse(_network: Network, _batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        upscaler(wrap_network=around(refuse)).upscale(_picture(4, 4))


def test_tiles_that_overflow_are_redone_in_a_wider_format_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[torch.dtype] = []
    prepare = backends.prepare

    def record(folded: Generator, dtype: torch.dtype, name: str) -> Network:
        prepared.append(dtype)
        return prepare(folded, dtype, name)

    monkeypatch.setattr(backends, "prepare", record)
    half = upscaler(precision="bf16", tile=8, wrap_network=around(lambda network, batch: network(batch) * torch.inf))
    result = half.upscale(_picture(16, 16))
    assert result.redone == result.tiles == 4
    assert prepared == [torch.bfloat16, torch.float32]
    assert np.array_equal(result.pixels, upscaler(tile=8).upscale(_picture(16, 16)).pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_the_inputs_fault(value: float) -> None:
    pixels = _picture(5, 7, np.float32)
    pixels[3, 2, 1] = value
    for one in (upscaler(), inference.Upscaler("bicubic")):
        with pytest.raises(ValueError, match="row 3, column 2 of the input"):
            one.upscale(pixels)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tile", "big"),
        ("tile", -1),
        ("tile", 1.5),
        ("tile", True),
        ("tile", None),
        ("overlap", "all"),
        ("overlap", -1),
        ("threads", 0),
        ("threads", "auto"),
        ("pixels", -1),
        ("device", None),
        ("device", "gpu"),
        ("precision", "fp8"),
        ("precision", 16),
        ("backend", "tensorrt"),
        ("backend", None),
        ("fidelity", 1.5),
        ("model", 7),
    ],
)
def test_wrong_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises((ValueError, UsageError), match=f"{name}|{name.title()}"):
        inference.Upscaler(**{"model": loaded(), "device": "cpu", name: value})  # type: ignore[arg-type]


def test_every_upscaler_says_how_it_computes() -> None:
    plain = inference.Upscaler("bicubic")
    assert (plain.backend, plain.device_name, plain.precision) == ("pillow", "cpu", "fp32")
    result = upscaler(tile=8).upscale(_picture(16, 16))
    assert (result.setup.backend, result.setup.precision, result.setup.tile) == ("eager", "fp32", 8)
    assert {line.split()[0] for line in result.setup.reasons} == {"precision", "backend"}
    assert "eager" in result.setup.key and "fp32" in result.setup.label


def test_weights_that_give_nan_are_named() -> None:
    model = loaded()
    next(model.generator.parameters()).data.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not finite"):
        inference.Upscaler(replace(model, name="bad"), device="cpu", backend="eager").upscale(_picture(4, 4))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        inference.Upscaler(loaded(), device=device)


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
