"""`--devices`: one process a device, all fed from one queue; this process keeps the journal and reports.

A worker has at most `IN_HAND` tasks, so that it reads ahead and writes behind as a single one does. Before an output
gets its name the worker asks here for its line in the journal. A worker that dies is replaced; each task that it had is
tried once more, alone in a worker's hands, so that only what killed it twice is reported. An interruption lets
workers finish what they are writing.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from sr_cli.errors import INTERNAL_ERROR, TERMINATED, OutOfMemory, OutputError, SrupError, Terminated, UsageError
from sr_cli.inference import WorkerDevice
from sr_cli.storage import Place
from sr_cli.upscale.events import ImageResult, Kind
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.tally import Tally

IN_HAND = 6
"""Tasks that a worker has at once: one in the network, some that are read ahead, some that are being written."""
ATTEMPTS = 2
"""How often a task may be in the hands of a worker that dies."""


# What a worker says.


@dataclass(frozen=True)
class _Ready:
    """The model is loaded; tasks can come."""


@dataclass(frozen=True)
class _Said:
    """A call of the tally's method `name`."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Record:
    """An output is complete and waits for its line in the journal."""

    number: int
    target: Place
    key: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class _Fatal:
    """An error that concerns the whole job."""

    error: Exception


# What a worker is told: a task with its position, the end of all tasks, or that a line is in the journal.


@dataclass(frozen=True)
class _Recorded:
    number: int
    error: Exception | None


_Order = tuple[int, Task] | _Recorded | None


def run(
    tasks: Sequence[Task],
    devices: Sequence[WorkerDevice],
    options: UpscaleOptions,
    journals: Journals,
    tally: Tally,
) -> None:
    """Do all tasks in processes of their own, and tell the tally.

    Raises UsageError for standard input or output, what a worker says of the whole job (WeightsError, say), and
    SrupError where no worker can be started.
    """
    if any(task.source is None or task.target is None for task in tasks):
        raise UsageError("--devices: standard input and output can only be used by one process; leave --devices out")
    team = _Team(tasks, options, journals, tally)
    try:
        for device in devices[: len(tasks)]:
            team.hire(device)
        team.work()
    except BaseException:
        team.dismiss()
        raise


@dataclass(eq=False)
class _Employed:
    """A worker's process as this one sees it."""

    device: WorkerDevice
    process: multiprocessing.process.BaseProcess
    orders: Connection
    news: Connection
    ready: bool = False
    in_hand: set[int] = field(default_factory=set)

    def order(self, order: _Order) -> None:
        with contextlib.suppress(OSError):  # it is dead, as its end of `news` will tell
            self.orders.send(order)


class _Team:
    """The workers and the queue of tasks."""

    def __init__(self, tasks: Sequence[Task], options: UpscaleOptions, journals: Journals, tally: Tally) -> None:
        self._tasks, self._options, self._journals, self._tally = tasks, options, journals, tally
        self._waiting = deque(range(len(tasks)))
        self._suspects: deque[int] = deque()
        """Were in the hands of a worker that died."""
        self._deaths: dict[int, int] = {}
        self._workers: list[_Employed] = []

    def hire(self, device: WorkerDevice) -> None:
        """Start a worker."""
        context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        their_orders, orders = context.Pipe(duplex=False)
        news, their_news = context.Pipe(duplex=False)
        threads = self._options.threads or device.threads
        options = replace(self._options, devices=None, device=device.device, threads=threads)
        process = context.Process(target=_worker, args=(options, their_orders, their_news), daemon=True)
        with _interrupts_held():
            process.start()
        their_orders.close()
        their_news.close()
        self._workers.append(_Employed(device, process, orders, news))

    def work(self) -> None:
        """Do all tasks. Raises SrupError where no worker is left, and what a worker raises for the whole job."""
        while len(self._tally.results) < len(self._tasks):
            if not self._workers:
                raise SrupError("no worker process could be started; --devices with fewer may leave enough memory")
            for worker in self._listen():
                self._lose(worker)
            for worker in self._workers:
                self._hand_out(worker)
        for worker in self._workers:
            worker.order(None)
        for worker in self._workers:
            worker.process.join()
            worker.orders.close()

    def dismiss(self) -> None:
        """End all workers; what they are writing is finished and counted. A second interruption kills them."""
        try:
            for worker in self._workers:
                worker.process.terminate()
            while self._workers:
                for worker in self._listen(ending=True):
                    self._workers.remove(worker)
                    worker.process.join()
        except BaseException:
            for worker in self._workers:
                worker.process.kill()
            raise

    def _listen(self, ending: bool = False) -> list[_Employed]:
        """Take in what workers say next; return those that died. Raises the error of a whole job unless `ending`."""
        by_news = {worker.news: worker for worker in self._workers}
        dead = []
        for news in connection.wait(list(by_news)):
            worker = by_news[news]  # type: ignore[index]
            try:
                message = worker.news.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                dead.append(worker)
                continue
            if isinstance(message, _Fatal) and not ending:
                raise message.error
            self._take_in(worker, message)
        return dead

    def _take_in(self, worker: _Employed, message: Any) -> None:
        if isinstance(message, _Ready):
            worker.ready = True
        elif isinstance(message, _Said):
            getattr(self._tally, message.name)(*message.arguments)
            if message.name == "finished":
                worker.in_hand.discard(message.arguments[0])
        elif isinstance(message, _Record):
            error: Exception | None = None
            try:
                self._journals.append(message.target, message.key, message.size, message.mtime_ns)
            except (OSError, SrupError) as problem:
                error = problem
            worker.order(_Recorded(message.number, error))

    def _hand_out(self, worker: _Employed) -> None:
        """Give a worker what it has room for; a suspect only alone."""
        if not worker.ready:
            return
        if self._suspects:
            if not worker.in_hand:
                self._give(worker, self._suspects.popleft())
            if not self._waiting or worker.in_hand & self._deaths.keys():
                return
        if worker.in_hand & self._deaths.keys():
            return
        while self._waiting and len(worker.in_hand) < IN_HAND:
            self._give(worker, self._waiting.popleft())

    def _give(self, worker: _Employed, index: int) -> None:
        worker.in_hand.add(index)
        worker.order((index, self._tasks[index]))

    def _lose(self, worker: _Employed) -> None:
        """Replace a worker that died; its tasks are tried once more, or reported."""
        self._workers.remove(worker)
        worker.process.join()
        worker.orders.close()
        how = _cause(worker.process.exitcode)
        if not worker.ready:
            self._tally.message("note", f"a worker on {worker.device.device} {how} while it started; it is left out")
            return
        for index in sorted(worker.in_hand):
            self._deaths[index] = self._deaths.get(index, 0) + 1
            if self._deaths[index] < ATTEMPTS:
                self._suspects.append(index)
            else:
                self._tally.finished(index, self._failed(index, how, worker.process.exitcode))
        self._tally.message("detail", f"a worker on {worker.device.device} {how}; it is replaced")
        if self._waiting or self._suspects:
            self.hire(worker.device)

    def _failed(self, index: int, how: str, exit_code: int | None) -> ImageResult:
        task = self._tasks[index]
        killed = exit_code == -getattr(signal, "SIGKILL", 9)
        hint = ", perhaps for want of memory" if killed else ""
        error = f"{task.shown_source}: a worker process {how} {ATTEMPTS} times while it worked on it{hint}"
        code = OutOfMemory.exit_code if killed else INTERNAL_ERROR
        return ImageResult(task.shown_source, task.shown_target, "failed", error=error, exit_code=code)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


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
    """Load the model, do the tasks that come, and end with the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    office = _Office(orders, news)
    try:
        from sr_cli.upscale.worker import Worker, make_upscaler

        upscaler = make_upscaler(options)
        office.send(_Ready())
        Worker(options, _OfficeJournals(office), several=True, upscaler=upscaler).work(office.tasks(), office)
    except Terminated:
        sys.exit(TERMINATED)
    except Exception as error:
        with contextlib.suppress(OSError):
            office.send(_Fatal(_portable(error)))
    finally:
        news.close()


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same and can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Office:
    """The other end: hears from this worker, as a `Listener`, and sends it tasks."""

    def __init__(self, orders: Connection, news: Connection) -> None:
        self._orders, self._news = orders, news
        self._sending = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[int, Task] | None] = queue.SimpleQueue()
        self._records: dict[int, Future[None]] = {}
        self._count = 0
        threading.Thread(target=self._hear, name="srup-orders", daemon=True).start()

    def send(self, message: Any) -> None:
        with self._sending:
            self._news.send(message)

    def started(self, index: int) -> None:
        self.send(_Said("started", (index,)))

    def progress(self, index: int, done: int, total: int) -> None:
        self.send(_Said("progress", (index, done, total)))

    def finished(self, index: int, result: ImageResult) -> None:
        self.send(_Said("finished", (index, result)))

    def message(self, kind: Kind, text: str) -> None:
        self.send(_Said("message", (kind, text)))

    def tasks(self) -> Iterator[tuple[int, Task]]:
        """Yield tasks as they come."""
        while (order := self._tasks.get()) is not None:
            yield order

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
    """Reads the journals itself; what it notes is written by the other process."""

    def __init__(self, office: _Office) -> None:
        super().__init__()
        self._office = office

    def record(self, target: Place, key: str, finished: Path) -> None:
        self._office.record(target, key, finished.stat())
