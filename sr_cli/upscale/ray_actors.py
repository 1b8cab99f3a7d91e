"""`--engine ray`: a batch on all machines of a Ray cluster, an actor for each GPU.

Actors are given names and say what becomes of them: no pixels go through Ray. Each has one `Worker`, and therefore one
model, and writes a journal of its own, as a shard does. Why these are Ray's actors and not Ray Data's: docs/scale.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from sr_cli import __version__
from sr_cli.errors import SrupError, UsageError
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.news import News, Ready, Sender
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.tally import Tally
from sr_cli.upscale.team import Died, Said, Team, check_shareable

_REACH_TIMEOUT_S = 10


@dataclass(frozen=True)
class Pool:
    """The actors that a cluster has room for."""

    size: int  #: How many.
    gpus: int  #: GPUs of each: 1 or 0.
    cpus: int  #: Cores that each reserves; 0 with a GPU.

    def __str__(self) -> str:
        room = "a GPU" if self.gpus else "1 core" if self.cpus == 1 else f"{self.cpus} cores"
        return f"{self.size} actors of Ray, each with {room}"


def choose_pool(devices: str | None, nodes: Sequence[tuple[int, int]]) -> Pool:
    """Choose the actors for `--devices` on nodes with so many cores and GPUs each.

    None: an actor for each GPU, or where there are none, for each node. Raises UsageError for what the cluster lacks.
    """
    gpus, cores = sum(gpu for _, gpu in nodes), [cpu for cpu, _ in nodes if cpu > 0]
    if devices == "all" and not gpus:
        raise UsageError("--devices all: the Ray cluster has no GPUs; cpu:N makes N actors on its cores")
    if gpus and devices in (None, "all"):
        return Pool(gpus, 1, 0)
    kind, _, number = (devices or f"cpu:{len(cores)}").partition(":")
    if kind != "cpu" or not number.isdecimal() or (devices and int(number) < 1):
        raise UsageError(f"--devices is all or cpu:N with --engine ray, not {devices!r}")
    count = int(number)
    if not 1 <= count <= sum(cores):
        raise UsageError(f"--engine ray: the cluster has {sum(cores)} cores, too few for {count or 1} actors")
    # The most that fits that many times: 2 nodes of 16 cores have room for 3 actors of 8, not of 10.
    share = next(share for share in range(max(cores), 0, -1) if sum(core // share for core in cores) >= count)
    return Pool(count, 0, share)


def run(tasks: Sequence[Task], options: UpscaleOptions, tally: Tally) -> None:
    """Do all tasks on a Ray cluster and report each result to the tally.

    Raises UsageError for standard input or output and for a cluster that cannot be had, what an actor says of the whole
    job (WeightsError, say), and SrupError where no actor can be started.
    """
    check_shareable(tasks, "--engine ray")
    with _cluster(options.address, lambda line: tally.message("detail", line)) as nodes:
        pool = choose_pool(options.devices, nodes)
        tally.message("detail", str(pool))
        theirs = replace(options, address=None, devices=None)
        if pool.cpus:
            theirs = replace(theirs, threads=options.threads or pool.cpus)
        team = Team(tasks, tally, _listen)
        try:
            for _ in range(min(pool.size, len(tasks))):
                team.add(_Member(pool, theirs))
            team.work()
        finally:
            for member in team.members:
                member.kill()


class _Member:
    """An actor, as this process sees it; a `Member` of the team."""

    label = "an actor of Ray"

    def __init__(self, pool: Pool, options: UpscaleOptions) -> None:
        """Start one wherever there is room; Ray must neither restart it nor repeat its calls."""
        import ray

        self._pool, self._options = pool, options
        kind: Any = ray.remote(num_gpus=pool.gpus, num_cpus=pool.cpus, max_restarts=0, max_task_retries=0)(Actor)
        # One thread says what happens, another takes tasks.
        self._actor = kind.options(max_concurrency=2).remote(options, __version__, str(Path.cwd()))
        self.news: Any = self._actor.news.options(num_returns="streaming").remote()

    def give(self, index: int, task: Task) -> None:
        self._actor.give.remote(index, task)

    def replacement(self) -> _Member:
        return _Member(self._pool, self._options)

    def kill(self) -> None:
        """Kill it."""
        import ray

        ray.kill(self._actor)


def _listen(members: Sequence[_Member]) -> Iterator[tuple[_Member, Said]]:
    """Wait for the next messages of actors, and yield them."""
    import ray
    from ray.exceptions import RayActorError, RayError

    by_news: dict[Any, _Member] = {member.news: member for member in members}
    ready: list[Any]
    ready, _ = ray.wait(list(by_news), num_returns=1)
    for news in ready:
        try:
            said: list[Said] = ray.get(next(news))
        except (RayActorError, StopIteration) as error:
            said = [Died(_how(error), for_memory=True)]
        except RayError as error:
            raise SrupError(f"Ray: {_last_line(error)}") from error
        for item in said:
            yield by_news[news], item


def _how(error: BaseException) -> str:
    """Describe how an actor died: by an error of its own (such as srup not installed there), or killed."""
    errors = re.findall(r"^\w+(?:Error|Exception): .+", str(error), re.MULTILINE)
    return f"died ({errors[-1]})" if errors else "died"


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


# The cluster, as this process sees it.


@contextlib.contextmanager
def _cluster(address: str | None, hear: Callable[[str], None]) -> Iterator[list[tuple[int, int]]]:
    """Connect to a cluster, or start one here; give cores and GPUs of each of its nodes. Raises UsageError.

    `hear` gets the lines that Ray prints meanwhile. A cluster that this process is connected to already is used, and
    left as it is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes to its makers
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs a package that is not installed: pip install 'srup[ray]'") from None
    if ray.is_initialized():
        yield _nodes()
        return
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    # Ray's threads, which tell of dead actors, are kept from standard output, where results in JSON go.
    filtered: Any = _Filtered(sys.stdout, hear)
    with contextlib.redirect_stdout(filtered):
        try:
            with _same_signals():
                ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # Ray has no class for what goes wrong here
            raise UsageError(f"--engine ray: no cluster at {address or 'this machine'}: {_last_line(error)}") from error
        try:
            yield _nodes()
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise UsageError where nothing listens at `HOST:PORT`; Ray itself would retry for minutes and print lines."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--engine ray: no cluster at {address}: {error}; check --address") from None


def _nodes() -> list[tuple[int, int]]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    return [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Keep what SIGTERM does, which `ray.init` changes."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Filtered:
    """A stream whose writers among Ray's threads are heard instead."""

    def __init__(self, stream: TextIO, hear: Callable[[str], None]) -> None:
        self._stream, self._hear = stream, hear

    def write(self, text: str) -> int:
        """Write text, or let it be heard, line by line."""
        if not threading.current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        for line in text.splitlines():
            if line.strip():
                self._hear(line.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


# In an actor's process.


class Actor:
    """Does tasks with one worker, in a thread of its own."""

    def __init__(self, options: UpscaleOptions, version: str, folder: str) -> None:
        """Take the options, and the version and working folder of the process that has the job."""
        self._options, self._version, self._folder = options, version, folder
        self._tasks: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[Ready | News] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="srup-work", daemon=True).start()

    def give(self, index: int, task: Task) -> None:
        """Take a task."""
        self._tasks.put((index, task))

    def news(self) -> Iterator[list[Ready | News]]:
        """Yield what is said, for as long as the actor lives; at once, but all that has piled up together."""
        while True:
            said = [self._news.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    said.append(self._news.get_nowait())
            yield said

    def _coming(self) -> Iterator[tuple[int, Task]]:
        while True:
            yield self._tasks.get()

    def _work(self) -> None:
        sender = Sender(self._news.put)
        try:
            if self._version != __version__:
                raise UsageError(f"--engine ray: srup {__version__} is on a node of the cluster, {self._version} here")
            with contextlib.suppress(OSError):  # paths of the other process mean the same where the folder is shared
                os.chdir(self._folder)
            from sr_cli.upscale.worker import serve

            serve(self._options, Journals.of(self._options), self._coming(), sender)
        except Exception as error:
            sender.fatal(error)
