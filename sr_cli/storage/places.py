"""The folders of the program on this machine.

With `SRUP_HOME` set, all of them are that folder. Without it they are where the system keeps such things
(`platformdirs`): what the user added in the data folder, what can be downloaded again in the cache.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import platformdirs

_APP = "srup"


def data_folder() -> Path:
    """Return where the user's own manifest and weights are; it need not exist. Nothing in it is ever cleaned up."""
    return _override() or _moved(_standard("data"), "weights", "manifest.json")


def state_folder() -> Path:
    """Return where the journals of finished outputs and the claims on running ones are; it need not exist."""
    return _override() or _moved(_standard("state"), "journal")


def cache_folder() -> Path:
    """Return where data sets and decoded images are; it need not exist, and may be deleted at any time."""
    return _override() or _standard("cache")


def provide_home() -> None:
    """Give this process a home if it has none (a container's user without an entry): libraries of others need one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_homeless())
    import getpass

    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = "nobody"


def _override() -> Path | None:
    folder = os.environ.get("SRUP_HOME")
    if not folder:
        return None
    try:
        return Path(folder).expanduser()
    except RuntimeError:  # "~" without a home
        return _homeless() / "home"


def _standard(kind: Literal["data", "state", "cache"]) -> Path:
    """Return the folder that the system has for one of its kinds."""
    find: Callable[..., Path] = getattr(platformdirs, f"user_{kind}_path")
    try:
        path = find(_APP, appauthor=False)
    except RuntimeError:  # no home; older versions leave "~" in the path
        path = Path("~")
    return _homeless() / kind if path.parts[0] == "~" else path.absolute()


def _homeless() -> Path:
    """Return the folder of a user without a home: one below the temporary folder that nobody else can write to."""
    import tempfile

    owner = os.getuid() if sys.platform != "win32" else 0
    folder = Path(tempfile.gettempdir()) / f"{_APP}-{owner}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return folder  # whoever writes there says why it cannot be
    if sys.platform != "win32" and (
        not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o22
    ):
        return Path(tempfile.mkdtemp(prefix=f"{_APP}-"))  # another user was there first
    return folder


def _moved(folder: Path, *names: str) -> Path:
    """Return `folder`, after moving there what earlier versions kept in the cache; the old place if that fails."""
    old = _standard("cache")
    if old == folder:
        return folder
    for name in names:
        source = old / name
        files = [Path(root, file) for root, _, found in os.walk(source) for file in found] or [source]
        for path in files:
            target = folder / path.relative_to(old)
            if not os.path.isfile(path) or os.path.exists(target):
                continue
            try:
                _move(path, target)
            except OSError:
                if not os.path.exists(target):  # else another process was faster
                    return old
    return folder


def _move(path: Path, target: Path) -> None:
    """Move a file, to another disk as well; it is whole in one place at any moment. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copy2(path, temporary)
        temporary.replace(target)
        path.unlink(missing_ok=True)
