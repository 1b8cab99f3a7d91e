"""Pairs of images to measure on: folders, how LR and HR belong together, and how LR is made."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import hub, images, storage
from sr_cli.errors import InputError
from sr_cli.images.encode import to_8_bits

SCALE = 4
SUFFIXES = images.READABLE_SUFFIXES
"""What counts as an image in a folder, in lower case."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image file as upright 8-bit RGB (H, W, 3), without its transparency. Raises InputError."""
    pixels = to_8_bits(images.read(path).pixels)
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels


def crop_to_scale(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return a view of (H, W, ...) whose sides are the largest multiples of 4."""
    height, width = (side // SCALE * SCALE for side in rgb.shape[:2])
    return rgb[:height, :width]


def reduce_image(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce (H, W, 3), sides divisible by 4, by 4 with an antialiased cubic filter: Pillow's BICUBIC.

    It agrees with the LR files published for Set5 and Set14, which MATLAB's imresize made, at 47 to 56 dB.
    """
    height, width = rgb.shape[:2]
    reduced = Image.fromarray(rgb).resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC)
    return np.asarray(reduced)


_CUBIC_MIDWAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375])


def reduce_aliased(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce by 4 with a cubic filter without antialiasing, as in the poster: float32 in 0..1, not rounded.

    A sample lies midway between the middle two of four pixels, so its weights are those of Keys' kernel
    with a = -0.75 at half a pixel: what torch's `interpolate` computes with align_corners=False.
    Overshoot is cut off at 0 and 1. (H, W, 3), sides divisible by 4.
    """
    height, width, channels = rgb.shape
    blocks = rgb.reshape(height // SCALE, SCALE, width // SCALE, SCALE, channels)
    reduced = np.einsum("hiwjc,i,j->hwc", blocks, _CUBIC_MIDWAY, _CUBIC_MIDWAY, optimize=True) / 255
    return np.asarray(reduced.clip(0, 1), np.float32)


@dataclass(frozen=True)
class Pair:
    """One image to measure on, not yet read."""

    name: str
    """What reports call it: the HR file's name, or the LR file's where there is no HR."""
    hr: Path | None
    """The high-resolution file."""
    lr: Path | None
    """The LR file that the set ships, or None where LR is made from HR."""
    problem: str | None = None
    """Why this pair cannot be measured, where the folder's listing already shows it."""


@dataclass(frozen=True)
class Dataset:
    """A set of images to measure on."""

    name: str
    """What reports call it."""
    pairs: tuple[Pair, ...]
    """Its images in the order of their names; never empty."""
    lr: str
    """`shipped` with the set or `made` from HR."""


def _files(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return sorted(p for p in files if p.is_file())


def _key(path: Path) -> str:
    """Return what an HR file and its LR partner have in common: the stem without `_HR`, `_LR` or `x4`."""
    return re.sub(r"(_HR|_LR|_?x4)+$", "", path.stem, flags=re.IGNORECASE)


NO_LR = "no LR image of this name"


def match(high: Sequence[Path], low: Sequence[Path]) -> tuple[Pair, ...]:
    """Pair HR and LR files by name; a file without a partner becomes a pair with a problem."""
    partners = {_key(path): path for path in low}
    pairs = []
    for path in high:
        partner = partners.pop(_key(path), None)
        pairs.append(Pair(path.name, path, partner, None if partner else NO_LR))
    pairs += [Pair(path.name, None, path, "no HR image of this name") for path in partners.values()]
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def _subfolder(folder: Path, name: str) -> Path | None:
    return next((p for p in folder.iterdir() if p.is_dir() and p.name.lower() == name), None)


def from_folder(folder: Path) -> Dataset:
    """Find the images of a folder: `HR/` and `LR/` in it, or files `*_HR.*` and `*_LR.*`, or HR images alone.

    Raises InputError when there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data takes a folder of images")
    pairs, lr = _list_pairs(folder)
    if not pairs:
        raise InputError(f"{folder}: no image in it ({', '.join(sorted(SUFFIXES))})")
    return Dataset(folder.resolve().name, pairs, lr)


def _list_pairs(folder: Path) -> tuple[tuple[Pair, ...], str]:
    high, low = _subfolder(folder, "hr"), _subfolder(folder, "lr")
    if high and low:
        return match(_files(high), _files(low)), "shipped"
    files = _files(high or folder)
    named_high = [p for p in files if p.stem.upper().endswith("_HR")]
    named_low = [p for p in files if p.stem.upper().endswith("_LR")]
    if named_high and named_low:
        others = sorted(set(files) - set(named_high) - set(named_low))
        strays = tuple(Pair(p.name, p, None, "named neither *_HR nor *_LR, as the others are") for p in others)
        return match(named_high, named_low) + strays, "shipped"
    return tuple(Pair(p.name, p, None) for p in files), "made"


def load(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Load HR (4H, 4W, 3), cropped to multiples of 4, and the shipped LR (H, W, 3) or None.

    Raises InputError, one line, for a file that cannot be decoded and for sizes that do not match.
    """
    if pair.problem or pair.hr is None:
        raise InputError(f"{pair.name}: {pair.problem or 'no HR image'}")
    hr = read_rgb(pair.hr)
    if min(hr.shape[:2]) < SCALE:
        raise InputError(f"{pair.name}: smaller than {SCALE} pixels a side")
    hr = crop_to_scale(hr)
    if pair.lr is None:
        return hr, None
    lr = read_rgb(pair.lr)
    if any(large != SCALE * small for large, small in zip(hr.shape[:2], lr.shape[:2], strict=True)):
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (lr, hr)]
        raise InputError(f"{pair.name}: LR of {sizes[0]} does not fit HR of {sizes[1]}: not a factor of {SCALE}")
    return hr, lr


@dataclass(frozen=True)
class Archive:
    """A file of a named set on the Hub."""

    file: str
    """Path in the repository: `.zip` or `.tar.gz`."""
    size: int
    """Bytes, about, for saying what would be downloaded."""
    sha256: str | None = None
    """Its checksum, where we know it; else the Hub's own is used."""


@dataclass(frozen=True)
class NamedSet:
    """A published data set, pinned to a commit of its repository."""

    repo: str
    """`user/name` of a data set on the Hub."""
    revision: str
    """Full commit."""
    count: int
    """Images in it."""
    hr: Archive
    """The high-resolution images."""
    lr: Archive | None
    """Their reductions by 4, if the set has them."""

    def source(self, archive: Archive) -> hub.Source:
        """Return the place of one of its archives on the Hub."""
        return hub.Source(self.repo, self.revision, archive.file, "dataset")

    @property
    def archives(self) -> dict[str, Archive]:
        """By the folder that each is unpacked into."""
        return {"HR": self.hr} | ({"LR": self.lr} if self.lr else {})

    @property
    def size(self) -> int:
        """Bytes to download, about."""
        return sum(archive.size for archive in self.archives.values())


def _siow(name: str, revision: str, count: int, hr: float, lr: float, lr_sha256: str | None = None) -> NamedSet:
    """Describe a set as Eugene Siow publishes them; sizes in MB."""
    archives = (
        Archive(f"data/{name}_HR.tar.gz", int(hr * 1e6)),
        Archive(f"data/{name}_LR_x4.tar.gz", int(lr * 1e6), lr_sha256),
    )
    return NamedSet(f"eugenesiow/{name}", revision, count, *archives)


_DIV2K = ("goodfellowliu/DIV2K", "d8a7b7e82add5be32adb51d9442b7932b1739e89")

NAMED = {
    "set5": _siow("Set5", "bcb97ac28c8a5f9113825f8d163564e16513f3ed", 5, 0.85, 0.07),
    "set14": _siow("Set14", "5afcf80d267dba61cdfa9a32b1a6fe4cca57b6d7", 14, 4.5, 0.4),
    "bsd100": _siow("BSD100", "8fbc3a31603eba947ea6eba928d31fee0f0c31bb", 100, 27.2, 1.93),
    "urban100": _siow(
        "Urban100",
        "fb0d8a4c6b2471d32bd133de40bb8bb10dde69b9",
        100,
        135,
        9.48,
        "87f1ffd25247f3e6e9033c3ca1c60ab9fb2d66aeff782bb16fd5b7b7b3d3ac9e",
    ),
    "div2k-val": NamedSet(
        *_DIV2K,
        100,
        Archive("DIV2K_valid_HR.zip", 449_000_000),
        Archive("DIV2K_valid_LR_bicubic_X4.zip", 31_500_000),
    ),
    "div2k-train": NamedSet(
        *_DIV2K,
        800,
        Archive(
            "DIV2K_train_HR.zip",
            3_530_603_713,
            "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        ),
        None,
    ),
}
"""The sets that `--dataset` knows."""

OnDownload = Callable[[str, int, int | None], None]
"""Called with what is downloaded, the bytes so far, and, where known, in all."""


def named(name: str, cache: Path, *, offline: bool = False, progress: OnDownload | None = None) -> Dataset:
    """Give a published set, downloaded, verified and unpacked into `cache` when it is first needed.

    The Hub's checksum of each archive is verified, and recorded: another one later is an error, as is
    another number of images. Raises InputError, one line, for an unknown name, for a set that is not
    here and cannot be fetched, and for an archive that is damaged or hostile.
    """
    if name not in NAMED:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(NAMED)}, or a folder with --data")
    folder = cache / name
    if not _is_complete(folder, NAMED[name]):
        with _installing(name, cache):
            if not _is_complete(folder, NAMED[name]):  # another process was faster
                _install(name, folder, offline, progress)
    if NAMED[name].lr is None:
        pairs = tuple(Pair(p.name, p, None) for p in _files(folder / "HR"))
        return Dataset(name, pairs, "made")
    return Dataset(name, match(_files(folder / "HR"), _files(folder / "LR")), "shipped")


def is_installed(name: str, cache: Path) -> bool:
    """Return whether a named set is here already."""
    return _is_complete(cache / name, NAMED[name])


def _is_complete(folder: Path, known: NamedSet) -> bool:
    return all((folder / side).is_dir() and len(_files(folder / side)) == known.count for side in known.archives)


@contextmanager
def _installing(name: str, cache: Path) -> Iterator[None]:
    """Keep other processes from installing the same set meanwhile. Raises InputError where the cache cannot be used."""
    try:
        with storage.locked(cache / f".{name}.lock"):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{name} cannot be kept in {cache}: {reason}; set SRUP_HOME elsewhere") from None


def _install(name: str, folder: Path, offline: bool, progress: OnDownload | None) -> None:
    """Download and unpack a set, and move it to its place when it is whole."""
    known = NAMED[name]
    record = folder.parent / f"{name}.json"
    checksums: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    with TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
        for side, archive in known.archives.items():
            path = _fetch(name, archive, offline, progress)
            sha256 = storage.sha256_of_file(path)
            if checksums.setdefault(archive.file, sha256) != sha256:
                raise InputError(
                    f"{archive.file} of {name} is not the file that was downloaded first ({checksums[archive.file]}); "
                    f"delete {record} if that is expected"
                )
            found = unpack(path, Path(temporary) / side, limit=4 * path.stat().st_size + (1 << 24))
            if found != known.count:
                raise InputError(f"{archive.file} of {name} holds {found} images instead of {known.count}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for side in known.archives:
            (Path(temporary) / side).rename(folder / side)
    storage.write_file(record, json.dumps(checksums, indent=2).encode() + b"\n")
    for archive in known.archives.values():
        if path_in_cache := hub.cached(known.source(archive)):
            hub.discard(path_in_cache)  # unpacked: the disk need not hold it twice


def _fetch(name: str, archive: Archive, offline: bool, progress: OnDownload | None) -> Path:
    known = NAMED[name]
    try:
        return hub.download(
            known.source(archive),
            sha256=archive.sha256,
            offline=offline,
            progress=(lambda done, total: progress(archive.file, done, total)) if progress else None,
            error=InputError,
        )
    except InputError as error:
        files = ", ".join(PurePosixPath(a.file).name for a in known.archives.values())
        raise InputError(
            f"{name} is not on this machine and could not be downloaded: {error}. "
            f"It is {storage.format_bytes(known.size)} ({files} of https://huggingface.co/datasets/{known.repo}); "
            "with a local copy use --data FOLDER, a folder that holds HR/ and LR/, or HR images alone"
        ) from None


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
                    if _copy(source, file, member.size) > member.size:
                        raise _bomb(archive.name, limit)
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive.name} cannot be unpacked: {error}") from None
    return len(chosen)


def _bomb(name: str, limit: int) -> InputError:
    return InputError(
        f"{name} unpacks to more than {storage.format_bytes(limit)}, which no archive of images does; refused"
    )


@dataclass(frozen=True)
class _Member:
    """An entry of an archive."""

    path: str
    """As the archive states it."""
    size: int
    """Bytes, as the archive states it."""
    is_folder: bool
    """A folder needs no unpacking."""
    is_file: bool
    """Whether it is an ordinary file: no link, no device, not encrypted."""
    open: Callable[[], IO[bytes]]
    """Its content."""


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
    def content() -> IO[bytes]:
        file = tape.extractfile(info)
        assert file is not None
        return file

    return _Member(info.name, info.size, info.isdir(), info.isreg() and not info.issparse(), content)


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


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> int:
    """Copy at most `size` bytes and one; return how many there were."""
    copied = 0
    while copied <= size and (chunk := source.read(min(1 << 20, size + 1 - copied))):
        copied += len(chunk)
        file.write(chunk)
    return copied
