"""Published data sets: pinned to a commit on the Hub, downloaded, verified and unpacked when first needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from sr_cli import hub, storage
from sr_cli.datasets.archives import unpack
from sr_cli.datasets.pairs import Dataset, Pair, files_in, match
from sr_cli.errors import InputError, reason_of


@dataclass(frozen=True)
class Archive:
    """A file of a named set on the Hub."""

    file: str  #: Path in the repository: `.zip` or `.tar.gz`.
    size: int  #: Bytes, about, for saying what would be downloaded.
    sha256: str | None = None  #: Its checksum, where we know it; else the Hub's own is used.


@dataclass(frozen=True)
class NamedSet:
    """A published data set, pinned to a commit of its repository."""

    repo: str  #: `user/name` of a data set on the Hub.
    revision: str  #: Full commit.
    count: int  #: Images in it.
    hr: Archive  #: The high-resolution images.
    lr: Archive | None  #: Their reductions by 4, if the set has them.

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
        *_DIV2K, 100, Archive("DIV2K_valid_HR.zip", 449_000_000), Archive("DIV2K_valid_LR_bicubic_X4.zip", 31_500_000)
    ),
    "div2k-train": NamedSet(
        *_DIV2K,
        800,
        Archive(
            "DIV2K_train_HR.zip", 3_530_603_713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"
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
        try:
            with storage.locked(cache / f".{name}.lock"):
                if not _is_complete(folder, NAMED[name]):  # else another process was faster
                    _install(name, folder, offline, progress)
        except OSError as error:
            raise InputError(f"{name} cannot be kept in {cache}: {reason_of(error)}; set SRUP_HOME elsewhere") from None
    if NAMED[name].lr is None:
        pairs = tuple(Pair(p.name, p, None) for p in files_in(folder / "HR"))
        return Dataset(name, pairs, "made")
    return Dataset(name, match(files_in(folder / "HR"), files_in(folder / "LR")), "shipped")


def is_installed(name: str, cache: Path) -> bool:
    """Return whether a named set is here already."""
    return _is_complete(cache / name, NAMED[name])


def _is_complete(folder: Path, known: NamedSet) -> bool:
    return all((folder / side).is_dir() and len(files_in(folder / side)) == known.count for side in known.archives)


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
