"""Stores the results of each image at once, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sr_cli.storage import JsonLines, sha256_of_bytes


class Journal(JsonLines):
    """JSON lines, one for each finished image, in a file named after everything that the results depend on.

    A record names its `dataset` and `image`. The file is removed when the run is complete: only interrupted runs are
    resumed.
    """

    def __init__(self, folder: Path, depends_on: dict[str, Any], fresh: bool = False) -> None:
        text = json.dumps(depends_on, sort_keys=True, default=str)
        super().__init__(folder / f"{sha256_of_bytes(text.encode())[:24]}.jsonl")
        if fresh:
            self.remove()
        self.records = {
            (record["dataset"], record["image"]): record
            for record in self.new()
            if isinstance(record.get("dataset"), str) and isinstance(record.get("image"), str)
        }
        """Earlier results by data set and image."""
