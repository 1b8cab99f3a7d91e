"""What was done before: one journal per output folder, so that an interrupted batch resumes where it stopped.

A journal is in the user's state folder (`journal/`, named after the output folder's path), never among the
photos; that of a shard or of an actor of Ray, whose fellows may be on other machines, and that of a store are in
`.srup/` in the output folder, a file for each run. It has one line of JSON per output, written when the file is
complete and just before it gets its name: whatever moment a process is killed at, an output that is there is either
described or not ours. A line that is invalid (cut off, overwritten) is passed over: at worst a file is done again.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sr_cli import __version__
from sr_cli.errors import InputError, OutputError, SrupError
from sr_cli.storage import JsonLines, Place, RemotePath, parse_line, sha256_of_bytes, state_folder
from sr_cli.upscale.options import UpscaleOptions

SHARED_FOLDER = ".srup"  #: Holds the journals of parts of a batch, in an output folder.

_LINES = 200

# Some file systems keep the time of a change to two seconds only.
_TIME_GRAIN_NS = 2 * 10**9


@dataclass(frozen=True)
class _Entry:
    """One line: an output and what it was made from."""

    name: str  #: The output's name in its folder.
    key: str  #: See `key_of`.
    size: int  #: Bytes of the output.
    mtime_ns: int  #: Its time of change.

    def describes(self, file: os.stat_result) -> bool:
        """Return whether the file is still the one that was written."""
        return file.st_size == self.size and abs(file.st_mtime_ns - self.mtime_ns) < _TIME_GRAIN_NS


def key_of(content: str, weights: str, setup: str, options: UpscaleOptions) -> str:
    """Return a checksum of all that decides an output.

    That is the input's bytes, the weights, how they are run (`Setup.key`), the options and our version.
    """
    decisive = (
        (options.size_label, options.format, options.quality, options.strip),
        (options.fidelity, options.ensemble, setup),
    )
    return sha256_of_bytes(repr((content, weights, decisive, __version__)).encode())


class Journals:
    """The journals of all the folders that a batch writes to. Threads may share it.

    `part` names the part of a batch (`1-of-8`) that is done without the others knowing: what it writes is in the output
    folders, in files of its own.
    """

    def __init__(self, part: str | None = None) -> None:
        self._folder = state_folder() / "journal"
        self._shared_name = None if part is None else f"{part}-{os.urandom(6).hex()}.jsonl"
        self._journals: dict[str, _Journal] = {}
        self._stores: dict[str, _StoreJournal] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, options: UpscaleOptions) -> Journals:
        """Return those that a job with these options reads and writes."""
        if options.part is not None:
            return cls(options.part.file_name)
        return cls("ray" if options.engine == "ray" else None)

    def made(self, path: Place, error: type[SrupError] = InputError) -> bool:
        """Return whether a photo is an output of any batch, unchanged since. Raises `error` for a store."""
        return self._check(path, None, error)

    def recognises(self, target: Place, key: str) -> bool:
        """Return whether the file `target` is the unchanged output of exactly this work."""
        return self._check(target, key, OutputError)

    def record(self, target: Place, key: str, finished: Path) -> None:
        """Note that `finished` is about to be given the name `target`. Raises OSError, or OutputError for a store."""
        status = finished.stat()
        self.append(target, key, status.st_size, status.st_mtime_ns)

    def append(self, target: Place, key: str, size: int, mtime_ns: int) -> None:
        """Note an output by its size and time of change. Raises OSError, or OutputError for a store."""
        with self._lock:
            if isinstance(target, RemotePath):
                self._in_store(target, OutputError).append(_Entry(target.name, key, size, 0))
            else:
                self._of(target).append(_Entry(target.name, key, size, mtime_ns))

    def refresh(self, target: Place) -> None:
        """Read anew what others have written for the folder of `target`. Raises OutputError for a store."""
        with self._lock:
            if isinstance(target, RemotePath):
                self._in_store(target, OutputError).read(OutputError)
            else:
                self._of(target).look_for_others()

    def _check(self, path: Place, key: str | None, error: type[SrupError]) -> bool:
        if isinstance(path, RemotePath):
            with self._lock:
                entry = self._in_store(path, error).entries.get(path.name)
            if entry is None or key not in (None, entry.key):
                return False
            info = path.listed or path.info(error)
            return info is not None and info.size == entry.size
        try:
            status = path.lstat()
        except OSError:
            return False
        with self._lock:
            entry = self._of(path).read().get(path.name)
        return entry is not None and key in (None, entry.key) and entry.describes(status)

    def _in_store(self, path: RemotePath, error: type[SrupError]) -> _StoreJournal:
        folder = path.parent
        if folder.url not in self._stores:
            name = self._shared_name or f"all-{os.urandom(6).hex()}.jsonl"
            self._stores[folder.url] = _StoreJournal(folder / SHARED_FOLDER, name, error)
        return self._stores[folder.url]

    def _of(self, path: Path) -> _Journal:
        folder = os.path.realpath(path.parent)
        if folder not in self._journals:
            name = sha256_of_bytes(os.fsencode(folder))[:32]
            own, shared = self._folder / f"{name}.jsonl", Path(folder, SHARED_FOLDER)
            self._journals[folder] = _Journal(own, shared, self._shared_name)
        return self._journals[folder]


class _Journal:
    """The journals of one folder; other processes may be writing to it as well."""

    def __init__(self, own: Path, shared: Path, shared_name: str | None) -> None:
        """Read `own` and what is in the folder `shared`; write to `shared_name` there, else to `own`."""
        self._written = JsonLines(own if shared_name is None else shared / shared_name)
        self._shared = shared
        self._read = {own: JsonLines(own), self._written.path: self._written}
        self._entries: dict[str, _Entry] = {}
        self.look_for_others()

    def look_for_others(self) -> None:
        """Take in files of jobs that have begun meanwhile."""
        for path in sorted(self._shared.glob("*.jsonl")):
            self._read.setdefault(path, JsonLines(path))

    def read(self) -> dict[str, _Entry]:
        """Return the last entry of each output."""
        for lines in self._read.values():
            for record in lines.new():
                if entry := _parsed(record):
                    self._entries[entry.name] = entry
        return self._entries

    def append(self, entry: _Entry) -> None:
        """Write an entry, durably: it must be there before the output gets its name. Raises OSError."""
        self._written.append(vars(entry), durable=True)


class _StoreJournal:
    """The journals of one folder in a store.

    An object cannot be appended to: the one being written is replaced whole before each output, and begun anew when it
    has `_LINES` lines.
    """

    def __init__(self, folder: RemotePath, name: str, error: type[SrupError]) -> None:
        """Read all that is in `folder`; write to `name` there. Raises `error`."""
        self._folder, self._name = folder, name
        self._lines: list[str] = []
        self._parts = 0
        self.entries: dict[str, _Entry] = {}  #: The last entry of each output.
        self.read(error)

    def read(self, error: type[SrupError]) -> None:
        """Take in what is in the folder. Raises `error`."""
        for content in self._folder.read_folder(".jsonl", error):
            for line in content.splitlines():
                if (record := parse_line(line)) is not None and (entry := _parsed(record)):
                    self.entries[entry.name] = entry

    def append(self, entry: _Entry) -> None:
        """Write an entry. Raises OutputError."""
        if len(self._lines) >= _LINES:
            self._lines.clear()
            self._parts += 1
        self._lines.append(json.dumps(vars(entry)) + "\n")
        (self._folder / self._name.replace(".jsonl", f"-{self._parts}.jsonl")).write("".join(self._lines).encode())
        self.entries[entry.name] = entry


def _parsed(record: dict[str, Any]) -> _Entry | None:
    if not record.keys() <= _Entry.__dataclass_fields__.keys():
        return None
    try:
        return msgspec.convert(record, _Entry)
    except msgspec.ValidationError:
        return None
