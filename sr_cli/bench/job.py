"""The benchmark job: forward passes of several models, precisions and backends, timed side by side.

What is timed is Table 1 of Eriksson and Löf, "Lightweight Super-Resolution": one forward pass for a batch of
128x128 inputs. All cells of a batch size take turns, so that a machine that warms up or gets busy slows all
of them alike; a cell whose times scatter is marked as disturbed.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sr_cli import __version__, inference
from sr_cli.bench.options import BenchOptions
from sr_cli.errors import UsageError, WeightsError
from sr_cli.inference import backends, memory

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator
    from sr_cli.weights import LoadedModel

POSTER_MS = {
    "srgan": {1: 26, 2: 50, 4: 134, 8: 279, 16: 561},
    "esrgan": {1: 33, 2: 62, 4: 126, 8: 266, 16: 534},
    "mesrgan": {1: 155, 2: 299, 4: 596, 8: 1204, 16: 2402},
}
"""Table 1 of the poster: milliseconds by batch size. Its MESRGAN is our `mesrgan-poster`."""

_GPU_RUNS = 100
_SETTLE = 0.03
"""Seconds before each run on a CPU: a run-time's threads go on spinning after a result, and would take their time from
whoever is next (20 to 40 ms of 190, with ONNX Runtime before torch)."""
_FEWEST_RUNS = 3
_WARM_UP = 2
_DISTURBED = 0.2
"""A cell is disturbed if the middle 80 % of its times spread over more than this part of their median."""


@dataclass(frozen=True)
class Cell:
    """The times of one model in one column at one batch size."""

    model: str
    """As it was asked for."""
    batch: int
    """Inputs per forward pass."""
    precision: str
    """`fp32`, `fp16` or `bf16`."""
    backend: str
    """See `backends.NAMES`."""
    median_ms: float
    """Median time of a forward pass."""
    mean_ms: float
    """Mean time, what the poster reports."""
    low_ms: float
    """10th percentile."""
    high_ms: float
    """90th percentile."""
    runs: int
    """Forward passes that were timed."""
    disturbed: bool
    """The times scatter: something else used the machine."""
    levels: float
    """Largest difference from plain torch in fp32 anywhere in the output, in levels of 1/255."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model costs, whatever the machine."""

    model: str
    """As it was asked for."""
    weights: str
    """`name:stage`, a path, or `random`."""
    parameters: int
    """Values that were learnt."""
    multiplications: int
    """Per low-resolution pixel."""
    peak_bytes: int | None
    """Memory of one forward pass of one input, plain torch in the first precision; None: the system does not tell."""


@dataclass(frozen=True)
class PhotoCell:
    """One picture through the engine, with its tiles, conversions and copies."""

    model: str
    """As it was asked for."""
    precision: str
    """`fp32`, `fp16` or `bf16`."""
    backend: str
    """See `backends.NAMES`."""
    megapixels_per_second: float
    """Output pixels."""
    not_network: float
    """Part of the time that was not spent in the network."""
    overlap: float
    """Part of the network's work that was spent on what tiles see beyond their cores."""
    disturbed: bool
    """The times scatter."""


@dataclass(frozen=True)
class BenchResult:
    """All that was measured, and on what."""

    device: str
    """`cpu`, `cuda:0`, ..."""
    machine: dict[str, Any]
    """Processor or accelerator, threads, versions."""
    size: int
    """Side of the inputs."""
    results: list[Cell] = field(default_factory=list)
    """Forward passes."""
    models: list[ModelFacts] = field(default_factory=list)
    """Costs of the models."""
    photos: list[PhotoCell] = field(default_factory=list)
    """Whole pictures."""

    def cell(self, model: str, batch: int, precision: str, backend: str) -> Cell | None:
        """One cell, or None where a backend could not run a model."""
        wanted = (model, batch, precision, backend)
        return next((c for c in self.results if (c.model, c.batch, c.precision, c.backend) == wanted), None)

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Precision and backend of each column, in the order in which they were timed."""
        return list(dict.fromkeys((c.precision, c.backend) for c in self.results))

    @property
    def batches(self) -> list[int]:
        """The batch sizes."""
        return list(dict.fromkeys(c.batch for c in self.results))


@dataclass(frozen=True)
class BenchEvent:
    """Progress: `note` says something worth showing, `progress` moves the bar."""

    kind: Literal["progress", "note"]
    """What the event is."""
    text: str
    """What is being done."""
    done: float = 0.0
    """Parts done (`progress`)."""
    total: float = 1.0
    """Parts in all (`progress`)."""


Report = Callable[[BenchEvent], None]


def run(options: BenchOptions, report: Report) -> BenchResult:
    """Times everything the options ask for.

    Raises UsageError for a device, precision or backend that is not there, WeightsError for an unknown model.
    """
    device = inference.choose_device(options.device)
    if device.type == "cpu":
        memory.keep_freed_memory()
    columns = _columns(options, device)
    batches = options.batches or ((1, 2) if device.type == "cpu" else (1, 2, 4, 8, 16))
    loaded = {name: _load(name) for name in options.models}
    for name, model in loaded.items():
        if not model.sha256:
            report(BenchEvent("note", f"{name} has no weights yet: timed with random ones"))
    result = BenchResult(str(device), machine(device), options.size)
    result.models.extend(_facts(name, model, options.size, device) for name, model in loaded.items())
    networks = _networks(loaded, columns, device, report)
    levels: dict[_Key, float] = {}
    side = options.photo if options.photo is not None else 256 if device.type == "cpu" else 2048
    parts = len(batches) + bool(side)
    for index, batch in enumerate(batches):

        def progress(done: float, index: int = index, batch: int = batch) -> None:
            report(BenchEvent("progress", f"batch {batch}", index + done, parts))

        source = _inputs(batch, options.size, device)
        if not levels:
            levels = {key: _levels(loaded[key[0]], network, source) for key, network in networks.items()}
        times = _time_batch(networks, source, options, progress)
        result.results.extend(_cell(key, batch, times[key], levels[key]) for key in networks)
    # The first column for comparison, and what `srup upscale` uses.
    usual = (inference.precision_name(inference.choose_precision("auto", device)), _usual_backend(device))
    cells = [(name, *column) for name in loaded for column in columns if column in (columns[0], usual)] if side else []
    for done, (name, precision, backend) in enumerate(cells):
        report(BenchEvent("progress", f"photo, {name}", len(batches) + done / len(cells), parts))
        result.photos.append(_time_photo(loaded[name], name, precision, backend, side, device))
    return result


def _usual_backend(device: torch.device) -> str:
    return backends.choose("auto", device, inference.choose_precision("auto", device))


def _columns(options: BenchOptions, device: torch.device) -> list[tuple[str, str]]:
    """Precision and backend of each column."""
    asked = bool(options.backends or options.precisions)
    names = [backends.choose(name, device, inference.choose_precision("fp32", device)) for name in options.backends]
    if not names:
        names = [name for name in backends.usable(device) if name != "compiled" or device.type != "cpu"]
    precisions = options.precisions or (("fp32",) if options.backends and device.type == "cpu" else _precisions(device))
    pairs = [(p, b) for p in precisions for b in names]
    possible = [(p, b) for p, b in pairs if backends.computes_in(b, inference.choose_precision(p, device))]
    if not possible:
        raise UsageError(f"no backend of {', '.join(names)} computes in {', '.join(precisions)}")
    if not asked and device.type == "cuda":
        # fp32 and bf16 for comparison in plain torch; what is fast in fp16 is fast in bf16 as well.
        possible = [(p, b) for p, b in possible if p == "fp16" or b == "eager"]
    return possible


def _precisions(device: torch.device) -> tuple[str, ...]:
    """The precisions that a device computes fast."""
    if device.type == "cuda":
        return ("fp32", "fp16", "bf16")
    if device.type == "mps":
        return ("fp32", "fp16")
    return ("fp32", "bf16") if has_bf16_instructions() else ("fp32",)


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bf16 numbers itself (Intel since Cooper Lake, AMD since Zen 4)."""
    try:
        return any(
            line.startswith("flags") and ("avx512_bf16" in line or "amx_bf16" in line)
            for line in Path("/proc/cpuinfo").read_text().splitlines()
        )
    except OSError:
        return False


def _load(name: str) -> LoadedModel:
    """A model with its weights; a preset that has none yet with random ones. Raises WeightsError."""
    import torch

    from sr_cli import models, weights

    try:
        return weights.load(name, offline=True)
    except WeightsError:
        if name not in models.PRESETS:
            raise
    generator = models.create(models.PRESETS[name])
    generator.reset_parameters(torch.Generator().manual_seed(0))
    return weights.LoadedModel(name, None, generator.eval(), None, "", Path(name), None)


def _facts(name: str, model: LoadedModel, size: int, device: torch.device) -> ModelFacts:
    import torch

    from sr_cli.models import count_multiplications, count_parameters

    folded = model.generator.fold().to(device)
    batch = torch.rand(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            folded(batch)

    peak: int | None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward()
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        peak = memory.peak_during(forward) if device.type == "cpu" else None
    source = "random" if not model.sha256 else f"{model.name}:{model.stage}" if model.stage else str(model.path)
    generator = model.generator
    return ModelFacts(name, source, count_parameters(generator), count_multiplications(generator), peak)


_Key = tuple[str, str, str]


def _networks(
    loaded: dict[str, LoadedModel], columns: list[tuple[str, str]], device: torch.device, report: Report
) -> dict[_Key, backends.Network]:
    """A network for each model in each column that can run it."""
    networks: dict[_Key, backends.Network] = {}
    for name, model in loaded.items():
        folded: Generator = model.generator.fold().to(device)
        for precision, backend in columns:
            report(BenchEvent("progress", f"preparing {name}, {precision}, {backend}", 0.0))
            networks[name, precision, backend] = backends.prepare(
                folded, inference.choose_precision(precision, device), backend
            )
    return networks


def _inputs(batch: int, size: int, device: torch.device) -> torch.Tensor:
    """Noise of several scales, as photographs have; white noise would exaggerate what precision costs."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    inputs = torch.zeros(batch, 3, size, size)
    for scale in (1, 4, 16, 64):
        noise = torch.rand(batch, 3, -(-size // scale), -(-size // scale), generator=generator)
        inputs += (0.1 if scale == 1 else 0.3) * F.interpolate(noise, (size, size), mode="bilinear")
    return inputs.to(device).contiguous(memory_format=torch.channels_last)


def _levels(model: LoadedModel, network: backends.Network, source: torch.Tensor) -> float:
    """How far a network is from the model it was prepared from."""
    import torch

    with torch.inference_mode():
        expected = model.generator.fold().to(source.device)(source)
        return 255 * float((network(source) - expected).abs().max())


def _time_batch(
    networks: dict[_Key, backends.Network],
    source: torch.Tensor,
    options: BenchOptions,
    progress: Callable[[float], None],
) -> dict[_Key, list[float]]:
    """Seconds of each run: all networks in turn, until each has had its runs."""
    import torch

    device = source.device

    def once(key: _Key) -> float:
        if device.type == "cpu":
            time.sleep(_SETTLE)
        started = _now(device)
        with torch.inference_mode():
            networks[key](source)
        return _now(device) - started

    wanted: dict[_Key, int] = {}
    for done, key in enumerate(networks):
        progress(0.2 * done / len(networks))
        seconds = min(once(key) for _ in range(_WARM_UP))
        wanted[key] = options.runs or _runs(seconds, options.seconds, device)
    times: dict[_Key, list[float]] = {key: [] for key in networks}
    total = sum(wanted.values())
    for done in range(total):
        progress(0.2 + 0.8 * done / total)
        # Whoever is furthest behind is next: that spreads the runs of all cells evenly over the whole time.
        behind = min(networks, key=lambda key: len(times[key]) / wanted[key])
        times[behind].append(once(behind))
    return times


def _runs(seconds: float, budget: float, device: torch.device) -> int:
    if device.type != "cpu":
        return _GPU_RUNS
    return max(_FEWEST_RUNS, min(_GPU_RUNS, int(budget / seconds)))


def _cell(key: _Key, batch: int, seconds: Sequence[float], levels: float) -> Cell:
    times = [1000 * s for s in seconds]
    low, median, high = (float(value) for value in np.percentile(times, [10, 50, 90]))
    name, precision, backend = key
    return Cell(
        name,
        batch,
        precision,
        backend,
        median_ms=median,
        mean_ms=statistics.fmean(times),
        low_ms=low,
        high_ms=high,
        runs=len(times),
        disturbed=_scatter(times),
        levels=levels,
    )


def _scatter(times: Sequence[float]) -> bool:
    low, median, high = np.percentile(times, [10, 50, 90])
    return bool(high - low > _DISTURBED * median)


def _now(device: torch.device) -> float:
    """The time in seconds, once the device has done all that it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class Clocked:
    """A network with a clock around it; `seconds` is the time in which its caller had nothing to do but to wait."""

    def __init__(self, network: backends.Network, device: torch.device) -> None:
        self._network, self._device = network, device
        self.lanes = backends.lanes(network)
        self.seconds = 0.0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        started = _now(self._device)
        result = self._network(batch)
        self.seconds += _now(self._device) - started
        return result

    def stream(self, batches: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
        """See `backends.stream`; what the caller does for the next batch does not count as waiting."""

        def uncounted() -> Iterator[torch.Tensor]:
            started = _now(self._device)
            for batch in batches:
                self.seconds -= _now(self._device) - started
                yield batch
                started = _now(self._device)

        results = backends.stream(self._network, uncounted(), count)
        while True:
            started = _now(self._device)
            result = next(results, None)
            self.seconds += _now(self._device) - started
            if result is None:
                return
            yield result


def _time_photo(
    model: LoadedModel, name: str, precision: str, backend: str, side: int, device: torch.device
) -> PhotoCell:
    """A picture through the engine, with a clock around its network."""
    upscaler = inference.Upscaler(model, device=str(device), precision=precision, backend=backend)
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    assert upscaler.network is not None
    upscaler.network = clocked = Clocked(upscaler.network, device)
    upscaler.upscale(picture)
    seconds, shares = [], []
    for _ in range(_FEWEST_RUNS):
        clocked.seconds = 0.0
        started = _now(device)
        upscaler.upscale(picture)
        seconds.append(_now(device) - started)
        shares.append(1 - clocked.seconds / seconds[-1])
    plan = upscaler.plan(side, side)
    core = plan.tiles[0].height * plan.tiles[0].width
    return PhotoCell(
        name,
        precision,
        backend,
        megapixels_per_second=(side * upscaler.scale) ** 2 / 1e6 / statistics.median(seconds),
        not_network=statistics.median(shares),
        overlap=1 - core / (plan.window[0] * plan.window[1]),
        disturbed=_scatter(seconds),
    )


def machine(device: torch.device) -> dict[str, Any]:
    """What a time depends on besides the program: processor or accelerator, threads, versions."""
    import torch

    facts: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "srup": __version__,
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    for name in ("openvino", "onnxruntime", "triton"):
        if find_spec(name):
            facts[name] = version(name)
    return facts


def processor() -> str:
    """What the CPU calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
