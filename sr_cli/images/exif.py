"""EXIF blocks edited in place, so that everything else in them (maker notes above all) stays where it was.

A maker note holds offsets from the block's beginning: rewriting the block, as most libraries do, breaks it.
So only the bytes of the few values that an enlargement makes wrong are changed.
Source: TIFF 6.0, section 2 (header, directories, types); CIPA DC-008 (EXIF 2.32), section 4.6.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
IMAGE_WIDTH, IMAGE_LENGTH = 0x0100, 0x0101
PIXEL_X, PIXEL_Y = 0xA002, 0xA003
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4


@dataclass(frozen=True)
class _Entry:
    """One directory entry: where its 12 bytes begin, and their content."""

    at: int
    tag: int
    type: int
    count: int


class _Block:
    """An EXIF block under change. Reads outside the block raise struct.error, which callers treat as the end."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"

    def unpack(self, code: str, at: int) -> int:
        (value,) = struct.unpack_from(self.order + code, self.data, at)
        return int(value)

    def entries(self, ifd: int) -> Iterator[_Entry]:
        for index in range(self.unpack("H", ifd)):
            at = ifd + 2 + 12 * index
            yield _Entry(at, self.unpack("H", at), self.unpack("H", at + 2), self.unpack("I", at + 4))

    def value(self, entry: _Entry) -> int | None:
        """The value of a single SHORT or LONG; None for any other type."""
        if entry.count != 1 or entry.type not in (_SHORT, _LONG):
            return None
        return self.unpack("H" if entry.type == _SHORT else "I", entry.at + 8)

    def set_value(self, entry: _Entry, value: int) -> None:
        """Makes the entry a single LONG or, where it was a SHORT that is wide enough, a single SHORT."""
        short = entry.type == _SHORT and value < 65536
        struct.pack_into(self.order + "HI", self.data, entry.at + 2, _SHORT if short else _LONG, 1)
        struct.pack_into(self.order + ("HH" if short else "I"), self.data, entry.at + 8, value, *([0] if short else []))

    def next_ifd_at(self, ifd: int) -> int:
        """Where the offset of the following directory is stored."""
        return ifd + 2 + 12 * self.unpack("H", ifd)


def clean(data: bytes) -> bytes | None:
    """A block without the "Exif" prefix that some formats put before it; None if it is no TIFF structure."""
    data = data.removeprefix(b"Exif\0\0")
    return data if len(data) >= 8 and data[:4] in (b"II*\0", b"MM\0*") else None


def orientation(data: bytes) -> int:
    """The orientation 1..8; 1 where it is absent, unreadable or nonsense."""
    block = _Block(data)
    try:
        for entry in block.entries(block.unpack("I", 4)):
            if entry.tag == ORIENTATION:
                value = block.value(entry) or 1
                return value if value <= 8 else 1
    except struct.error:
        pass  # cut off: what was not there does not turn the picture
    return 1


def edited(data: bytes, *, upright: bool = False, size: tuple[int, int] | None = None, thumbnail: bool = True) -> bytes:
    """The block with orientation 1 (`upright`), dimensions `size` (width, height), and no `thumbnail` if False.

    Only entries that are there are changed; a block that is cut off is changed as far as it goes.
    """
    block = _Block(data)
    wanted = {ORIENTATION: 1} if upright else {}
    if size is not None:
        wanted |= {IMAGE_WIDTH: size[0], IMAGE_LENGTH: size[1], PIXEL_X: size[0], PIXEL_Y: size[1]}
    # Each part for itself: where one finds its end, the others must not be left undone.
    with contextlib.suppress(struct.error):
        _set_values(block, block.unpack("I", 4), wanted)
    with contextlib.suppress(struct.error):
        for ifd in _exif_ifds(block, block.unpack("I", 4)):
            _set_values(block, ifd, wanted)
    if not thumbnail:
        with contextlib.suppress(struct.error):
            _drop_thumbnail(block, block.unpack("I", 4))
    return bytes(block.data)


def _set_values(block: _Block, ifd: int, wanted: dict[int, int]) -> None:
    for entry in block.entries(ifd):
        if entry.tag in wanted and block.value(entry) is not None:
            block.set_value(entry, wanted[entry.tag])


def _exif_ifds(block: _Block, ifd: int) -> list[int]:
    return [block.unpack("I", entry.at + 8) for entry in block.entries(ifd) if entry.tag == EXIF_IFD]


def _drop_thumbnail(block: _Block, ifd: int) -> None:
    """Unlinks the second directory, which describes the thumbnail, and blanks the thumbnail's bytes."""
    link = block.next_ifd_at(ifd)
    second = block.unpack("I", link)
    if second == 0:
        return
    struct.pack_into(block.order + "I", block.data, link, 0)
    found = {entry.tag: block.value(entry) for entry in block.entries(second)}
    start, length = found.get(_THUMBNAIL_OFFSET), found.get(_THUMBNAIL_LENGTH)
    if start and length and start + length <= len(block.data):
        if start + length == len(block.data):
            del block.data[start:]  # cameras put it last
        else:
            block.data[start : start + length] = bytes(length)
