"""Times forward passes of all networks in turns, and whole images.

What is timed is Table 1 of Eriksson and Löf, "Lightweight Super-Resolution": one forward pass for a batch of
128x128 inputs. All cells of a batch size take turns, so that a machine that warms up or gets busy slows all
of them alike; a cell whose times scatter is marked as disturbed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sr_cli.bench.machine import machine
from sr_cli.bench.options import BenchOptions
from sr_cli.bench.results import BenchEvent, BenchResult, Cell, ModelFacts, OnEvent, PhotoCell
from sr_cli.bench.timing import FEWEST_RUNS, Clock, Times, is_disturbed, now, runs_for, time_in_turns
from sr_cli.errors import UsageError, WeightsError
from sr_cli.inference import (
    InferenceOptions,
    Upscaler,
    backends,
    choose_device,
    choose_setup,
    dtype_of,
    memory,
    this_processor,
)

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator
    from sr_cli.weights import LoadedModel


class Column(NamedTuple):
    """How networks are run."""

    precision: str
    backend: str


class Key(NamedTuple):
    """One network: a model in a column."""

    model: str
    precision: str
    backend: str


@dataclass(frozen=True)
class _Plan:
    """What the options mean on this machine."""

    options: BenchOptions
    device: torch.device
    columns: tuple[Column, ...]
    batches: tuple[int, ...]
    side: int  #: Of the image that goes through whole; 0: none.

    @property
    def parts(self) -> int:
        """Parts of the work, for progress."""
        return len(self.batches) + bool(self.side)


def run(options: BenchOptions, report: OnEvent) -> BenchResult:
    """Time everything the options ask for.

    Raises UsageError for a device, precision or backend that is not there, WeightsError for an unknown model.
    """
    plan = _plan(options)
    device = plan.device
    if device.type == "cpu":
        memory.keep_freed_memory()
    loaded = {name: load_or_draw(name) for name in options.models}
    for name, model in loaded.items():
        if not model.sha256:
            report(BenchEvent("note", f"{name} has no weights yet: timed with random ones"))
    result = BenchResult(str(device), machine(device), options.size)
    result.models.extend(_facts(name, model, options.size, device) for name, model in loaded.items())
    networks = _networks(loaded, plan, report)
    levels = _levels(loaded, networks, test_inputs(plan.batches[0], options.size), device)
    for index, batch in enumerate(plan.batches):

        def progress(done: float, index: int = index, batch: int = batch) -> None:
            report(BenchEvent("progress", f"batch {batch}", index + done, plan.parts))

        source = _on_device(test_inputs(batch, options.size), device)
        times = time_in_turns(
            networks, source, lambda seconds: options.runs or runs_for(seconds, options.seconds, device), progress
        )
        result.results.extend(cell(key, batch, times[key], levels[key]) for key in networks)
    result.photos.extend(_photos(loaded, networks, plan, report))
    return result


def _plan(options: BenchOptions) -> _Plan:
    device = choose_device(options.device)
    cpu = device.type == "cpu"
    batches = options.batches or ((1, 2) if cpu else (1, 2, 4, 8, 16))
    side = options.photo if options.photo is not None else 256 if cpu else 2048
    return _Plan(options, device, _columns(options, device.type), batches, side)


def _columns(options: BenchOptions, device: str) -> tuple[Column, ...]:
    asked = [backends.preferred(device, "fp32") if name == "auto" else name for name in options.backends]
    for name in asked:
        if (reason := backends.get(name).missing(device)) is not None:
            raise UsageError(reason)
    names = asked or [name for name in backends.usable(device) if device != "cpu" or not backends.get(name).slow_start]
    precisions = options.precisions or (("fp32",) if options.backends and device == "cpu" else _precisions(device))
    columns = [Column(p, b) for p in precisions for b in names if p in backends.get(b).precisions]
    if not columns:
        raise UsageError(f"no backend of {', '.join(names)} computes in {', '.join(precisions)}")
    if not (options.backends or options.precisions) and device == "cuda":
        # fp32 and bf16 for comparison in plain torch; what is fast in fp16 is fast in bf16 as well.
        columns = [column for column in columns if column.precision == "fp16" or column.backend == "eager"]
    return tuple(columns)


def _precisions(device: str) -> tuple[str, ...]:
    """Return the precisions that a type of device computes fast."""
    if device == "cuda":
        return ("fp32", "fp16", "bf16")
    if device == "mps":
        return ("fp32", "fp16")
    return ("fp32", "bf16") if this_processor().has_fast_bf16 else ("fp32",)


def load_or_draw(name: str) -> LoadedModel:
    """Load a model; a preset that has no weights yet gets seeded random ones. Raises WeightsError."""
    from sr_cli import models, weights

    try:
        return weights.load(name, offline=True)
    except WeightsError:
        if name not in models.PRESETS:
            raise
    return weights.draw(name)


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


def _networks(loaded: Mapping[str, LoadedModel], plan: _Plan, report: OnEvent) -> dict[Key, backends.Network]:
    """Prepare a network for each model in each column whose backend has something for it."""
    networks: dict[Key, backends.Network] = {}
    for name, model in loaded.items():
        folded: Generator = model.generator.fold().to(plan.device)
        for precision, backend in plan.columns:
            if not backends.get(backend).accepts(folded):
                continue
            report(BenchEvent("progress", f"preparing {name}, {precision}, {backend}", 0.0))
            networks[Key(name, precision, backend)] = backends.prepare(folded, dtype_of(precision), backend)
    return networks


def test_inputs(batch: int, size: int) -> torch.Tensor:
    """Return noise of several scales, as photos have, (batch, 3, size, size).

    White noise would exaggerate what precision costs.
    """
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    inputs = torch.zeros(batch, 3, size, size)
    for scale in (1, 4, 16, 64):
        noise = torch.rand(batch, 3, -(-size // scale), -(-size // scale), generator=generator)
        inputs += (0.1 if scale == 1 else 0.3) * F.interpolate(noise, (size, size), mode="bilinear")
    return inputs


def _on_device(inputs: torch.Tensor, device: torch.device) -> torch.Tensor:
    import torch

    return inputs.to(device).contiguous(memory_format=torch.channels_last)


def _levels(
    loaded: Mapping[str, LoadedModel],
    networks: Mapping[Key, backends.Network],
    inputs: torch.Tensor,
    device: torch.device,
) -> dict[Key, float]:
    """Measure how far each network is, at most, from its model in plain torch in fp32 on the CPU, in levels of 255."""
    import torch

    source = _on_device(inputs, device)
    with torch.inference_mode():
        expected = {name: model.generator.fold()(inputs) for name, model in loaded.items()}
        return {
            key: 255 * float((network(source).cpu() - expected[key.model]).abs().max())
            for key, network in networks.items()
        }


def cell(key: Key, batch: int, times: Times, levels: float) -> Cell:
    """Summarise the times of one network."""
    milliseconds = [1000 * seconds for seconds in times.latency]
    low, median, high = (float(value) for value in np.percentile(milliseconds, [10, 50, 90]))
    return Cell(
        *key,
        disturbed=is_disturbed(milliseconds),
        batch=batch,
        median_ms=median,
        mean_ms=statistics.fmean(milliseconds),
        low_ms=low,
        high_ms=high,
        runs=len(milliseconds),
        levels=levels,
        device_ms=1000 * statistics.median(times.device) if times.device else None,
    )


def _photos(
    loaded: Mapping[str, LoadedModel], networks: Mapping[Key, backends.Network], plan: _Plan, report: OnEvent
) -> list[PhotoCell]:
    """Time a whole image by each model: in the first column, for comparison, and as `srup upscale FOLDER` would."""
    if not plan.side:
        return []
    keys = []
    for name, model in loaded.items():
        usual = choose_setup(InferenceOptions(device=str(plan.device)), model)
        columns = dict.fromkeys((plan.columns[0], Column(usual.precision, usual.backend)))
        keys += [Key(name, *column) for column in columns if Key(name, *column) in networks]
    photos = []
    for done, key in enumerate(keys):
        report(BenchEvent("progress", f"photo, {key.model}", len(plan.batches) + done / len(keys), plan.parts))
        photos.append(_time_photo(loaded[key.model], key, plan.side, plan.device))
    return photos


def _time_photo(model: LoadedModel, key: Key, side: int, device: torch.device) -> PhotoCell:
    """Time an image through an `Upscaler`, with a clock around its network."""
    clock = Clock(device)
    upscaler = Upscaler(
        model, wrap_network=clock.around, device=str(device), precision=key.precision, backend=key.backend
    )
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    upscaler.upscale(picture)
    seconds, shares = [], []
    for _ in range(FEWEST_RUNS):
        clock.seconds = 0.0
        started = now(device)
        upscaler.upscale(picture)
        seconds.append(now(device) - started)
        shares.append(1 - clock.seconds / seconds[-1])
    plan = upscaler.plan(side, side)
    core = plan.tiles[0].height * plan.tiles[0].width
    return PhotoCell(
        *key,
        megapixels_per_second=(side * upscaler.scale) ** 2 / 1e6 / statistics.median(seconds),
        not_network=statistics.median(shares),
        overlap=1 - core / (plan.window[0] * plan.window[1]),
        disturbed=is_disturbed(seconds),
    )
