"""Stores the results of each image at once, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sr_cli.storage import JsonLines, sha256_of_bytes


class Journal:
    """A file of JSON lines, one for each finished image, named after everything that the results depend on.

    It is removed when the run is complete: only interrupted runs are resumed.
    """

    def __init__(self, folder: Path, depends_on: dict[str, Any], fresh: bool = False) -> None:
        text = json.dumps(depends_on, sort_keys=True, default=str)
        self._lines = JsonLines(folder / f"{sha256_of_bytes(text.encode())[:24]}.jsonl")
        if fresh:
            self._lines.remove()
        self.records = {
            (record["dataset"], record["image"]): record
            for record in self._lines.new()
            if isinstance(record.get("dataset"), str) and isinstance(record.get("image"), str)
        }
        """Earlier results by data set and image."""

    @property
    def path(self) -> Path:
        """The file; it need not exist."""
        return self._lines.path

    def add(self, record: dict[str, Any]) -> None:
        """Write one image's results, which name their `dataset` and `image`. Raises OSError."""
        self._lines.append(record)

    def remove(self) -> None:
        """Delete the file: the run is complete."""
        self._lines.remove()
