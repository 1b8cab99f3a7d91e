"""What to time, and for how long. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from sr_cli.errors import UsageError
from sr_cli.options import BackendName, Device, Option, models_option, validate

MODELS = ("srgan", "esrgan", "mesrgan", "mesrgan-poster")

_measure, _speed = (partial(Option, group=group) for group in ("Measure", "Speed"))


@dataclass(frozen=True)
class BenchOptions:
    """What to time, and for how long; also the options of `srup bench`. Raises UsageError for values out of range."""

    models: Annotated[
        tuple[str, ...],
        models_option(
            "A preset, name:stage or .safetensors file; presets without weights get random ones. Repeatable.", "Measure"
        ),
    ] = MODELS
    batches: Annotated[
        tuple[int, ...],
        _measure(
            "Inputs per forward pass; several joined by commas.",
            names=("--batch",),
            metavar="N,N...",
            default="1,2 on a CPU, else 1,2,4,8,16",
            minimum=1,
        ),
    ] = ()
    size: Annotated[int, _measure("Side of the low-resolution input, in pixels.", minimum=1)] = 128
    runs: Annotated[
        int | None,
        _measure(
            "Forward passes to time for each cell of the table.", default="100, on a CPU what fits --seconds", minimum=1
        ),
    ] = None
    seconds: Annotated[
        float, _measure("Time for each cell on a CPU; at least three runs are made.", metavar="SECONDS")
    ] = 10.0
    photo: Annotated[
        int | None,
        _measure(
            "Also time a whole photo with this side in pixels, tiles and colours included; 0: none.",
            default="256 on a CPU, else 2048",
            minimum=0,
        ),
    ] = None
    device: Device = "auto"
    precisions: Annotated[
        tuple[Literal["fp32", "fp16", "bf16"], ...],
        _speed(
            "Number formats to time; repeatable, or joined by commas.",
            names=("--precision",),
            default="what the device computes fast",
        ),
    ] = ()
    backends: Annotated[
        tuple[BackendName, ...],
        _speed(
            "Run-times to time; repeatable, or joined by commas.",
            names=("--backend",),
            default="those installed that need no long compilation",
        ),
    ] = ()

    def __post_init__(self) -> None:
        validate(self)
        if self.seconds <= 0:
            raise UsageError(f"--seconds must be more than 0, not {self.seconds:g}")
        for name in ("models", "batches", "precisions", "backends"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
