"""What the host does for a GPU, as far as a machine without one can show it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_inference import around, loaded
from torch._subclasses.fake_tensor import FakeTensorMode

from sr_cli.inference import Setup, backends, memory, setup
from sr_cli.inference.backends import FunctionNetwork, Network
from sr_cli.inference.backends.graph import MAX_SHAPES, GraphNetwork
from sr_cli.inference.backends.precision import full_fp32
from sr_cli.inference.pixels import Windows
from sr_cli.inference.tiled import TiledNetwork, finished, one_behind
from sr_cli.inference.tiling import plan
from sr_cli.models import PRESETS, create

GPU = torch.device("cuda:0")
GIB = 2**30


def picture(height: int, width: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels)).astype(dtype)


# 2^31


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("overlap", [6, 24, 64])
@pytest.mark.parametrize("wish", ["auto", 512, 2000])
def test_a_batch_has_fewer_values_than_a_kernel_counts(
    name: str, overlap: int, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda device: (75 * GIB, 80 * GIB))
    values = create(PRESETS[name]).peak_values_per_pixel
    tile, batch = setup.choose_tiles(wish, overlap, GPU, 2 * values, values)
    if wish != 2000:  # what is larger than a kernel can count is cut when the picture is known
        assert batch * (tile + 2 * overlap) ** 2 * values < 2**31
        assert tile == 512 and batch >= 1
    else:
        assert (tile, batch) == (2000, 1)


@pytest.mark.parametrize("name", ["srgan", "esrgan", "mesrgan"])
@pytest.mark.parametrize("size", [(3000, 4000), (100, 40_000), (700, 700)])
def test_a_whole_picture_in_one_pass_is_cut_where_it_is_too_large_for_a_gpu(name: str, size: tuple[int, int]) -> None:
    # `meta` is a device without memory: all that is not a CPU counts as a GPU here.
    network = TiledNetwork(loaded(name), Setup("meta", "fp32", "eager", tile=0, overlap=12))
    values = loaded(name).generator.peak_values_per_pixel
    cut = network.plan(*size)
    whole = size[0] * size[1] * values < 2**31
    assert cut.window[0] * cut.window[1] * values < 2**31
    assert (len(cut.tiles) == 1) == whole
    on_cpu = TiledNetwork(loaded(name), Setup("cpu", "fp32", "eager", tile=0, overlap=12))
    assert len(on_cpu.plan(*size).tiles) == 1


def test_an_overlap_that_is_rounded_up_to_the_alignment_does_not_go_beyond_it() -> None:
    model = loaded("srgan")
    model.generator.alignment = 8
    network = TiledNetwork(model, Setup("meta", "fp32", "eager", tile=0, overlap=25))
    values = model.generator.peak_values_per_pixel
    # Among so many squares are some whose windows are as large as a kernel can count.
    for side in range(1000, 6000, 8):
        rows, columns = network.plan(side, side).window
        assert rows * columns * values < 2**31


def test_little_memory_makes_small_batches_and_then_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for free in (70, 8, 2, 0.2):
        monkeypatch.setattr(memory, "device_bytes", lambda device, free=free: (int(free * GIB), 80 * GIB))
        found.append(setup.choose_tiles("auto", 12, GPU, 1000, 500))
    sizes = [(tile * tile * batch) for tile, batch in found]
    assert found[0] == (512, 8) and sizes == sorted(sizes, reverse=True) and found[3][0] < 512


# Memory


def test_what_torch_has_reserved_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("mem_get_info", (3, 80)), ("memory_reserved", 50), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.device_bytes(GPU) == (3 + 50 - 20, 80)


# TF32


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 on, as torch has it for convolutions by default."""
    before = switches()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def switches() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("tf32")
def test_tf32_is_off_inside_and_as_before_outside() -> None:
    with full_fp32():
        assert switches() == (False, False)
        with full_fp32():
            pass
        assert switches() == (False, False)
    assert switches() == (True, True)


@pytest.mark.usefixtures("tf32")
def test_tf32_stays_off_until_the_last_thread_is_done() -> None:
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with full_fp32():
            inside.set()
            go.wait(60)

    thread = threading.Thread(target=other)
    with full_fp32():
        thread.start()
        assert inside.wait(60)
    assert switches() == (False, False)
    go.set()
    thread.join()
    assert switches() == (True, True)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_networks_in_fp32_on_a_gpu_compute_without_tf32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = FunctionNetwork(lambda batch: (seen.append(switches()), batch)[1])
    monkeypatch.setattr(type(backends.get("eager")), "prepare", lambda *_arguments: forward)
    on_gpu: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=GPU)]))
    backends.prepare(on_gpu, dtype)(torch.zeros(1))
    assert seen == [(dtype != torch.float32, dtype != torch.float32)]


def test_the_switches_are_put_back_after_an_error() -> None:
    before = switches()
    with pytest.raises(RuntimeError), full_fp32():
        raise RuntimeError
    assert switches() == before


# CUDA graphs, with the recording replaced by a plain call


class FakeGraph:
    """Runs what was recorded."""

    live = 0

    def __init__(self) -> None:
        self.run: Any = None

    def replay(self) -> None:
        self.run()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """torch.cuda without a GPU; what it was asked for."""
    asked: dict[str, list[Any]] = {"pools": [], "devices": [], "handles": []}

    @contextlib.contextmanager
    def graph(recorded: FakeGraph, pool: Any = None) -> Iterator[None]:
        asked["pools"].append(pool)
        yield

    def device(which: Any) -> contextlib.AbstractContextManager[None]:
        asked["devices"].append(which)
        return contextlib.nullcontext()

    def handle() -> int:
        asked["handles"].append(object())
        return len(asked["handles"])

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    for name, value in {
        "CUDAGraph": FakeGraph,
        "graph": graph,
        "device": device,
        "graph_pool_handle": handle,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return asked


def recording_network(monkeypatch: pytest.MonkeyPatch) -> GraphNetwork:
    """A graph network that triples; a replay computes what was recorded again from the same tensors."""
    record = GraphNetwork._record

    def recorded(self: GraphNetwork, batch: torch.Tensor) -> Any:
        recording = record(self, batch)
        recording.graph.run = lambda: recording.result.copy_(recording.source * 3)
        return recording

    monkeypatch.setattr(GraphNetwork, "_record", recorded)
    return GraphNetwork(lambda batch: batch * 3)


def test_graphs_share_one_pool_and_few_shapes_are_kept(
    cuda: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = recording_network(monkeypatch)
    batches = [torch.rand(1, 3, 4, 4 + index) for index in range(MAX_SHAPES + 1)]
    for batch in [*batches, batches[1], batches[-1]]:
        assert torch.equal(network(batch), batch * 3)
    assert cuda["pools"] == [1] * len(batches) and len(cuda["handles"]) == 1
    network(batches[0])  # the one that went
    assert len(cuda["pools"]) == len(batches) + 1
    assert set(cuda["devices"]) == {torch.device("cpu")}  # the tensors' own


def test_a_graphs_result_stays_when_it_runs_again(cuda: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    network = recording_network(monkeypatch)
    first = network(torch.ones(1, 3, 4, 4))
    network(torch.zeros(1, 3, 4, 4))
    assert torch.equal(first, torch.full((1, 3, 4, 4), 3.0))


def test_released_graphs_are_recorded_again_in_a_new_pool(
    cuda: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = recording_network(monkeypatch)
    network(torch.ones(1, 3, 4, 4))
    network.release()
    network(torch.ones(1, 3, 4, 4))
    assert cuda["pools"] == [1, 2]


# Host and GPU at the same time


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_between_two_batches_nothing_waits_for_the_gpu(dtype: type, channels: int) -> None:
    """In this mode torch only keeps account of shapes, and looking at a value is an error."""
    pixels = picture(40, 50, dtype, channels)
    cut = plan(40, 50, 32, 8)
    with FakeTensorMode(allow_non_fake_inputs=True):
        windows = [cut.window_of(tile) for tile in cut.tiles[:3]]
        source = Windows(pixels, GPU).batch(windows)
        assert source.shape == (3, 3, *cut.window) and source.device == GPU
        result = torch.empty(3, 3, 4 * cut.window[0], 4 * cut.window[1], device=GPU)
        cores = [tile.within(window) for tile, window in zip(cut.tiles, windows, strict=False)]
        samples = finished(result, source, cores, pixels.dtype, channels)
    core = cut.tiles[0]
    assert samples.shape == (3, 4 * core.height, 4 * core.width, channels) and samples.device == GPU
    assert samples.is_contiguous() and samples.dtype == (torch.uint8 if dtype is np.uint8 else torch.int16)


def test_an_item_is_given_once_the_next_has_been_made() -> None:
    made: list[int] = []
    given = []
    for item in one_behind(made.append(index) or index for index in range(4)):  # type: ignore[func-returns-value]
        given.append((item, len(made)))
    assert given == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_behind([])) == []


def enlarged(batch: int, ahead: bool, **options: Any) -> tuple[np.ndarray, list[str], Any]:
    """A picture of 3x3 tiles, and in which order batches were computed and rows were finished."""
    events: list[str] = []

    def forward(network: Network, source: torch.Tensor) -> torch.Tensor:
        events.append(f"compute {len(source)}")
        return network(source)

    where = Setup("cpu", options.pop("precision", "fp32"), "eager", tile=16, overlap=8, batch=batch)
    network = TiledNetwork(loaded(), where, wrap_network=options.pop("wrap_network", around(forward)))
    network.works_ahead = ahead
    pixels = picture(48, 48, np.uint16)
    out = np.empty((192, 192, 3), np.uint16)
    result = network.enlarge(pixels, out, None, lambda rows: events.append("rows"))
    return out, events, result


def test_batches_have_one_shape_and_the_next_is_begun_before_the_last_is_placed() -> None:
    alone, events, _ = enlarged(1, ahead=False)
    assert events == ["compute 1", "compute 1", "compute 1", "rows"] * 3
    pairs, events, _ = enlarged(2, ahead=True)
    assert events == ["compute 2"] * 3 + ["rows"] + ["compute 2"] * 2 + ["rows"] + ["compute 2", "rows"]
    assert np.abs(alone.astype(int) - pairs).max() <= 2  # of 65535


def test_a_result_that_is_not_finite_is_found_and_redone_when_it_is_placed() -> None:
    infinite = around(lambda network, batch: network(batch) * torch.inf)
    expected, _, _ = enlarged(2, ahead=True)
    redone, _, result = enlarged(2, ahead=True, precision="bf16", wrap_network=infinite)
    assert result.redone == 9
    assert np.array_equal(redone, expected)


def test_short_memory_halves_the_batch_before_the_tiles() -> None:
    sizes: list[tuple[int, int]] = []

    def grumbling(network: Network, batch: torch.Tensor) -> torch.Tensor:
        sizes.append((len(batch), batch.shape[-1]))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(batch)

    _, _, result = enlarged(3, ahead=True, wrap_network=around(grumbling))
    assert result.tile == 16 and sizes[0] == (3, 32) and sizes[1:] == [(1, 32)] * 9
