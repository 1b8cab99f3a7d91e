"""Who works on what: two processes on one folder do not do the same file twice.

A claim is a lock on one byte of one file in the user's cache, the byte chosen by the output's path. The system
gives it back when its process ends, however it ends: there are no stale claims and nothing to clean up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from sr_cli import locks
from sr_cli.weights.manifest import home


class Claims:
    """This process's claims on outputs. Where there is no place for locks, every claim is granted."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._file: int | None = None
        with contextlib.suppress(OSError):  # a home that cannot be written to: then alone, as far as we know
            home().mkdir(parents=True, exist_ok=True)
            self._file = os.open(home() / "claims.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, target: Path) -> bool:
        """Whether `target` is ours to write now; False while another process has it."""
        if self._file is None:
            return True
        with self._guard:
            return locks.lock(self._file, _offset(target))

    def release(self, target: Path) -> None:
        """Gives a claim back."""
        if self._file is not None:
            with self._guard, contextlib.suppress(OSError):
                locks.unlock(self._file, _offset(target))

    def close(self) -> None:
        """Gives all claims back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _offset(target: Path) -> int:
    place = os.path.join(os.path.realpath(target.parent), target.name)
    return int.from_bytes(hashlib.sha256(os.fsencode(place)).digest()[:8], "big") >> 2
