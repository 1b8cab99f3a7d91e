"""What workers elsewhere, in another process or on another machine, say of their tasks: messages for a `Listener`."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sr_cli.upscale.events import ImageResult, Kind


class Listener(Protocol):
    """Hears what becomes of tasks (a `Tally`, or what brings the news to one). Called from several threads."""

    def started(self, index: int) -> None: ...
    def progress(self, index: int, done: int, total: int) -> None: ...
    def finished(self, index: int, result: ImageResult) -> None: ...
    def message(self, kind: Kind, text: str) -> None: ...


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the model; tasks can come. For who gives them, not for a `Listener`."""


@dataclass(frozen=True)
class Started:
    """Work on a task begins."""

    index: int

    def tell(self, listener: Listener) -> None:
        listener.started(self.index)


@dataclass(frozen=True)
class Progressed:
    """`done` of `total` tiles of a task are computed."""

    index: int
    done: int
    total: int

    def tell(self, listener: Listener) -> None:
        listener.progress(self.index, self.done, self.total)


@dataclass(frozen=True)
class Finished:
    """A task has its result."""

    index: int
    result: ImageResult

    def tell(self, listener: Listener) -> None:
        listener.finished(self.index, self.result)


@dataclass(frozen=True)
class Message:
    """A `note` or `detail`."""

    kind: Kind
    text: str

    def tell(self, listener: Listener) -> None:
        listener.message(self.kind, self.text)


@dataclass(frozen=True)
class Fatal:
    """An error that concerns the whole job."""

    error: Exception

    def tell(self, listener: Listener) -> None:
        """Raise the error."""
        raise self.error


News: TypeAlias = Started | Progressed | Finished | Message | Fatal


class Sender:
    """A `Listener` that sends what it hears."""

    def __init__(self, send: Callable[[Ready | News], None]) -> None:
        self._send = send

    def ready(self) -> None:
        """Say that tasks can come."""
        self._send(Ready())

    def started(self, index: int) -> None:
        self._send(Started(index))

    def progress(self, index: int, done: int, total: int) -> None:
        self._send(Progressed(index, done, total))

    def finished(self, index: int, result: ImageResult) -> None:
        self._send(Finished(index, result))

    def message(self, kind: Kind, text: str) -> None:
        self._send(Message(kind, text))

    def fatal(self, error: Exception) -> None:
        """Send an error, or one that says the same where it cannot be pickled."""
        portable: Exception = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(Exception):
            portable = pickle.loads(pickle.dumps(error))
        self._send(Fatal(portable))
