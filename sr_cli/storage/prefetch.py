"""Reading ahead: the next items are made in a thread while the last are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `items` in a thread of its own, at most `ahead` items before its user.

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
            del item  # a photo: not to be kept while the next is waited for
            self._room.put(None)
