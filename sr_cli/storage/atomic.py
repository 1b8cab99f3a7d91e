"""A file appears under its name complete or not at all, and never in another's place unless that was asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from sr_cli.errors import OutputError, reason_of

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".srup-", ".part"

_LOST_DATA = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
_FORBIDDEN = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)}
"""What FAT, exFAT, NTFS and network shares do not take in a name."""


def is_temporary(path: Path) -> bool:
    """Tell whether this is one of our unfinished files (left behind only by a killed process)."""
    return path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(TEMPORARY_SUFFIX)


@contextlib.contextmanager
def atomic_output(
    target: Path, *, overwrite: bool = False, placing: Callable[[Path], None] | None = None
) -> Iterator[BinaryIO]:
    """Give a temporary file next to `target`, renamed to it at the end; removed if anything goes wrong.

    `placing` is called with the temporary file's path when it is complete, just before it gets its name.
    The temporary name ends in no image suffix, so no pattern picks it up. Raises OutputError for every failure of the
    file system; other exceptions from inside pass through.
    """
    if not overwrite and os.path.lexists(target):
        raise _exists(target)
    if os.path.isdir(target):
        raise OutputError(f"{target}: is a folder, not a file to write")
    temporary = target.parent / _temporary_name()
    try:
        with temporary.open("xb") as file:
            hold(file.fileno())
            yield file
            file.flush()
            sync(file.fileno())
        if placing is not None:
            placing(temporary)
        _place(temporary, target, overwrite)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error, target)}") from error
    finally:
        with contextlib.suppress(OSError):  # renamed already, or the folder is gone: nothing left to remove
            temporary.unlink()


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whose folder is made if need be, or leave what was there. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent}: {reason_of(error)}") from error
    with atomic_output(path, overwrite=True) as file:
        file.write(data)


def sync(descriptor: int) -> None:
    """Bring a file's content onto the disk. Raises OSError where content is lost, not where there is no such call."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _LOST_DATA:  # network shares answer EINVAL, ENOSYS, ENOTSUP and others to the call itself
            raise


def check_name(target: Path) -> None:
    """Raise OutputError if the file system can certainly not hold a file of this name."""
    folder, missing = target.parent, [target.name]
    while not os.path.isdir(folder) and folder != folder.parent:
        missing.append(folder.name)
        folder = folder.parent
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, ValueError, OSError):
        longest = 255
    for name in missing:
        if _length(name) > longest:
            raise OutputError(f"{target}: cannot be written: the name is too long, {longest} bytes are allowed")
        if os.name == "nt" and PureWindowsPath(name).is_reserved():
            raise OutputError(f"{target}: cannot be written: Windows keeps the name {name} for itself")
    try:
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        _try_characters(target, folder, "".join(missing))
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error, target)}") from error


def _try_characters(target: Path, folder: Path, names: str) -> None:
    """Raise OutputError if `folder` refuses characters in `names` that some file systems forbid.

    No call tells which ones do: it takes an empty file with those characters, which is removed at once.
    """
    strange = "".join(sorted(_FORBIDDEN.intersection(names)))
    if not strange or not os.access(folder, os.W_OK):
        return
    probe = folder / f"{_temporary_name().removesuffix(TEMPORARY_SUFFIX)}{strange}{TEMPORARY_SUFFIX}"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written: this disk does not take names with one of {' '.join(strange)} "
            f"({reason_of(error)}); choose another with --name"
        ) from error


def _length(name: str) -> int:
    """Return how long a name is as the file system counts: bytes on Linux, UTF-16 units elsewhere."""
    return len(os.fsencode(name)) if sys.platform == "linux" else len(name.encode("utf-16-le", "surrogatepass")) // 2


def _temporary_name() -> str:
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(6).hex()}{TEMPORARY_SUFFIX}"


def remove_leftovers(folder: Path, *, older_than_s: float = 60) -> None:
    """Remove what killed processes left unfinished in a folder; never what a living one is writing."""
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

    def hold(descriptor: int) -> None:
        """Do nothing: an open file cannot be removed there."""

    def _remove_unless_held(path: Path) -> None:
        path.unlink()

else:
    import fcntl

    def hold(descriptor: int) -> None:
        """Mark a file as being written, until it is closed or its process ends, however it ends."""
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
    """Give the finished file its name. Without `overwrite` a file that appeared meanwhile wins."""
    if overwrite:
        temporary.replace(target)
    else:
        try:
            _rename_exclusive(temporary, target)
        except FileExistsError:
            raise _exists(target) from None
    if os.name == "posix":  # the new name itself must survive a power cut, too
        with contextlib.suppress(OSError):  # a folder that cannot be opened or synced: the file is there all the same
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _rename_exclusive(temporary: Path, target: Path) -> None:
    """Rename, raising FileExistsError rather than replacing anything."""
    if os.name == "nt":
        temporary.rename(target)  # never replaces on Windows
        return
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (memory cards, phones, network shares): claim the name with an empty file, then fill it.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _reason(error: OSError | ValueError, target: Path) -> str:
    """Return what to tell the user about a failure of the file system."""
    if isinstance(error, ValueError):  # a NUL, or what no file system's encoding has
        return str(error)
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to write in this folder"
    if error.errno == errno.EROFS:
        return "the disk is read-only"
    if error.errno == errno.ENOENT:
        return f"the folder {target.parent} does not exist"
    return reason_of(error)
