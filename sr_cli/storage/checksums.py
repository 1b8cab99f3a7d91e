"""SHA-256 checksums, as 64 hexadecimal digits."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of_file(path: Path) -> str:
    """Return the checksum of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """Return the checksum of `data`."""
    return hashlib.sha256(data).hexdigest()
