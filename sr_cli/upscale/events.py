"""Events and results of the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sr_cli.storage import Place

Status = Literal["done", "skipped", "failed"]
Kind = Literal["note", "detail", "started", "progress", "done", "skipped", "failed", "interrupted", "summary"]
Ending = Literal["complete", "interrupted", "error"]


@dataclass(frozen=True)
class Computation:
    """How a photo was enlarged: everything that its pixels depend on."""

    model: str  #: The model's name.
    stage: str | None  #: `pixel`, `photo` or `gan`; None for interpolation and for weights that no manifest knows.
    weights_sha256: str | None  #: Checksum of the weights; None for interpolation.
    fidelity: float | None  #: As it was asked for.
    ensemble: bool  #: Whether it is the mean of eight flips and rotations.
    device: str  #: `cpu`, `cuda:0`, ...
    precision: str  #: `fp32`, `fp16` or `bf16`.
    backend: str  #: What ran the network; `pillow` for interpolation.
    tile: int  #: Side of the largest tile's core in input pixels; 0: no tiles.
    version: str  #: Of srup.


@dataclass(frozen=True)
class ImageResult:
    """The result of one input."""

    input: Place  #: The photo; `-` is standard input.
    output: Place  #: Where the enlarged one is, or would have been; `-` is standard output.
    status: Status  #: `skipped`: nothing had to be done; `note` says why.
    width: int = 0  #: Columns of the output.
    height: int = 0  #: Rows of the output.
    tiles: int = 0  #: Tiles computed; 0 for interpolation.
    redone: int = 0  #: Tiles computed again because half precision overflowed.
    seconds: float = 0.0  #: Time spent on this input: reading, enlarging and writing it, without waiting for others.
    computation: Computation | None = None  #: What made it; None where nothing was.
    losses: tuple[str, ...] = ()  #: What the output's format could not hold, in words.
    note: str | None = None  #: Why it was skipped.
    error: str | None = None  #: Why it failed.
    exit_code: int = 0  #: The exit code that this failure alone would have.


@dataclass(frozen=True)
class Summary:
    """The state of a job at its end, whatever ended it."""

    ending: Ending
    """`complete`: every input has a result; `interrupted`: by the user; `error`: by one that ends the whole job."""
    count: int  #: How many inputs there were.
    results: tuple[ImageResult, ...]  #: The results so far, in the order of the inputs.


@dataclass(frozen=True)
class UpscaleEvent:
    """Something happened to an input: `started`, `progress`, and one of `done`, `skipped`, `failed`, `interrupted`.

    Or something that is not about one input: `note`, worth knowing for everybody, `detail`, for the curious, and
    `summary`, which is the last event.
    """

    kind: Kind  #: What happened.
    input: Place  #: To which input.
    index: int  #: The input's position, from 0.
    count: int  #: How many inputs there are.
    done: int = 0  #: Tiles done (`progress`).
    total: int = 0  #: Tiles of this input (`progress`).
    batch: float = 0.0  #: Share of the whole batch that is done, 0 to 1, by the size of the files.
    result: ImageResult | None = None  #: The outcome (`done`, `skipped`, `failed`).
    text: str = ""  #: What is worth knowing (`note`, `detail`).
    summary: Summary | None = None  #: How it ended (`summary`).


OnEvent = Callable[[UpscaleEvent], None]  #: Takes events; called from one thread at a time, though not always the same.


class Outcome(Protocol):
    """What an exit code follows from: an ImageResult, or what a dry run foresees."""

    @property
    def status(self) -> str: ...
    @property
    def exit_code(self) -> int: ...


def exit_code(results: Sequence[Outcome]) -> int:
    """0 if all went well; the failures' common code if all failed alike; else 1."""
    failures = {result.exit_code for result in results if result.status == "failed"}
    if not failures:
        return 0
    if len(failures) == 1 and all(result.status == "failed" for result in results):
        return failures.pop()
    return 1
