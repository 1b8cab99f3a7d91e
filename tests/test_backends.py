"""Every way to run a network gives the same picture."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit

from sr_cli import inference
from sr_cli.errors import UsageError
from sr_cli.inference import backends
from sr_cli.inference.backends import base
from sr_cli.models import PRESETS, Generator, create
from sr_cli.models.mesrgan import UPSAMPLERS, MesrganConfig
from sr_cli.models.rrdbnet import RrdbnetConfig
from sr_cli.weights import LoadedModel
from tests.networks import with_biases
from tests.processes import Forked

CPU = torch.device("cpu")
LEVEL = 1 / 255


def small_mesrgan() -> Generator:
    return with_biases(create(MesrganConfig(blocks=2, features=16, growth=8)))


def loaded(generator: Generator) -> LoadedModel:
    return LoadedModel("test", None, generator, None, "", Path("test.safetensors"), None)


_SLOW = [
    pytest.param("onnxruntime", marks=pytest.mark.slow),
    pytest.param("compiled", marks=[pytest.mark.slow, pytest.mark.needs("c++")]),
]


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
@pytest.mark.parametrize("name", ["eager", "openvino", *_SLOW])
def test_backends_agree_with_the_network_itself(name: str, upsampler: str) -> None:
    folded = with_biases(create(MesrganConfig(blocks=2, features=16, growth=8, upsampler=upsampler))).fold()
    network = backends.prepare(folded, torch.float32, name)
    for shape in ((1, 3, 24, 32), (2, 3, 17, 21)):
        batch = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, result = folded(batch), network(batch)
        assert result.dtype == torch.float32
        assert (result - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["esrgan", "rrdbnet"])
def test_buffered_dense_blocks_agree_with_concatenated_ones(name: str) -> None:
    folded = with_biases(create(RrdbnetConfig(blocks=1) if name == "rrdbnet" else PRESETS[name])).fold()
    batch = torch.rand(2, 3, 7, 10, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        result = backends.prepare(folded, torch.float32)(batch.to(memory_format=torch.channels_last))
        assert (result - folded(batch)).abs().max() < 1e-4


@pytest.mark.parametrize("shapes", [2, pytest.param(9, marks=pytest.mark.slow)])  # torch's own limit is 8
def test_the_compiled_network_never_silently_runs_operation_by_operation(
    shapes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.inference.backends import compiled

    torch._dynamo.reset()  # what other tests have traced of the same code counts against the limit
    # torch's own tracing and limits, without a compiler after them.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compile_(module, backend="eager", dynamic=False))
    monkeypatch.setattr(compiled, "_SHAPES", shapes)
    network = compiled.prepare(small_mesrgan().fold(), torch.float32)
    with torch.inference_mode():
        for side in range(4, 4 + shapes):
            assert network(torch.zeros(1, 3, side, 8)).shape == (1, 3, 4 * side, 32)
        with pytest.raises(FailOnRecompileLimitHit):
            network(torch.zeros(1, 3, 4 + shapes, 8))


def test_results_stay_when_the_network_runs_again() -> None:
    network = backends.prepare(small_mesrgan().fold(), torch.float32, "openvino")
    first = network(torch.zeros(1, 3, 16, 16))
    kept = first.clone()
    network(torch.ones(1, 3, 16, 16))
    assert torch.equal(first, kept)


def _batches(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return [torch.rand(1, 3, 12, 16, generator=random) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_a_stream_gives_what_single_batches_give_in_their_order(backend: str, dtype: torch.dtype) -> None:
    network = backends.prepare(small_mesrgan().fold(), dtype, backend)
    batches = _batches(4 * 8 + 3)
    with torch.inference_mode():
        results = list(network.stream(iter(batches), len(batches)))
        assert len(results) == len(batches)
        for batch, result in zip(batches, results, strict=True):
            if backend == "eager":
                assert torch.equal(result, network(batch))
            else:  # compiled for the stream's shape, or for any
                assert (result - network(batch)).abs().max() < (1e-5 if dtype == torch.float32 else LEVEL)


# Convolutions on blocks of channels; those that this network has none of; and what no processor has a fast form of.
@pytest.mark.parametrize("wish", [None, "cpu:jit_avx512_1x1", "cpu:ref_any"])
def test_a_stream_is_never_computed_by_a_reference_implementation(
    wish: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.inference.backends import openvino

    monkeypatch.setattr(openvino, "_BLOCKED", wish or openvino._BLOCKED)
    network = openvino.prepare(with_biases(create(MesrganConfig(blocks=1))).fold(), torch.float32, 2)
    batches = _batches(40)
    results = list(network.stream(iter(batches), len(batches)))
    assert max(float((a - network(b)).abs().max()) for a, b in zip(results, batches, strict=True)) < 1e-5
    kinds = openvino.convolutions(network.compiled_for(batches[0].shape))
    assert kinds
    assert not any(kind.startswith("ref") for kind in kinds)
    if wish is None and torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert kinds == {"jit_avx512_1x1_f32", "jit_avx512_dw_f32", "jit_avx512_f32"}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch, and what follows it, use two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_several_batches_are_on_their_way_at_once_but_only_one_more_than_lanes() -> None:
    network = backends.prepare(small_mesrgan().fold(), torch.float32, "openvino")
    asked = 0

    def batches() -> Iterator[torch.Tensor]:
        nonlocal asked
        for batch in _batches(40):
            asked += 1
            yield batch

    ahead = [asked - done for done, _ in enumerate(network.stream(batches(), 40))]
    assert max(ahead) == backends.get("openvino").lanes(2) + 2  # with the one just given
    assert list(network.stream(iter(_batches(2)), 2))[1].shape == (1, 3, 48, 64)


def test_a_stream_may_be_left_and_may_fail_in_the_middle() -> None:
    network = backends.prepare(small_mesrgan().fold(), torch.float32, "openvino")
    expected = network(_batches(1)[0])
    threads = torch.get_num_threads()

    def failing() -> Iterator[torch.Tensor]:
        yield from _batches(20)
        raise MemoryError

    with pytest.raises(MemoryError):
        list(network.stream(failing(), 40))
    assert torch.get_num_threads() == threads
    left = iter(network.stream(iter(_batches(40)), 40))
    next(left)
    del left
    assert torch.get_num_threads() == threads
    result = next(iter(network.stream(iter(_batches(40)), 40)))
    assert (result - expected).abs().max() < 1e-5


@pytest.mark.parametrize("backend", ["eager", "openvino"])
@pytest.mark.parametrize("name", ["srgan", "esrgan", "mesrgan"])
def test_bf16_keeps_the_picture_that_detail_is_added_to(name: str, backend: str) -> None:
    model = create(PRESETS[name])
    model.reset_parameters(torch.Generator().manual_seed(0))
    folded = model.eval().fold()
    batch = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        error = (backends.prepare(folded, torch.bfloat16, backend)(batch) - folded(batch)).abs()
    # Random weights exaggerate: a trained network's own contribution is smaller.
    assert error.mean() < 2 * LEVEL
    if name == "mesrgan":
        assert error.max() < 0.5 * LEVEL


def test_auto_is_openvino_where_it_is_installed_and_has_the_precision() -> None:
    network = small_mesrgan()
    expected = "eager" if find_spec("openvino") is None else "openvino"
    assert backends.choose("auto", "cpu", "fp32", network) == expected
    assert backends.choose("auto", "cpu", "bf16", network) == expected
    assert backends.choose("auto", "cpu", "fp16", network) == "eager"
    assert backends.choose("auto", "cuda", "fp16", network) == "eager"


def test_auto_is_not_openvino_where_so_few_pixels_come_that_a_conversion_does_not_repay() -> None:
    network = small_mesrgan()
    assert backends.choose("auto", "cpu", "fp32", network, backends.REPAYS_AFTER - 1) == "eager"
    assert backends.choose("auto", "cpu", "fp32", network, backends.REPAYS_AFTER) == "openvino"


def test_errors_name_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_mesrgan()
    with pytest.raises(UsageError, match="unknown backend 'tensorrt'; use auto, eager"):
        backends.choose("tensorrt", "cpu", "fp32", network)
    with pytest.raises(UsageError, match="does not run on cpu; use eager"):
        backends.choose("graph", "cpu", "fp32", network)
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'srup\[openvino\]'"):
        backends.choose("openvino", "cpu", "fp32", network)
    with pytest.raises(UsageError, match="Triton"):
        backends.choose("compiled", "cuda", "fp32", network)
    assert backends.choose("auto", "cpu", "fp32", network) == "eager"


def test_precision_that_a_backend_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="openvino does not compute in fp16"):
        backends.choose("openvino", "cpu", "fp16", small_mesrgan())


def test_networks_that_a_backend_has_nothing_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: name)
    assert backends.choose("fused", "cuda", "fp16", small_mesrgan()) == "fused"
    with pytest.raises(UsageError, match="fused has nothing for"):
        backends.choose("fused", "cuda", "fp16", create(PRESETS["esrgan"]))


def test_every_backend_declares_what_it_is() -> None:
    for name, backend in backends.BACKENDS.items():
        assert backend.name == name and backend.summary and backend.devices and backend.precisions
        assert "sr_cli" not in backend.summary
        unknown = backend.missing("toaster")
        assert unknown is not None and name in unknown


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_four_threads_share_one_upscaler_and_get_the_same_bytes(backend: str) -> None:
    # Tiles enough for OpenVINO's faster form, and pictures of several sizes.
    pictures = [
        np.random.default_rng(side).integers(0, 256, (side, 2 * side, 3)).astype(np.uint8) for side in (24, 40, 64)
    ]
    upscaler = inference.Upscaler(loaded(small_mesrgan()), device="cpu", backend=backend, tile=16, overlap=4)
    expected = [upscaler.upscale(picture).pixels for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: upscaler.upscale(pictures[index % 3]).pixels, range(12)))
    for index, result in enumerate(results):
        assert np.array_equal(result, expected[index % 3])


def free_a_network_and_take_a_signal() -> None:
    """Let another thread free a network of OpenVINO; then handle a signal, and end."""
    networks = [backends.prepare(small_mesrgan().fold(), torch.float32, "openvino")]
    networks[0](torch.rand(1, 3, 16, 16))
    other = threading.Thread(target=networks.clear)
    other.start()
    other.join()
    signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
    signal.raise_signal(signal.SIGUSR1)
    os._exit(0)


@pytest.mark.needs("posix")
def test_a_signal_after_another_thread_freed_the_openvino_network() -> None:
    """The plugin's stack for signal handlers stays mapped (the handlers of Python run on it)."""
    with Forked(prepare=free_a_network_and_take_a_signal) as process:
        assert process.stdout.read() == "handled\n"
        assert process.wait() == 0, process.stderr()
