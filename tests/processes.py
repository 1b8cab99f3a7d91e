"""`srup` in a process of its own: a plain one, or one that is forked from a process where torch is imported already.

Importing torch takes seconds of processor time. Where a test is about what a process does (its signals, its exit code,
what a kill leaves) and not about how it starts, `Forked` saves them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from tests import networks

ROOT = Path(__file__).resolve().parents[1]
SRUP = (sys.executable, "-m", "sr_cli")
"""The command line in a new process; conftest lets it find the package."""

FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir")
"""What Python's audit hooks say of the file system: the moments at which runs are killed."""

_PRELOADED = [
    *("sr_cli.__main__", "sr_cli.cli", "sr_cli.training.job", "sr_cli.upscale.batch"),
    *("torchvision", "tests.processes", "pytest"),
]
"""Nothing that reads the environment when it is imported, as huggingface_hub does."""


def die_at_file_event(number: int | None, sent: int, count: Path) -> None:
    """Let this process send itself a signal at its n-th file event, and note in a file how many there were."""
    events = itertools.count(1)
    noted = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def moment(_event: str, _arguments: tuple[object, ...]) -> bool:
        event = next(events)  # threads share it: a count that another one raises meanwhile would never be equal
        os.pwrite(noted, str(event).encode(), 0)
        return event == number

    _signal_at(moment, sent)


def die_at_output(number: int, sent: int) -> None:
    """Let this process send itself a signal when the n-th photo gets its name."""
    outputs = itertools.count(1)

    def moment(event: str, arguments: tuple[object, ...]) -> bool:
        placed = event in ("os.rename", "os.link")
        return placed and str(arguments[1]).endswith((".png", ".jpg", ".webp", ".tif")) and next(outputs) == number

    _signal_at(moment, sent)


def die_after_saving(saves: int, file_events: int) -> None:
    """Let this process, a run of tiny networks, kill itself so many file events after so many checkpoints."""
    networks.use_tiny_presets()
    saved, passed = 0, 0

    def moment(event: str, arguments: tuple[object, ...]) -> bool:
        nonlocal saved, passed
        passed += saved >= saves
        saved += event == "os.rename" and str(arguments[1]).endswith("pixel.last.safetensors")
        return passed > file_events

    _signal_at(moment, signal.SIGKILL)


def _signal_at(moment: Callable[[str, tuple[object, ...]], bool], sent: int) -> None:
    """Send this process a signal at the first file event (its name and arguments) for which `moment` is true."""
    process, done = os.getpid(), False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        # A process that is forked from it has the hook as well.
        if event in FILE_EVENTS and not done and os.getpid() == process and moment(event, arguments):
            done = True
            os.kill(process, sent)

    sys.addaudithook(hook)


class Forked:
    """`srup` in a process that is forked where torch is imported already; what it prints can be read meanwhile.

    `prepare`, a function of a module, is called in the process before `srup` begins.
    """

    _context = multiprocessing.get_context("forkserver") if os.name == "posix" else multiprocessing.get_context()

    def __init__(self, *arguments: object, cwd: Path | None = None, prepare: Callable[[], None] | None = None) -> None:
        self._context.set_forkserver_preload(_PRELOADED)
        self._errors = tempfile.NamedTemporaryFile("r", errors="replace")  # noqa: SIM115
        reading, writing = self._context.Pipe(duplex=False)
        words = [str(argument) for argument in arguments]
        start = (words, cwd or Path.cwd(), dict(os.environ), prepare, writing, self._errors.name)
        self._process = self._context.Process(target=_run, args=start)
        self._process.start()
        writing.close()
        self.stdout = open(os.dup(reading.fileno()), errors="replace")  # noqa: SIM115
        reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process if it still runs."""
        self._process.kill()
        self._process.join()
        self.stdout.close()
        self._errors.close()

    def event(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for an event of `--json-lines`."""
        for line in self.stdout:
            if wanted(event := json.loads(line)):
                return event
        raise AssertionError(f"ended with {self.wait()}: {self.stderr()}")

    def send_signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to all of the group that it leads."""
        assert self._process.pid is not None
        (os.killpg if group else os.kill)(self._process.pid, number)

    def wait(self) -> int:
        """Read what it still prints, and return its exit code, negative for the signal that it died of."""
        self.stdout.read()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def stderr(self) -> str:
        """Return what it has printed on standard error."""
        self._errors.seek(0)
        return self._errors.read()


def _run(
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
    output: Connection,
    errors: str,
) -> None:
    """Be `srup` with these arguments, folder, environment and streams."""
    streams = (os.open(os.devnull, os.O_RDONLY), output.fileno(), os.open(errors, os.O_WRONLY))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    output.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # else what it starts is forked like itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["srup", *arguments]
    if prepare is not None:
        prepare()
    from sr_cli.__main__ import main

    main()
