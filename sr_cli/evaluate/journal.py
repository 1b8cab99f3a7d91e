"""Results of each image as they come, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines, one for each finished image, named after everything that the results depend on.

    It is removed when the run is complete: only interrupted runs are resumed.
    """

    def __init__(self, folder: Path, depends_on: dict[str, Any], fresh: bool = False) -> None:
        text = json.dumps(depends_on, sort_keys=True, default=str)
        self.path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"
        if fresh:
            self.path.unlink(missing_ok=True)
        self.records = self._read()

    def _read(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Earlier results by data set and image; a line that was cut off while it was written ends them."""
        records: dict[tuple[str, str], dict[str, Any]] = {}
        if not self.path.exists():
            return records
        whole = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                record = json.loads(line)
                records[record["dataset"], record["image"]] = record
            except (ValueError, KeyError, TypeError):
                break
            whole.append(line)
        self.path.write_bytes(b"".join(whole))
        return records

    def add(self, record: dict[str, Any]) -> None:
        """Writes one image's results, which name their `dataset` and `image`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def remove(self) -> None:
        """The run is complete."""
        self.path.unlink(missing_ok=True)
