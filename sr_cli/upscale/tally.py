"""What has become of a batch so far: the one place that its events and results come from, whoever does the work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from sr_cli.storage import RemotePath
from sr_cli.upscale.events import Ending, ImageResult, Kind, OnEvent, Summary, UpscaleEvent
from sr_cli.upscale.inputs import Task


class Tally:
    """Collects results and reports events, those of each task in their order. Threads may share it.

    A task that is begun anew, since its worker died, is reported as started once.
    """

    def __init__(self, tasks: Sequence[Task], on_event: OnEvent) -> None:
        self.tasks = tasks
        self.results: dict[int, ImageResult] = {}  #: By position in `tasks`.
        self._on_event, self._lock = on_event, threading.RLock()
        self._started: set[int] = set()
        self._said: set[str] = set()
        self._bytes = [_input_bytes(task) for task in tasks]
        self._all_bytes = max(1, sum(self._bytes))
        self._finished_bytes = 0
        self._parts: dict[int, float] = {}
        self._share = 0.0

    def started(self, index: int) -> None:
        """Report that work on a task begins."""
        with self._lock:
            if index not in self._started:
                self._started.add(index)
                self._tell("started", index)

    def progress(self, index: int, done: int, total: int) -> None:
        """Report that `done` of `total` tiles of a task are computed."""
        with self._lock:
            self._parts[index] = self._bytes[index] * done / max(1, total)
            self._tell("progress", index, done, total)

    def finished(self, index: int, result: ImageResult) -> None:
        """Report what became of a task; the first result of a task stands."""
        with self._lock:
            if index in self.results:
                return
            self.started(index)
            self.results[index] = result
            self._parts.pop(index, None)
            self._finished_bytes += self._bytes[index]
            self._tell(result.status, index, result=result)

    def message(self, kind: Kind, text: str) -> None:
        """Report a `note` or `detail`, once."""
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self._on_event(UpscaleEvent(kind, Path(), 0, len(self.tasks), text=text))

    def end(self, ending: Ending) -> None:
        """Give every task that was begun its last event, and the job its summary."""
        with self._lock:
            for index in sorted(self._started - self.results.keys()):
                self._tell("interrupted", index)
            results = tuple(self.results[index] for index in sorted(self.results))
            count = len(self.tasks)
            summary = Summary(ending, count, results)
            self._on_event(UpscaleEvent("summary", Path(), 0, count, batch=self._share, summary=summary))

    def _tell(self, kind: Kind, index: int, done: int = 0, total: int = 0, result: ImageResult | None = None) -> None:
        share = (self._finished_bytes + sum(self._parts.values())) / self._all_bytes
        self._share = max(self._share, min(1.0, share))  # a worker that dies takes its part with it
        source, count = self.tasks[index].shown_source, len(self.tasks)
        self._on_event(UpscaleEvent(kind, source, index, count, done, total, self._share, result))


def _input_bytes(task: Task) -> int:
    """Return the size of an input file, which stands for the time it will take; at least 1."""
    if isinstance(task.source, RemotePath):
        return max(1, task.source.listed.size) if task.source.listed else 1
    try:
        return 1 if task.source is None else max(1, task.source.stat().st_size)
    except OSError:
        return 1
