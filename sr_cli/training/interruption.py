"""When to stop a run: after a time, or when a signal asks for it."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any


class Interruption:
    """Says when to stop: after `max_minutes`, or when SIGINT or SIGTERM came. A second signal ends at once."""

    def __init__(self, max_minutes: float | None) -> None:
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None
        self.reason: str | None = None  #: `SIGINT`, `SIGTERM` or `--max-minutes`; None as long as nothing came.
        self.previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.reason = self.reason or "--max-minutes"
        return self.reason is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for which in (signal.SIGINT, signal.SIGTERM):
                self.previous[which] = signal.signal(which, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        self.reason = which.name
        signal.signal(which, self.previous[which])

    def __exit__(self, *_: object) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)
