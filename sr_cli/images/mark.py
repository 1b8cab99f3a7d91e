"""Marks outputs as outputs, so that none in a folder is enlarged again.

The mark is the last event of xmpMM:History, "resized" by "srup" and its version: XMP is the one place that every
output format has, and the history is where it says what programs did. Without any other metadata (`--strip`) the
mark stays. A program that edits the image afterwards and keeps a history adds its own event; then the image is
no longer ours.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sr_cli.images import gif, jpeg, pixel_parts, png, tiff_tags, xmp

MARK = "srup"  #: Start of the software's name in an output's history; a version may follow.
_TIFF_ENTRIES = 4096
_MAX_PACKETS = 64 * 2**20


def is_output(source: Path | BinaryIO) -> bool:
    """Tell whether a file is an output of ours that no other program has edited since, as its own history says.

    `source` is its path, or a stream that can seek. This reads no more than the file's metadata and trusts neither its
    name nor any journal. Whatever cannot be read is no output.
    """
    if isinstance(source, Path):
        if not source.is_file():  # a pipe could be read only once
            return False
        with contextlib.suppress(OSError), source.open("rb") as file:
            return is_output(file)
        return False
    # Any error of these readers on a hostile file means the same: it has no mark.
    with contextlib.suppress(Exception):
        packets = (packet for packet in _packets(source) if MARK.encode() in packet)
        return any(str(xmp.last_software(packet)).split(" ")[0] == MARK for packet in packets)
    return False


def _packets(file: BinaryIO) -> Iterator[bytes]:
    """Yield the XMP packets of a file of any format that we write."""
    head = file.read(12)
    file.seek(0)
    if head.startswith(png.SIGNATURE):
        yield from png.xmp_packets(file)
    elif head.startswith(b"\xff\xd8"):
        yield from jpeg.xmp_packets(file)
    elif head.startswith(b"GIF8"):
        yield gif.first_xmp(file) or b""
    elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
        chunks = pixel_parts.webp_chunks(file, 12, file.seek(0, io.SEEK_END))
        yield from (file.read(min(size, _MAX_PACKETS)) for kind, _, size in chunks if kind == b"XMP ")
    elif head[:2] in (b"II", b"MM"):
        directories = tiff_tags.Directories(file, max_entries=_TIFF_ENTRIES)
        entries, _ = directories.entries(directories.first)
        yield from (directories.value(entry) or b"" for entry in entries if entry.tag == tiff_tags.XMP)
