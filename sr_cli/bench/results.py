"""Results and progress events of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class Timed:
    """What was timed, and whether the machine was left alone meanwhile."""

    model: str  #: As it was asked for.
    precision: str  #: `fp32`, `fp16` or `bf16`.
    backend: str  #: See `backends.NAMES`.
    disturbed: bool  #: The times scatter: something else used the machine.


@dataclass(frozen=True)
class Cell(Timed):
    """The times of one model in one column at one batch size."""

    batch: int  #: Inputs per forward pass.
    median_ms: float  #: Median time of a forward pass.
    mean_ms: float  #: Mean time, what Eriksson and Löf report.
    low_ms: float  #: 10th percentile.
    high_ms: float  #: 90th percentile.
    runs: int  #: Forward passes that were timed.
    levels: float  #: Largest difference from plain torch in fp32 on the CPU anywhere in the output, in levels of 1/255.
    device_ms: float | None = None
    """Median time that a GPU worked, by its own clock: what is beyond it is launching. None on other devices."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model costs, whatever the machine."""

    model: str  #: As it was asked for.
    weights: str  #: `name:stage`, a path, or `random`.
    parameters: int  #: Values that were learnt.
    multiplications: int  #: Per low-resolution pixel.
    peak_bytes: int | None
    """Memory of one forward pass of one input, plain torch in the first precision; None: the system does not tell."""


@dataclass(frozen=True)
class PhotoCell(Timed):
    """One image through an `Upscaler`, with its tiles, conversions and copies."""

    megapixels_per_second: float  #: Output pixels.
    not_network: float  #: Part of the time that was not spent in the network.
    overlap: float  #: Part of the network's work that was spent on what tiles see beyond their cores.


@dataclass(frozen=True)
class BenchResult:
    """All that was measured, and on what."""

    device: str  #: `cpu`, `cuda:0`, ...
    machine: dict[str, Any]  #: Processor or accelerator, threads, versions.
    size: int  #: Side of the inputs.
    results: list[Cell] = field(default_factory=list)  #: Forward passes.
    models: list[ModelFacts] = field(default_factory=list)  #: Costs of the models.
    photos: list[PhotoCell] = field(default_factory=list)  #: Whole images.

    def cell(self, model: str, batch: int, precision: str, backend: str) -> Cell | None:
        """Find a cell; None where a backend could not run a model."""
        wanted = (model, batch, precision, backend)
        return next((c for c in self.results if (c.model, c.batch, c.precision, c.backend) == wanted), None)

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Precision and backend of each column, in the order in which they were timed."""
        return list(dict.fromkeys((c.precision, c.backend) for c in self.results))

    @property
    def batches(self) -> list[int]:
        return list(dict.fromkeys(c.batch for c in self.results))


@dataclass(frozen=True)
class BenchEvent:
    """Progress: `note` says something worth showing, `progress` moves the bar."""

    kind: Literal["progress", "note"]  #: What the event is.
    text: str  #: What is being done.
    done: float = 0.0  #: Parts done (`progress`).
    total: float = 1.0  #: Parts in all (`progress`).


OnEvent: TypeAlias = Callable[[BenchEvent], None]  #: Takes events.
