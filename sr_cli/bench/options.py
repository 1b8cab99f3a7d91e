"""What to time, and for how long. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sr_cli.errors import UsageError
from sr_cli.options import BackendName, Device, Option, models_option, validate

MODELS = ("srgan", "esrgan", "mesrgan", "mesrgan-poster")


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
        Option(
            "Inputs per forward pass; several joined by commas.",
            names=("--batch",),
            group="Measure",
            metavar="N,N...",
            default="1,2 on a CPU, else 1,2,4,8,16",
            minimum=1,
        ),
    ] = ()
    size: Annotated[int, Option("Side of the low-resolution input, in pixels.", group="Measure", minimum=1)] = 128
    runs: Annotated[
        int | None,
        Option(
            "Forward passes to time for each cell of the table.",
            group="Measure",
            default="100, on a CPU what fits --seconds",
            minimum=1,
        ),
    ] = None
    seconds: Annotated[
        float, Option("Time for each cell on a CPU; at least three runs are made.", group="Measure", metavar="SECONDS")
    ] = 10.0
    photo: Annotated[
        int | None,
        Option(
            "Also time a whole photo with this side in pixels, tiles and colours included; 0: none.",
            group="Measure",
            default="256 on a CPU, else 2048",
            minimum=0,
        ),
    ] = None
    device: Device = "auto"
    precisions: Annotated[
        tuple[Literal["fp32", "fp16", "bf16"], ...],
        Option(
            "Number formats to time; repeatable, or joined by commas.",
            names=("--precision",),
            group="Speed",
            default="what the device computes fast",
        ),
    ] = ()
    backends: Annotated[
        tuple[BackendName, ...],
        Option(
            "Run-times to time; repeatable, or joined by commas.",
            names=("--backend",),
            group="Speed",
            default="those installed that need no long compilation",
        ),
    ] = ()

    def __post_init__(self) -> None:
        validate(self)
        if self.seconds <= 0:
            raise UsageError(f"--seconds must be more than 0, not {self.seconds:g}")
        for name in ("models", "batches", "precisions", "backends"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
