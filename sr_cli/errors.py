"""Errors a user can act on, each with the exit code that the command line documents.

A message is one line that says what went wrong, where, and what to do about it.
Anything that is not a `SrupError` is a defect of ours and ends with exit code 70.
"""

INTERNAL_ERROR = 70
INTERRUPTED = 130  #: By Ctrl-C (SIGINT).
TERMINATED = 143  #: By SIGTERM.


def reason_of(error: Exception) -> str:
    """Return what went wrong, without the path that an OSError repeats and its number."""
    return getattr(error, "strerror", None) or str(error)


class SrupError(Exception):
    """Base of all errors meant for the user. `exit_code` is what the process returns."""

    exit_code = 1


class Terminated(BaseException):
    """SIGTERM, raised as an exception so that temporary files are removed on the way out."""


class Interrupted(SrupError):
    """A job was stopped by Ctrl-C or SIGTERM; the message says how far it came and how to resume it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(SrupError, ValueError):
    """An option, an output suffix or a device that cannot be used as given."""

    exit_code = 2


class InputError(SrupError):
    """An input is missing or cannot be read."""

    exit_code = 3


class WeightsError(SrupError):
    """Weights are unknown, unavailable, or fail verification."""

    exit_code = 4


class OutOfMemory(SrupError):
    """The work does not fit into memory, even with the smallest tile."""

    exit_code = 5


class OutputError(SrupError):
    """The output cannot be written: it exists, is read-only, or the disk is full."""

    exit_code = 6


class DivergedError(SrupError):
    """Training produced too many non-finite losses."""

    exit_code = 7
