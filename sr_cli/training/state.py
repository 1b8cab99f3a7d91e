"""State of a training stage apart from its tensors, saved with each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BAD_STEPS_WINDOW = 1000  #: Steps over which bad ones are counted against `max_bad_steps`.


@dataclass
class TrainState:
    """Where a stage stands."""

    step: int = 0  #: Steps done.
    best_psnr_y: float | None = None
    """Validation PSNR on luma of the weights to use, in dB; None before the first validation."""
    seconds: float = 0.0  #: Time spent on the stage, earlier processes included.
    bad_steps: int = 0  #: Steps skipped so far because a loss or gradient was not finite.
    recent_bad_steps: list[tuple[int, int]] = field(default_factory=list)
    """Bad steps as (step at which they were counted, their number), within the window."""
    parent_sha256: str | None = None  #: Checksum of the weights that the stage started from.

    def count_bad(self, bad: int) -> None:
        """Count bad steps that were seen at the present step."""
        if bad:
            self.bad_steps += bad
            self.recent_bad_steps.append((self.step, bad))
        self.recent_bad_steps = [(at, n) for at, n in self.recent_bad_steps if at > self.step - BAD_STEPS_WINDOW]

    @property
    def bad_in_window(self) -> int:
        """Bad steps among the last `BAD_STEPS_WINDOW`."""
        return sum(n for _, n in self.recent_bad_steps)

    def to_dict(self) -> dict[str, Any]:
        """Give the state as plain values, as checkpoints hold it."""
        return {
            "step": self.step,
            "best": self.best_psnr_y,
            "seconds": self.seconds,
            "bad_steps": self.bad_steps,
            "recent_bad_steps": self.recent_bad_steps,
            "parent_sha256": self.parent_sha256,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Build the state from `to_dict`'s values, or from those of the first checkpoints, which lack some."""
        best = values.get("best")
        return cls(
            step=values["step"],
            best_psnr_y=best if best is not None and math.isfinite(best) else None,
            seconds=values.get("seconds", 0.0),
            bad_steps=values.get("bad_steps", 0),
            recent_bad_steps=[(at, n) for at, n in values.get("recent_bad_steps", [])],
            parent_sha256=values.get("parent_sha256"),
        )
