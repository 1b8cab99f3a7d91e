"""Entry point and error boundary: every way out of the program, and its exit code, is here."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn, TextIO

from sr_cli.errors import INTERNAL_ERROR, INTERRUPTED, TERMINATED, Interrupted, SrupError, Terminated, UsageError


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def prepare_streams() -> None:
    """Make the three standard streams usable, whatever the caller left of them.

    A stream that was closed becomes the null device, under its own descriptor: else the first file that is opened gets
    that number, and what some library prints to it lands in a picture. A character that a stream's encoding lacks is
    written as an escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their descriptors
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: nobody reads it, and Python must not try again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    show_traceback = "--traceback" in arguments
    try:
        return _call([argument for argument in arguments if argument != "--traceback"])
    except BrokenPipeError:
        # The reader of our output has gone: nothing left to say, and Python must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if show_traceback and not isinstance(error, Interrupted):
            raise
        return _fail(error)
    except (KeyboardInterrupt, Terminated) as signalled:
        return _fail(signalled)


def _call(arguments: list[str]) -> int:
    """Call the command that is asked for. Raises its errors, and UsageError for one that cannot be parsed."""
    from typer.exceptions import Abort, TyperException

    from sr_cli.cli import app

    try:
        result = app(args=arguments, prog_name="srup", standalone_mode=False)
    except TyperException as error:
        message = error.format_message()
        # A bare `srup` prints its help by raising an error without a message.
        if not message:
            return error.exit_code
        raise UsageError(f"{message.rstrip('.')} (see srup --help)") from error
    except Abort:
        raise KeyboardInterrupt from None
    if result == INTERRUPTED:  # Typer's word for a KeyboardInterrupt
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _fail(error: BaseException) -> int:
    """Say in one line what ended the program; return the exit code."""
    from sr_cli.cli.console import printable, say

    prefix = "srup: error: "
    if isinstance(error, Interrupted | KeyboardInterrupt | Terminated):
        prefix = "srup: "
    if isinstance(error, SrupError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", INTERRUPTED
    elif isinstance(error, Terminated):
        message, code = "terminated", TERMINATED
    else:
        message = f"internal error: {type(error).__name__}: {error}; --traceback shows where, please report it"
        code = INTERNAL_ERROR
    line = " ".join(printable(part) for part in message.split("\n") if part.strip())
    say(prefix + line, sys.stderr)
    return code


def main() -> NoReturn:
    """Run the `srup` script."""
    prepare_streams()
    if not ({"HOME", "USERPROFILE"} & os.environ.keys() and {"USER", "LOGNAME", "USERNAME"} & os.environ.keys()):
        from sr_cli.storage import provide_home  # not before it is needed: `--help` is quick

        provide_home()
    warnings.filterwarnings("ignore", module=r"PIL\b")  # what matters of them is an error of ours
    signal.signal(signal.SIGTERM, _raise_terminated)
    # Torch reads this when it first allocates: large pages cost a twentieth less time (docs/speed-log.md).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the boundary in `run` was up
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _abandon(stream)
    for late in (signal.SIGINT, signal.SIGTERM):
        signal.signal(late, signal.SIG_IGN)  # all is done: what is left of the interpreter ends by itself
    sys.exit(code)


if __name__ == "__main__":
    main()
