"""Locks on single bytes of a file, which the system gives back when their process ends, however it ends.

They hold between processes, not between threads: a process may take a byte that it already has.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int, offset: int = 0) -> bool:
        os.lseek(descriptor, offset, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        except OSError:
            return True
        return True

    def unlock(descriptor: int, offset: int = 0) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(descriptor: int, offset: int = 0) -> bool:
        """Takes a byte of a file open for writing; False while another process has it. A file system without
        locks grants everything."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes (POSIX fcntl)
            return False
        except OSError:
            return True
        return True

    def unlock(descriptor: int, offset: int = 0) -> None:
        """Gives a byte back."""
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
