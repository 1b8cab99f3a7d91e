"""Archives of images, which may be damaged or hostile, unpacked."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from sr_cli import storage
from sr_cli.datasets.pairs import SUFFIXES
from sr_cli.errors import InputError, reason_of


def unpack(archive: Path, target: Path, limit: int) -> int:
    """Unpack the images of a zip or tar archive into one new folder, by their bare names; return their number.

    Refuses, before anything is written, a member whose path leads elsewhere, a link or device, two images
    of one name, and more than `limit` bytes in all. Other files are left out. Raises InputError.
    """
    try:
        with _members(archive, limit) as members:
            chosen = _choose(archive.name, members)
            if sum(member.size for member in chosen.values()) > limit:
                raise _bomb(archive.name, limit)
            target.mkdir(parents=True)
            for name, member in chosen.items():
                with member.open() as source, (target / name).open("xb") as file:
                    shutil.copyfileobj(source, file)  # no more than it states: both libraries stop there
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive.name} cannot be unpacked: {reason_of(error)}") from None
    return len(chosen)


def _bomb(name: str, limit: int) -> InputError:
    return InputError(
        f"{name} unpacks to more than {storage.format_bytes(limit)}, which no archive of images does; refused"
    )


@dataclass(frozen=True)
class _Member:
    """An entry of an archive."""

    path: str  #: As the archive states it.
    size: int  #: Bytes, as the archive states it.
    is_folder: bool  #: A folder needs no unpacking.
    is_file: bool  #: Whether it is an ordinary file: no link, no device, not encrypted.
    open: Callable[[], IO[bytes]]  #: Its content.


class _Bounded(io.BufferedIOBase):
    """A decompressed stream that ends in an error beyond `limit` bytes, whatever its reader asks for."""

    def __init__(self, stream: IO[bytes], name: str, limit: int) -> None:
        self._stream = stream
        self._name = name
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._limit - self._stream.tell()
        data = self._stream.read(left + 1 if size is None or size < 0 else min(size, left + 1))
        if len(data) > left:
            raise _bomb(self._name, self._limit)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if offset > self._limit:
            raise _bomb(self._name, self._limit)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _members(archive: Path, limit: int) -> Iterator[list[_Member]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            yield [_zip_member(packed, info) for info in packed.infolist()]
        return
    headers = limit + (1 << 24)  # what a tar archive says of its members comes on top of them
    with gzip.open(archive) as stream:
        bounded = _Bounded(cast("IO[bytes]", stream), archive.name, headers)
        with tarfile.open(fileobj=bounded, mode="r:") as tape:
            yield [_tar_member(tape, info) for info in tape]


def _zip_member(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_file = kind in (0, stat.S_IFREG) and not info.flag_bits & 1
    return _Member(info.filename, info.file_size, info.is_dir(), is_file, lambda: packed.open(info))


def _tar_member(tape: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    is_file = info.isreg() and not info.issparse()
    return _Member(info.name, info.size, info.isdir(), is_file, lambda: cast("IO[bytes]", tape.extractfile(info)))


def _choose(archive: str, members: Sequence[_Member]) -> dict[str, _Member]:
    """Choose the images to unpack, by their bare names. Raises InputError for any member that has no business there."""
    chosen: dict[str, _Member] = {}
    for member in members:
        path = PurePosixPath(member.path.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
            raise InputError(f"{archive}: the path {member.path!r} leads out of the archive; refused")
        if member.is_folder:
            continue
        if not member.is_file:
            raise InputError(f"{archive}: {member.path!r} is not an ordinary file; refused")
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or "\0" in path.name:
            continue
        if path.name in chosen:
            raise InputError(f"{archive}: two images are called {path.name!r}; refused")
        chosen[path.name] = member
    return chosen
