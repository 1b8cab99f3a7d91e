"""The tools that let reading and writing overlap the network without piling up in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Goes through `items` in a thread of its own, at most `ahead` items before whoever iterates over it.

    An exception in the thread comes out of the iteration in its turn. Leaving the context stops the thread
    after the item that it is working on; an exception, such as Ctrl-C, does not wait for that: a pipe that
    nobody writes to would hold it up forever.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._items = items
        # A queue of permits: a semaphore is Python code that a signal can leave half done, and then nobody wakes up.
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)
        self._queue: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="srup-read", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._take()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped = True
        self._room.put(None)
        if error is None:
            self._thread.join()

    def _run(self) -> None:
        try:
            items = iter(self._items)
            while True:
                self._room.get()
                if self._stopped:
                    return
                self._queue.put((next(items),))
        except StopIteration:
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def _take(self) -> Iterator[T]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            del item  # a picture: not to be kept while the next is waited for
            self._room.put(None)


class Background:
    """Threads that finish work behind the caller, with at most `limit` bytes in their hands at once.

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
        """Waits until `amount` bytes more are within the limit; a demand beyond it is met when nothing is held."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + amount <= self._limit)
            self._held += amount

    def release(self, amount: int) -> None:
        """Gives back what was reserved."""
        with self._changed:
            self._held -= amount
            self._changed.notify_all()

    def submit(self, work: Callable[[], None], amount: int) -> None:
        """Does `work` behind the caller, then releases the `amount` that was reserved for it."""
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
    """Lets a writer follow a picture that is still being computed, row by row, in another thread."""

    def __init__(self) -> None:
        self._final = 0
        self._abandoned = False
        self._changed = threading.Condition()

    def wait_for(self, rows: int) -> None:
        """Waits until the first `rows` rows are final. Raises Abandoned if they never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._final >= rows)
            if self._abandoned:
                raise Abandoned

    def advance(self, rows: int) -> None:
        """Says that the first `rows` rows are final. Raises Abandoned if nobody writes them any more."""
        with self._changed:
            self._final = rows
            self._changed.notify_all()
            if self._abandoned:
                raise Abandoned

    def abandon(self) -> None:
        """Says that this end has failed."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
