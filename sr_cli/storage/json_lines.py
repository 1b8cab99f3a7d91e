"""Files of JSON lines that several processes may append to, and that a killed process may leave cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_cli.storage.atomic import sync


class JsonLines:
    """A file with one JSON object a line, read on as it grows.

    A line that is invalid (cut off, overwritten, not an object) is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the records that came since the last call; all at the first. A file that cannot be read has none."""
        records: list[dict[str, Any]] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written just now, or cut off: looked at again next time
                    self._read_to += len(line)
                    if (record := parse_line(line)) is not None:
                        records.append(record)
        except OSError:
            pass
        return records

    def append(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Write one record at the end; with `durable` it is on the disk afterwards. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record) + "\n"
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = "\n" + text  # the last line was cut off: ours must not continue it
            file.write(text.encode())  # one write in append mode: lines of two processes do not mix
            file.flush()
            if durable:
                sync(file.fileno())

    def remove(self) -> None:
        """Delete the file, if there is one. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self._read_to = 0


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of one line; None for an invalid one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
