"""The methods that are compared: interpolations and networks, ready to enlarge."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sr_cli import datasets, inference, weights
from sr_cli.errors import UsageError
from sr_cli.evaluate.options import EvalOptions
from sr_cli.weights.manifest import read_manifest
from sr_cli.weights.registry import describe
from sr_cli.weights.specs import is_path

TIMED_SIDE = 128  #: Side, in LR pixels, of the photo whose upscaling a report times.
_TIMED_RUNS = 3


@dataclass(frozen=True)
class Method:
    """An interpolation or a network, ready to enlarge."""

    name: str  #: Its name in reports.
    upscaler: inference.Upscaler  #: Enlarges by 4.
    multiplications: int | None = None
    """Multiplications of its convolutions per input pixel; None where they are not known."""
    milliseconds: float | None = None  #: Median time to upscale 128x128 pixels, where it was measured.

    def timed(self) -> Method:
        """Return the same with its `milliseconds`, measured after one run to warm up."""
        pixels = np.random.default_rng(0).integers(0, 256, (TIMED_SIDE, TIMED_SIDE, 3), dtype=np.uint8)
        self.upscaler.upscale(pixels)
        times = []
        for _ in range(_TIMED_RUNS):
            started = time.perf_counter()
            self.upscaler.upscale(pixels)
            times.append(1000 * (time.perf_counter() - started))
        return replace(self, milliseconds=statistics.median(times))


def bundled() -> tuple[str, ...]:
    """Return the models whose default weights come with the package or are the user's own files."""
    entries = read_manifest().models.values()
    return tuple(
        entry.name for entry in entries if entry.default_stage and entry.path(entry.stages[entry.default_stage])
    )


def load(options: EvalOptions) -> list[Method]:
    """Return the methods that the options name, each once.

    Raises WeightsError for a model that is not available, UsageError for a device and for a model of another
    factor than 4.
    """
    specs = list(dict.fromkeys(options.models)) or list(bundled())
    if not specs:
        raise UsageError("no model comes with this installation; name some with -m (bicubic is always there)")
    names = [Path(spec).stem if is_path(spec) else spec for spec in specs]
    return [
        _load(spec, spec if names.count(name) > 1 else name, options) for spec, name in zip(specs, names, strict=True)
    ]


def _load(spec: str, name: str, options: EvalOptions) -> Method:
    if spec in inference.INTERPOLATIONS:
        return Method(name, inference.Upscaler(spec))
    loaded = weights.load_blend(spec, options.fidelity, offline=options.offline)
    if loaded.generator.scale != datasets.SCALE:
        raise UsageError(
            f"{spec} enlarges by {loaded.generator.scale}, and eval measures enlargement by {datasets.SCALE}; "
            "leave it out (srup compare shows models of different scales side by side)"
        )
    upscaler = inference.Upscaler(loaded, device=options.device, precision=options.precision, ensemble=options.ensemble)
    return Method(name, upscaler, describe(loaded.generator)["multiplications"])
