"""Work on pieces of a stream on all cores, results in order, memory bounded. zlib and numpy release the GIL."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InOrder(Generic[Result]):
    """Calls in threads; `emit` gets their results in the order in which they were submitted.

    A single call runs in the caller's thread, so that small images start no threads. At most two calls per
    thread are under way; `submit` waits for the oldest beyond that.
    """

    def __init__(self, emit: Callable[[Result], object], threads: int | None = None) -> None:
        self._emit = emit
        self._threads = threads or min(cores(), 16)
        self._pool: ThreadPoolExecutor | None = None
        self._first: Callable[[], Result] | None = None
        self._running: deque[Future[Result]] = deque()

    def submit(self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        if self._pool is None and self._first is None:
            self._first = lambda: function(*args, **kwargs)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="srup-images")
        if self._first is not None:
            self._running.append(self._pool.submit(self._first))
            self._first = None
        self._running.append(self._pool.submit(function, *args, **kwargs))
        while len(self._running) > 2 * self._threads:
            self._emit(self._running.popleft().result())

    def finish(self) -> None:
        """Emit what is still under way; more may be submitted afterwards."""
        if self._first is not None:
            first, self._first = self._first, None
            self._emit(first())
        while self._running:
            self._emit(self._running.popleft().result())

    def __enter__(self) -> InOrder[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
