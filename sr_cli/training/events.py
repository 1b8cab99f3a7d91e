"""Events that a training run reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Notice:
    """One line for the user: an image that was skipped, where the run starts from."""

    message: str


@dataclass(frozen=True)
class StageProgress:
    """Where a stage stands."""

    stage: str  #: `pixel`, `photo` or `gan`.
    step: int  #: Steps done.
    steps: int  #: Steps of the whole stage.
    losses: dict[str, float]  #: Means since the last event, by name; `loss` is the generator's total.
    images_per_second: float  #: Patches that were trained on per second, since this process began the stage.
    waiting: float  #: Share of that time spent waiting for data, 0..1.
    seconds: float  #: Time spent on the stage, earlier processes included.
    bad_steps: int = 0  #: Steps skipped because a loss was not finite.
    val_psnr_y: float | None = None  #: Validation PSNR on luma, in dB, where this step was validated.
    bicubic_psnr_y: float | None = None  #: The same of bicubic interpolation, to compare with.
    samples: Path | None = None  #: The picture of validation crops made at this step.


@dataclass(frozen=True)
class Download:
    """How far a download is."""

    what: str  #: The file.
    done: int  #: Bytes that are here.
    total: int | None  #: Bytes in all, where known.


@dataclass(frozen=True)
class Teaching:
    """How many training photos a teacher has enlarged."""

    teacher: str  #: Its name.
    done: int  #: Photos whose enlargement is kept.
    total: int  #: Photos in all, each at each size.


TrainEvent = Notice | StageProgress | Download | Teaching
OnEvent = Callable[[TrainEvent], None]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended."""

    stage: str  #: `pixel`, `photo` or `gan`.
    step: int  #: Steps done.
    steps: int  #: Steps of the whole stage.
    val_psnr_y: float | None
    """Validation PSNR on luma of the weights in `weights`, in dB; None before the first validation."""
    weights: Path | None  #: The stage's best weights; None before the first validation.
    seconds: float  #: Time spent on the stage.
    bad_steps: int = 0  #: Steps skipped because a loss was not finite.

    @property
    def complete(self) -> bool:
        """Whether all steps were done."""
        return self.step >= self.steps


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path  #: The run's folder.
    stages: list[StageResult] = field(default_factory=list)  #: The stages that this call worked on.
    skipped_images: int = 0  #: Image files that could not be used.
    interrupted: str | None = None  #: Why the run ended early: `SIGINT`, `SIGTERM` or `--max-minutes`.

    @property
    def complete(self) -> bool:
        """Whether all that was asked for was done."""
        return self.interrupted is None


_EVENT_NAMES = {Notice: "notice", StageProgress: "progress", Download: "download", Teaching: "teaching"}


def to_dict(told: TrainEvent | TrainResult) -> dict[str, Any]:
    """Give an event or the result as plain values for JSON: none of them None, the losses among the others."""
    values = _plain(dataclasses.asdict(told))
    if isinstance(told, TrainResult):
        return {**values, "complete": told.complete}
    losses = values.pop("losses", {})
    return {"event": _EVENT_NAMES[type(told)], **values, **losses}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
