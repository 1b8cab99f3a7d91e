"""Entry point and error boundary: every way out of the program, and its exit code, is here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from sr_cli.errors import INTERNAL_ERROR, INTERRUPTED, TERMINATED, Interrupted, SrupError, Terminated


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    from typer.exceptions import Abort, TyperException

    from sr_cli.cli import app
    from sr_cli.cli.console import printable, say

    show_traceback = "--traceback" in arguments
    arguments = [a for a in arguments if a != "--traceback"]

    def fail(message: str, prefix: str = "srup: error: ") -> None:
        line = " ".join(printable(part) for part in message.split("\n") if part.strip())
        say(prefix + line, sys.stderr)

    try:
        result = app(args=arguments, prog_name="srup", standalone_mode=False)
    except Interrupted as stopped:
        fail(str(stopped), "srup: ")
        return stopped.exit_code
    except SrupError as error:
        if show_traceback:
            raise
        fail(str(error))
        return error.exit_code
    except TyperException as error:
        message = error.format_message()
        # A bare `srup` prints its help by raising an error without a message.
        if message:
            fail(f"{message} (see srup --help)")
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        fail("interrupted", "srup: ")
        return INTERRUPTED
    except Terminated:
        fail("terminated", "srup: ")
        return TERMINATED
    except BrokenPipeError:
        # The reader of our output has gone: nothing left to say, and Python must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if show_traceback:
            raise
        fail(f"internal error: {type(error).__name__}: {error}; --traceback shows where, please report it")
        return INTERNAL_ERROR
    if result == INTERRUPTED:
        fail("interrupted", "srup: ")
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """The `srup` script."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    # Torch reads this when it first allocates: large pages cost a twentieth less time (docs/speed.md).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the boundary in `run` was up
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    for late in (signal.SIGINT, signal.SIGTERM):
        signal.signal(late, signal.SIG_IGN)  # all is done: what is left of the interpreter ends by itself
    sys.exit(code)


if __name__ == "__main__":
    main()
