"""What workers elsewhere, in another process or on another machine, say of their tasks: messages for a `Listener`."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

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
class Told:
    """What a `Listener` is to hear: one of its methods, and the arguments."""

    method: Literal["started", "progress", "finished", "message"]
    arguments: tuple[Any, ...]

    def tell(self, listener: Listener) -> None:
        getattr(listener, self.method)(*self.arguments)


@dataclass(frozen=True)
class Fatal:
    """An error that concerns the whole job."""

    error: Exception

    def tell(self, listener: Listener) -> None:
        """Raise the error."""
        raise self.error


News: TypeAlias = Told | Fatal


class Sender:
    """A `Listener` that sends what it hears."""

    def __init__(self, send: Callable[[Ready | News], None]) -> None:
        self._send = send

    def ready(self) -> None:
        """Say that tasks can come."""
        self._send(Ready())

    def started(self, index: int) -> None:
        self._send(Told("started", (index,)))

    def progress(self, index: int, done: int, total: int) -> None:
        self._send(Told("progress", (index, done, total)))

    def finished(self, index: int, result: ImageResult) -> None:
        self._send(Told("finished", (index, result)))

    def message(self, kind: Kind, text: str) -> None:
        self._send(Told("message", (kind, text)))

    def fatal(self, error: Exception) -> None:
        """Send an error, or one that says the same where it cannot be pickled."""
        portable: Exception = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(Exception):
            portable = pickle.loads(pickle.dumps(error))
        self._send(Fatal(portable))
