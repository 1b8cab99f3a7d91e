"""Locks between processes (`filelock`), which the system gives back when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli.storage.places import state_folder

if TYPE_CHECKING:
    from filelock import FileLock  # imported where it is used: it costs start-up a tenth of a second


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = -1) -> Iterator[None]:
    """Hold the lock file `path` meanwhile, made with its folder if need be.

    `timeout_s` is how long to wait for another process, without end by default. Raises TimeoutError, and OSError
    where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout:
        raise TimeoutError(f"{path} is held by another process") from None
    try:
        yield
    finally:
        lock.release()


class Claims:
    """This process's claims on outputs: two processes on one folder do not do the same file twice.

    A claim is a lock file in the user's state folder, named after the output's path. Threads may share this object.
    If no lock can be made, every claim is granted.
    """

    def __init__(self) -> None:
        self._folder = state_folder() / "claims"
        self._guard = threading.Lock()
        self._held: dict[Path, FileLock] = {}
        self._closed = False

    def take(self, target: Path) -> bool:
        """Return whether `target` is ours to write now; False while another process has it, and after `close`."""
        from filelock import FileLock, Timeout

        place = os.path.join(os.path.realpath(target.parent), target.name)
        path = self._folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.lock"
        with self._guard:
            if self._closed:  # a reading thread that an interruption left running
                return False
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path, timeout=0, thread_local=False)
                lock.acquire()
            except Timeout:
                return False
            except OSError:
                return True
            self._held[target] = lock
        return True

    def release(self, target: Path) -> None:
        """Give a claim back."""
        with self._guard, contextlib.suppress(OSError):
            if (lock := self._held.pop(target, None)) is not None:
                _remove(lock)

    def close(self) -> None:
        """Give all claims back, and take no more."""
        with self._guard:
            self._closed = True
        for target in list(self._held):
            self.release(target)


def _remove(lock: FileLock) -> None:
    """Release a lock and remove its file.

    The file goes while it is still locked: whoever opened it before finds it unlinked once he has the lock, and
    tries again (filelock looks at the number of links).
    """
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
    lock.release()
