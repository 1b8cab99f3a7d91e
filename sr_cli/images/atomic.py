"""A file appears under its name complete or not at all, and never in another's place unless that was asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sr_cli.errors import OutputError

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".srup-", ".part"


def is_temporary(path: Path) -> bool:
    """Whether this is one of our unfinished files (left behind only by a killed process)."""
    return path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(TEMPORARY_SUFFIX)


@contextlib.contextmanager
def atomic_output(
    target: Path, *, overwrite: bool = False, placing: Callable[[Path], None] | None = None
) -> Iterator[BinaryIO]:
    """A temporary file beside `target`, renamed to it at the end; removed if anything goes wrong.

    `placing` is called with the temporary file's path when it is complete, just before it gets its name.
    The temporary name ends in no image suffix, so no pattern picks it up. Raises OutputError for every failure of the
    file system; other exceptions from inside pass through.
    """
    if not overwrite and os.path.lexists(target):
        raise _exists(target)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, not a file to write")
    temporary = target.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as file:
            _hold(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        if placing is not None:
            placing(temporary)
        _place(temporary, target, overwrite)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error, target)}") from error
    finally:
        with contextlib.suppress(OSError):  # renamed already, or the folder is gone: nothing left to remove
            temporary.unlink()


def remove_leftovers(folder: Path, *, older_than_s: float = 60) -> None:
    """Removes what killed processes left unfinished in a folder; never what a living one is writing."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if not is_temporary(path) or f"{TEMPORARY_PREFIX}{os.getpid()}-" in path.name:
                continue
            with contextlib.suppress(OSError):  # held, gone already, or not ours to remove
                # The age covers the moments before a file is held and after it is closed.
                if time.time() - entry.stat(follow_symlinks=False).st_ctime >= older_than_s:
                    _remove_unless_held(path)


if sys.platform == "win32":

    def _hold(descriptor: int) -> None:
        pass  # an open file cannot be removed there

    def _remove_unless_held(path: Path) -> None:
        path.unlink()

else:
    import fcntl

    def _hold(descriptor: int) -> None:
        """Marks a file as being written, until it is closed or its process ends, however it ends."""
        with contextlib.suppress(OSError):  # a file system without locks: leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _remove_unless_held(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _exists(target: Path) -> OutputError:
    return OutputError(f"{target}: already exists; choose another name or pass --overwrite")


def _place(temporary: Path, target: Path, overwrite: bool) -> None:
    """Gives the finished file its name. Without `overwrite` a file that appeared meanwhile wins."""
    if overwrite:
        temporary.replace(target)
    else:
        try:
            _rename_exclusive(temporary, target)
        except FileExistsError:
            raise _exists(target) from None
    if os.name == "posix":  # the new name itself must survive a power cut, too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems refuse to sync a folder
                os.fsync(folder)
        finally:
            os.close(folder)


def _rename_exclusive(temporary: Path, target: Path) -> None:
    """Renames, raising FileExistsError rather than replacing anything."""
    if os.name == "nt":
        temporary.rename(target)  # never replaces on Windows
        return
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        # No hard links here (FAT on a memory card): claim the name with an empty file, then fill it at once.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        temporary.replace(target)


def _reason(error: OSError, target: Path) -> str:
    """What to tell the user about a failure of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to write in this folder"
    if error.errno == errno.EROFS:
        return "the disk is read-only"
    if error.errno == errno.ENOENT:
        return f"the folder {target.parent} does not exist"
    return error.strerror or str(error)
