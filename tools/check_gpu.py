"""Checks every way to run the networks on a device against fp32 on the CPU, and shows times next to the roofline.

Usage: python tools/check_gpu.py [--device cuda] [--short] [--backend NAME ...] [--json FILE]

The first thing to run on a GPU: about four minutes. Every model in every precision by every backend, recorded graphs
against the same operations one by one, whole images (RGB, grey, 16 bits, float) in tiles, and batches and images
around 2^31 values. Ends with 1 if anything is further from the reference than it may be. `--short` takes seconds, on a
CPU as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sr_cli import inference
from sr_cli.bench.job import load_or_draw, test_inputs
from sr_cli.bench.machine import machine
from sr_cli.bench.timing import now, time_in_turns
from sr_cli.inference import backends
from sr_cli.inference.setup import InferenceOptions, OptionValues, choose_setup, largest_window
from sr_cli.inference.tiled import TiledNetwork
from sr_cli.models import Generator, count_multiplications
from sr_cli.weights import LoadedModel

MODELS = ("srgan", "esrgan", "mesrgan")
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "fp16", "bf16"), "mps": ("fp32", "fp16")}
LEVELS = {"fp32": 0.01, "fp16": 0.3, "bf16": 4.0}
"""How far a network may be from fp32 on the CPU, in levels of 255, with trained weights."""
SAME = 0.01
"""Levels within which the same operations in the same precision agree, recorded or not."""


@dataclass(frozen=True)
class Check:
    """Something that was compared."""

    what: str
    """Model, precision, backend and what of it."""
    levels: float
    """The largest difference, in levels of 255."""
    limit: float
    """The largest that is right."""
    note: str = ""
    """What else is to be said."""

    @property
    def passed(self) -> bool:
        """Whether the difference is one that is right; NaN is not."""
        return self.levels <= self.limit


@dataclass(frozen=True)
class Timing:
    """How long one network takes, and the least that the device could take."""

    what: str
    """Model, precision, backend."""
    batch: int
    """Inputs per forward pass."""
    milliseconds: float
    """Median; on a GPU by its own clock."""
    arithmetic: float
    """Milliseconds that its multiplications take at the speed of a large matrix product in that precision."""
    traffic: float
    """Milliseconds that it takes to copy what all its convolutions read and write, each once."""


@dataclass(frozen=True)
class Scale:
    """How large the checks are."""

    size: int
    """Side of the networks' inputs."""
    batches: tuple[int, ...]
    """Inputs per forward pass."""
    runs: int
    """Timed runs of each network."""
    picture: tuple[int, int]
    """Height and width of the images that are cut into tiles."""
    tile: int
    """Side of those tiles' cores."""
    roofline: int
    """Side of the matrices that the roofline is measured with."""


FULL = Scale(128, (1, 16), 30, (70, 90), 32, 8192)
SHORT = Scale(16, (1,), 1, (9, 20), 16, 64)
OVERLAP = 8
"""Around each tile's core: the reference is cut alike, so that it need not be as wide as the networks see."""


def main() -> None:
    """Check and time every backend, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--backend", nargs="+", choices=list(backends.BACKENDS), help="[all but compiled: minutes]")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = inference.choose_device(given.device)
    scale = SHORT if given.short else FULL
    loaded = {name: load_or_draw(name) for name in MODELS}
    facts = machine(device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)

    checks: list[Check] = []
    timings: list[Timing] = []
    roofline = Roofline(device, scale.roofline)
    usable = backends.usable(device.type)
    chosen = given.backend or [name for name in usable if not backends.get(name).slow_start]
    for batch in scale.batches:
        networks = prepare_all(loaded, device, chosen)
        checks += shown(check_networks(loaded, networks, batch, scale.size, device))
        timings += shown(time_networks(loaded, networks, test_inputs(batch, scale.size).to(device), scale, roofline))
    checks += shown(check_pictures(loaded, device, scale, "eager" if chosen == ["eager"] else "auto"))
    if device.type == "cuda" and not given.short:
        checks += shown(check_beyond_32_bits(loaded, device))

    failed = [check for check in checks if not check.passed]
    print(f"{len(checks)} checks, {len(failed)} failed", *(check.what for check in failed), sep="\n  ")
    if given.json:
        document = {
            "device": str(device),
            "machine": facts,
            "checks": [{**asdict(check), "passed": check.passed} for check in checks],
            "timings": [asdict(timing) for timing in timings],
        }
        given.json.write_text(json.dumps(document, indent=2))
    sys.exit(1 if failed or not checks else 0)


def shown(results: Iterator[Check] | Iterator[Timing]) -> Iterator:
    """Print each result as it comes, and passes it on."""
    for result in results:
        if isinstance(result, Check):
            mark = "ok  " if result.passed else "FAIL"
            print(f"{mark} {result.what}: {result.levels:.4f} of {result.limit} levels {result.note}", flush=True)
        else:
            floor = f"arithmetic {result.arithmetic:.3f}, traffic {result.traffic:.3f}"
            print(f"     {result.what}, batch {result.batch}: {result.milliseconds:.3f} ms ({floor})", flush=True)
        yield result


def prepare_all(
    loaded: dict[str, LoadedModel], device: torch.device, chosen: Sequence[str]
) -> dict[tuple[str, str, str], backends.Network]:
    """Prepare each model in each precision by each of the backends that can; keys are model, precision, backend."""
    networks = {}
    for name, model in loaded.items():
        folded = model.generator.fold().to(device)
        for backend in map(backends.get, chosen):
            for precision in PRECISIONS[device.type]:
                if backend.accepts(folded) and precision in backend.precisions:
                    network = backends.prepare(folded, inference.dtype_of(precision), backend.name)
                    networks[name, precision, backend.name] = network
    return networks


def check_networks(
    loaded: dict[str, LoadedModel],
    networks: dict[tuple[str, str, str], backends.Network],
    batch: int,
    size: int,
    device: torch.device,
) -> Iterator[Check]:
    """Compare with fp32 on the CPU, and `graph` with `eager`, on two inputs one after the other."""
    inputs = test_inputs(batch, size)
    others = inputs.flip(3)
    plain: dict[tuple[str, str], torch.Tensor] = {}
    with torch.inference_mode():
        # The first and the last input of a batch: offsets within it grow beyond those of a single one.
        ends = [0, batch - 1]
        expected = {name: model.generator.fold()(inputs[ends]) for name, model in loaded.items()}
        for (name, precision, backend), network in networks.items():
            what = f"{name} {precision} {backend}, batch {batch}"
            first = network(channels_last(inputs.to(device)))
            other = network(channels_last(others.to(device)))
            again = network(channels_last(inputs.to(device)))
            yield Check(what, levels(first.cpu()[ends], expected[name]), LEVELS[precision])
            yield Check(f"{what}, run again", levels(again, first), SAME)
            if backend == "eager":
                plain[name, precision] = other
            elif backend == "graph" and (name, precision) in plain:
                yield Check(f"{what}, against eager", levels(other, plain[name, precision]), SAME)


def time_networks(
    loaded: dict[str, LoadedModel],
    networks: dict[tuple[str, str, str], backends.Network],
    source: torch.Tensor,
    scale: Scale,
    roofline: Roofline,
) -> Iterator[Timing]:
    """Time all networks in turns."""
    times = time_in_turns(networks, channels_last(source), lambda seconds: scale.runs, lambda share: None)
    pixels = source.shape[0] * source.shape[2] * source.shape[3]
    for key, measured in times.items():
        generator = loaded[key[0]].generator
        yield Timing(
            " ".join(key),
            source.shape[0],
            1000 * statistics.median(measured.device or measured.latency),
            1000 * 2 * count_multiplications(generator) * pixels / roofline.flops(key[1]),
            1000 * values_moved(generator) * pixels * inference.dtype_of(key[1]).itemsize / roofline.bandwidth,
        )


class Roofline:
    """What a device does at most, measured: bytes copied and multiply-adds in a second."""

    def __init__(self, device: torch.device, side: int) -> None:
        self._device, self._side = device, side
        source = torch.zeros(16 * side, side, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        self.bandwidth = 2 * source.nbytes / self._seconds(lambda: target.copy_(source))
        self._flops: dict[str, float] = {}

    def flops(self, precision: str) -> float:
        """Measure operations (two for each multiplication) of a large matrix product, in a second."""
        if precision not in self._flops:
            dtype = inference.dtype_of(precision)
            matrix = torch.ones(self._side, self._side, dtype=dtype, device=self._device)
            self._flops[precision] = 2 * self._side**3 / self._seconds(lambda: matrix @ matrix)
        return self._flops[precision]

    def _seconds(self, work: Callable[[], object]) -> float:
        times = []
        for _ in range(10):
            started = now(self._device)
            work()
            times.append(now(self._device) - started)
        return statistics.median(times)


def values_moved(generator: Generator) -> float:
    """Count the values that all convolutions read and write, for each low-resolution pixel."""
    side, total = 16, 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        total += inputs[0].numel() + output.numel()

    hooks = [m.register_forward_hook(count) for m in generator.modules() if isinstance(m, torch.nn.Conv2d)]
    try:
        with torch.inference_mode():
            generator(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return total / side**2


def check_pictures(loaded: dict[str, LoadedModel], device: torch.device, scale: Scale, backend: str) -> Iterator[Check]:
    """Compare images of all kinds, in tiles, with the same tiles on the CPU, which computes them one by one."""
    small = np.random.default_rng(0).integers(0, 256, (*scale.picture, 3)).astype(np.uint8)
    kinds = {
        "8 bits": small,
        "grey": small[:, :, :1],
        "16 bits": small.astype(np.uint16) * 257,
        "float": (small / 255).astype(np.float32),
    }
    tiles: OptionValues = {"tile": scale.tile, "overlap": OVERLAP}
    for name, model in loaded.items():
        reference = inference.Upscaler(model, device="cpu", backend="eager", precision="fp32", **tiles)
        expected = {kind: reference.upscale(picture).pixels for kind, picture in kinds.items()}
        for precision in PRECISIONS[device.type]:
            tiled = inference.Upscaler(model, device=str(device), precision=precision, backend=backend, **tiles)
            for kind, picture in kinds.items():
                result = tiled.upscale(picture)
                # Rounding to 8 bits adds up to one level to any difference.
                limit = 1.0 if picture.dtype == np.uint8 and precision != "bf16" else 10 * LEVELS[precision]
                what = f"{name} {precision} {tiled.backend}, {kind} in {result.tiles} tiles"
                difference = picture_levels(result.pixels, expected[kind])
                if result.redone:
                    yield Check(f"{what}, computed again", float("nan"), 0, f"{result.redone} tiles were not finite")
                yield Check(what, difference, limit)


def check_beyond_32_bits(loaded: dict[str, LoadedModel], device: torch.device) -> Iterator[Check]:
    """Compare what comes near 2^31 values or beyond with the same image computed in small parts."""
    for name, model in loaded.items():
        setup = choose_setup(InferenceOptions(device=str(device), overlap="full"), model)
        # A row of eight of the largest tiles; then an image in one pass that is larger than can be counted.
        wide = (setup.tile, 8 * setup.tile)
        side = int(largest_window(model.generator.peak_values_per_pixel) ** 0.5) + 64
        for what, chosen, shape in (
            (f"a row of 8 tiles of {setup.tile}, {setup.batch} at once", setup, wide),
            ("in one pass", replace(setup, tile=0, batch=1), (side, side)),
        ):
            picture = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
            torch.cuda.reset_peak_memory_stats(device)
            result = enlarged(model, chosen, picture)
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            small = enlarged(model, replace(setup, tile=128, batch=1), picture)
            yield Check(f"{name} {what}", picture_levels(result, small), 1.0, f"peak {peak:.1f} GiB")


def enlarged(model: LoadedModel, setup: inference.Setup, picture: np.ndarray) -> np.ndarray:
    """Enlarge an image exactly as `setup` says."""
    network = TiledNetwork(model, setup)
    height, width, channels = picture.shape
    output = np.empty((height * network.scale, width * network.scale, channels), picture.dtype)
    return network.enlarge(picture, output, None, None).pixels


def channels_last(batch: torch.Tensor) -> torch.Tensor:
    """Give a batch the layout in which networks compute."""
    return batch.contiguous(memory_format=torch.channels_last)


def levels(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Give the largest difference between two batches in levels of 255; NaN where a result is not finite."""
    difference = (result.double() - expected.double()).abs()
    return 255 * float(difference.max()) if bool(difference.isfinite().all()) else float("nan")


def picture_levels(result: np.ndarray, expected: np.ndarray) -> float:
    """Give the largest difference between two images of one type in levels of 255."""
    top = {1: 255, 2: 65535, 4: 1}[result.itemsize]
    return 255 / top * float(np.abs(result.astype(float) - expected).max())


if __name__ == "__main__":
    main()
