"""The tools that let writing overlap the network without piling up in memory; `storage.Prefetch` is for reading."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class WriterPool:
    """Threads that finish work while the caller continues, with at most `limit` bytes in their hands at once.

    Leaving the context waits for all work; after an exception, only for what has begun, and drops the rest.
    An exception in the work comes out of the next `submit` or of leaving.
    """

    def __init__(self, threads: int, limit: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "srup-write")
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()
        self._running: set[Future[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._pool.shutdown(wait=True, cancel_futures=error is not None)
        except BaseException:
            # A signal ended the waiting: what has begun is still finished, so that no temporary file is left.
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
        if error is None:
            self._raise_errors()

    def reserve(self, amount: int) -> None:
        """Wait until `amount` bytes more are within the limit; a demand beyond it is met when nothing is held."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + amount <= self._limit)
            self._held += amount

    def release(self, amount: int) -> None:
        """Give back what was reserved."""
        with self._changed:
            self._held -= amount
            self._changed.notify_all()

    def submit(self, work: Callable[[], None], amount: int) -> None:
        """Do `work` in a thread, then release the `amount` that was reserved for it."""
        self._raise_errors()

        def work_and_release() -> None:
            try:
                work()
            finally:
                self.release(amount)

        self._running.add(self._pool.submit(work_and_release))

    def _raise_errors(self) -> None:
        finished = {future for future in self._running if future.done()}
        self._running -= finished
        for future in finished:
            future.result()


class Abandoned(Exception):
    """The thread at the other end of a `RowGate` has failed; it has said so itself."""


class RowGate:
    """Lets a writer follow a photo that is still being computed, row by row, in another thread.

    By a queue alone: a condition is Python code that a signal can leave half done, and then nobody wakes up.
    """

    def __init__(self) -> None:
        self._final: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._rows: int | None = 0
        self._abandoned = False

    def wait_for(self, rows: int) -> None:
        """Wait until the first `rows` rows are final. Raises Abandoned if they never will be."""
        while self._rows is not None and self._rows < rows:
            self._rows = self._final.get()
        if self._rows is None:
            raise Abandoned

    def advance(self, rows: int) -> None:
        """Say that the first `rows` rows are final. Raises Abandoned if nobody writes them any more."""
        if self._abandoned:
            raise Abandoned
        self._final.put(rows)

    def abandon(self) -> None:
        """Say that this end, of whichever side, has failed."""
        self._abandoned = True
        self._final.put(None)
