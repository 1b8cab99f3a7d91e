"""`--devices`: one process a device, all fed from one queue; this process keeps the journal and reports.

Before an output gets its name the worker asks here for its line in the journal. An interruption lets workers finish
what they are writing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from sr_cli.errors import TERMINATED, OutputError, SrupError, Terminated
from sr_cli.inference import WorkerDevice
from sr_cli.storage import Place
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.news import News, Ready, Sender
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.tally import Tally
from sr_cli.upscale.team import Died, Said, Team, check_shareable
from sr_cli.upscale.worker import for_device, serve


@dataclass(frozen=True)
class _Record:
    """Tell that an output is complete and waits for its line in the journal: from a worker."""

    number: int
    target: Place
    key: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class _Recorded:
    """Tell that the line is written, or why not: to the worker."""

    number: int
    error: Exception | None


_Order = tuple[int, Task] | _Recorded | None
"""What a worker is told: a task with its position, that a line is in the journal, or the end of all tasks."""


def run(
    tasks: Sequence[Task],
    devices: Sequence[WorkerDevice],
    options: UpscaleOptions,
    journals: Journals,
    tally: Tally,
) -> None:
    """Do all tasks in worker processes and report each result to the tally.

    Raises UsageError for standard input or output, errors of the whole job (such as WeightsError), and
    SrupError where no worker can be started.
    """
    check_shareable(tasks, "--devices")

    inbox: deque[tuple[_Process, Said]] = deque()

    def listen(workers: Sequence[_Process]) -> Iterable[tuple[_Process, Said]]:
        return _listen(workers, journals, inbox)

    team = Team(tasks, tally, listen)
    try:
        for device in devices[: len(tasks)]:
            team.add(_Process(device, options))
        team.work()
        for worker in team.members:
            worker.order(None)
        for worker in team.members:
            worker.process.join()
    except BaseException:
        _dismiss(team)
        raise


def _dismiss(team: Team[_Process]) -> None:
    """End all workers; what they are writing is finished and counted. A second interruption kills them."""
    try:
        for worker in team.members:
            worker.process.terminate()
        team.finish()
    except BaseException:
        for worker in team.members:
            worker.process.kill()
        raise


def _listen(
    workers: Sequence[_Process], journals: Journals, inbox: deque[tuple[_Process, Said]]
) -> Iterator[tuple[_Process, Said]]:
    """Wait for the next messages of workers; write the journal for them, and yield the other messages.

    A message stays in `inbox` until the caller has handled it: after an interruption it is yielded again.
    """
    by_news = {worker.news: worker for worker in workers}
    for news in () if inbox else connection.wait(list(by_news)):
        worker = by_news[news]  # type: ignore[index]
        with _uninterrupted():  # a worker waits for the answer
            message = worker.receive()
            if isinstance(message, _Record):
                worker.order(_Recorded(message.number, _append(message, journals)))
            else:
                inbox.append((worker, message))
    while inbox:
        yield inbox[0]
        inbox.popleft()


def _append(record: _Record, journals: Journals) -> Exception | None:
    """Write a line into the journal; return why not, where that fails."""
    try:
        journals.append(record.target, record.key, record.size, record.mtime_ns)
    except (OSError, SrupError) as problem:
        return problem
    return None


class _Process:
    """A worker's process as this one sees it; a `Member` of the team."""

    def __init__(self, device: WorkerDevice, options: UpscaleOptions) -> None:
        """Start it."""
        context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        their_orders, self._orders = context.Pipe(duplex=False)
        self.news, their_news = context.Pipe(duplex=False)
        self._device, self._options = device, options
        self.label = f"a worker on {device.device}"
        arguments = (for_device(options, device), their_orders, their_news)
        self.process = context.Process(target=_worker, args=arguments, daemon=True)
        with _interrupts_held():
            self.process.start()
        their_orders.close()
        their_news.close()

    def give(self, index: int, task: Task) -> None:
        self.order((index, task))

    def order(self, order: _Order) -> None:
        """Tell it what to do next."""
        with contextlib.suppress(OSError), _uninterrupted():  # it is dead, as its end of `news` will tell
            self._orders.send(order)

    def receive(self) -> Said | _Record:
        """Return what it says next."""
        try:
            message: Said | _Record = self.news.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self.died()
        return message

    def replacement(self) -> _Process:
        return _Process(self._device, self._options)

    def died(self) -> Died:
        """Return how it ended, when its end of `news` is closed."""
        self.process.join()
        self._orders.close()
        code = self.process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"was ended by {signal.Signals(-code).name}"
        return Died(how, for_memory=code == -getattr(signal, "SIGKILL", 9))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the end of the block, which must not be left half done."""
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for interruption in (signal.SIGINT, signal.SIGTERM):
                before[interruption] = signal.signal(interruption, lambda number, _frame: came.append(number))
        yield
    finally:
        for interruption, handler in before.items():
            signal.signal(interruption, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started meanwhile: a terminal sends it to all, and this one decides."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # else starting it would end what is held here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the worker's process.


def _worker(options: UpscaleOptions, orders: Connection, news: Connection) -> None:
    """Load the model, do the tasks that come, and end with the job; on SIGTERM, when what has begun is written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    office = _Office(orders, news)
    sender = Sender(office.send)
    try:
        serve(options, _OfficeJournals(office), office.tasks(), sender)
    except Terminated:
        sys.exit(TERMINATED)
    except Exception as error:
        with contextlib.suppress(OSError):
            sender.fatal(error)
    finally:
        news.close()


class _Office:
    """The other end: takes what this worker says, and gives it tasks.

    SIGTERM stops the main thread where it says something, and nowhere else: an exception in the midst of what it does
    with other threads could leave them waiting for each other.
    """

    def __init__(self, orders: Connection, news: Connection) -> None:
        self._orders, self._news = orders, news
        self._stopping = False
        self._sending = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[int, Task] | None] = queue.SimpleQueue()
        self._records: dict[int, Future[None]] = {}
        self._count = 0
        threading.Thread(target=self._hear, name="srup-orders", daemon=True).start()

    def send(self, message: Ready | News) -> None:
        """Send it. Raises Terminated in the main thread, after SIGTERM."""
        if threading.current_thread() is threading.main_thread():
            if isinstance(message, Ready):  # until now there was nothing to finish
                signal.signal(signal.SIGTERM, self._stop)
            if self._stopping:
                raise Terminated
        with self._sending:
            self._news.send(message)

    def tasks(self) -> Iterator[tuple[int, Task]]:
        """Yield tasks as they come."""
        while (order := self._tasks.get()) is not None and not self._stopping:
            yield order

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._tasks.put(None)

    def record(self, target: Place, key: str, status: os.stat_result) -> None:
        """Return when the output is in the journal. Raises OSError, or OutputError for a store."""
        waiting: Future[None] = Future()
        with self._sending:
            self._count += 1
            number = self._count
            self._records[number] = waiting
            self._news.send(_Record(number, target, key, status.st_size, status.st_mtime_ns))
        waiting.result()

    def _hear(self) -> None:
        """Take in orders until the other process ends; then this one ends as well."""
        try:
            while True:
                order: _Order = self._orders.recv()
                if isinstance(order, _Recorded):
                    waiting = self._records.pop(order.number)
                    waiting.set_exception(order.error) if order.error else waiting.set_result(None)
                else:
                    self._tasks.put(order)
                    if order is None:
                        return
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)
            for waiting in list(self._records.values()):
                waiting.set_exception(OutputError("the process that keeps the journal has ended"))


class _OfficeJournals(Journals):
    """Read the journals here, and let the other process write them."""

    def __init__(self, office: _Office) -> None:
        super().__init__()
        self._office = office

    def record(self, target: Place, key: str, finished: Path) -> None:
        self._office.record(target, key, finished.stat())
