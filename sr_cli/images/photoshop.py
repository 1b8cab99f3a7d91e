"""Photoshop's image resources, the wrapping in which JPEG, PNG and TIFF hold IPTC captions, paths and print settings.

Source: Adobe, "Photoshop File Formats Specification", 2019, "Image Resource Blocks".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

IPTC = 0x0404
JPEG_PREFIX = b"Photoshop 3.0\0"
# Thumbnails; guides, slices and layers in pixels of the old image.
_OF_OLD_PIXELS = {0x0409, 0x040C, 0x0408, 0x041A, 0x0400, 0x0402, 0x0430}
_THUMBNAILS = {0x0409, 0x040C}
_PATHS = range(0x07D0, 0x0BB7)


@dataclass(frozen=True)
class Resources:
    """Content of a block of image resources."""

    iptc: bytes | None = None  #: IPTC records.
    others: bytes = b""  #: The other resources that stay true for an enlarged image, as stored.
    notes: tuple[str, ...] = ()  #: Data that was dropped, in words for `losses`.


def block(iptc: bytes | None, others: bytes = b"") -> bytes:
    """Build IPTC records as a resource (signature, number, no name, size, content padded to even); and others."""
    if iptc is None:
        return others
    return b"8BIM" + struct.pack(">HHI", IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2) + others


def read(data: bytes) -> Resources:
    """Take image resources apart; a block that is damaged is read as far as it goes."""
    records: bytes | None = None
    others, notes = b"", []
    for number, whole, content in _resources(data):
        if number == IPTC:
            records = records if records is not None else content
        elif number not in _OF_OLD_PIXELS:
            others += whole
        elif number not in _THUMBNAILS:
            notes.append("guides, slices and layers of Photoshop are dropped")
    return Resources(records, others, tuple(dict.fromkeys(notes)))


def without_paths(others: bytes) -> bytes:
    """Remove the paths: their coordinates are those of the stored image, before it was turned."""
    return b"".join(whole for number, whole, _ in _resources(others) if number not in _PATHS)


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number, stored bytes and content of each resource."""
    at = 0
    while data[at : at + 4] in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR") and len(data) >= at + 12:
        begin = at
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 6] + 1
        at += 6 + name + name % 2
        if len(data) < at + 4:
            return
        (size,) = struct.unpack_from(">I", data, at)
        content = data[at + 4 : at + 4 + size]
        if len(content) < size:
            return
        at += 4 + size + size % 2
        yield number, data[begin:at].ljust(at - begin, b"\0"), content
