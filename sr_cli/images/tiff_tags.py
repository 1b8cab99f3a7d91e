"""TIFF directories as they are stored: values bit by bit, each directory read once, their number bounded.

`tifffile` gives the tags their meaning and decodes the pixels. Here is what it has no part for: directories are
checked before it sees them, and EXIF is carried from and to TIFF, which stores the same directories. Sources:
Adobe, "TIFF Revision 6.0", 1992, section 2; CIPA DC-008 (EXIF 2.32), 4.6; BigTIFF from the libtiff project.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from sr_cli.images import exif as exif_block

ORIENTATION, WHITE_POINT, PRIMARIES, SUB_IFDS = 274, 318, 319, 330
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
PLACES = (273, 279, 324, 325)  #: Offsets and sizes of strips and tiles.
BYTE, SHORT, LONG, RATIONAL, UNDEFINED, IFD, LONG8, IFD8 = 1, 3, 4, 5, 7, 13, 16, 18
CODES = {BYTE: "B", SHORT: "H", LONG: "I", IFD: "I", LONG8: "Q", IFD8: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BIG_TYPES = (16, 17, 18)
_CHILDREN = (exif_block.EXIF_IFD, exif_block.GPS_IFD, 0xA005)
"""Tags that point at further directories of EXIF; the last is the interoperability directory."""
# Tags that describe the photo, not how or where its pixels are stored (section 8; EXIF 2.32, 4.6.4;
# white point and primaries; Microsoft's XP tags and ratings; the EXIF tags that some programs put into the
# main directory).
_DESCRIPTION = {
    *(269, 270, 271, 272, 285, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, 33434, 33437, 34850, 34855),
    *(36867, 36868, 36880, 36881, 36882, 37377, 37378, 37379, 37380, 37381, 37383, 37384, 37385, 37386),
    *(40091, 40092, 40093, 40094, 40095),
}
CARRIED = frozenset({*_DESCRIPTION, ORIENTATION, *_CHILDREN, XMP, IPTC, PHOTOSHOP, ICC})
"""Tags of a page that an output can have."""
_MAX_ENTRIES = 4096
_MAX_NUMBERS = 2**22  #: Numbers of one value: more strips than any image within the limits has.


@dataclass(frozen=True)
class Layout:
    """How a file stores numbers: byte order, and 4 or (BigTIFF) 8 bytes for each offset."""

    order: Literal["<", ">"] = "<"
    big: bool = False

    @property
    def offset(self) -> str:
        """The `struct` code of an offset."""
        return "Q" if self.big else "I"

    @property
    def inline(self) -> int:
        """Bytes of a value that fit into a directory entry."""
        return 8 if self.big else 4

    def pack(self, code: str, *values: int) -> bytes:
        """Pack numbers in this byte order."""
        return struct.pack(self.order + code, *values)


@dataclass(frozen=True)
class Field:
    """A tag's value as stored: its type, how many, and the bytes."""

    type: int
    count: int
    data: bytes


@dataclass
class Directory:
    """Tags and, by the tag that points at them, further directories (EXIF, GPS, interoperability)."""

    fields: dict[int, Field] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)


class Entry(NamedTuple):
    """One entry of a directory: its tag, its type, how many values of it, and where they are stored."""

    tag: int
    type: int
    length: int
    value_at: int

    @property
    def size(self) -> int:
        """Bytes of the value; 0 for an unknown type."""
        return _SIZES.get(self.type, 0) * self.length


class Directories:
    """Reads the directories of a TIFF file or EXIF block that begins at the file's current position.

    Raises ValueError for what is no TIFF structure, for a directory that is read a second time, for values of one
    directory that overlap, and for more than `max_entries` entries in all: then reading takes time in proportion
    to the file's size.
    """

    def __init__(self, file: BinaryIO, max_entries: int = 2 * _MAX_ENTRIES) -> None:
        self._file, self._start = file, file.tell()
        self._left = max_entries
        self._seen: set[int] = set()
        self._children: dict[int, Directory | None] = {}
        self.size = file.seek(0, 2) - self._start
        head = self.read(0, min(16, self.size))
        order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
        (version,) = struct.unpack_from(order + "H", head, 2)
        if head[:2] not in (b"II", b"MM") or version not in (42, 43):
            raise ValueError("no TIFF header")
        self.layout = Layout(order, version == 43)
        (self.first,) = struct.unpack_from(order + self.layout.offset, head, 8 if self.layout.big else 4)

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes. Raises ValueError beyond the end."""
        if offset + size > self.size:
            raise ValueError("cut off")
        self._file.seek(self._start + offset)
        return self._file.read(size)

    def value(self, entry: Entry) -> bytes:
        """Read an entry's value."""
        return self.read(entry.value_at, entry.size)

    def was_read(self, offset: int) -> bool:
        """Return whether the directory at `offset` was read already."""
        return offset in self._seen

    def entries(self, offset: int) -> tuple[list[Entry], int]:
        """Read the entries of the directory at `offset`, and the offset of the next directory (0: none).

        Entries of unknown types and those whose values are cut off are dropped.
        """
        if offset in self._seen:
            raise ValueError("its directories of tags form a circle")
        self._seen.add(offset)
        order, big = self.layout.order, self.layout.big
        (count,) = struct.unpack(order + ("Q" if big else "H"), self.read(offset, 8 if big else 2))
        self._left -= count
        if count > _MAX_ENTRIES or self._left < 0:
            raise ValueError("a directory of tags is damaged")
        number = f"{order}u{8 if big else 4}"
        kind = np.dtype([("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", number), ("value", number)])
        at = offset + (8 if big else 2)
        stored = np.frombuffer(self.read(at, count * kind.itemsize), kind)
        (following,) = struct.unpack(
            order + self.layout.offset, self.read(at + count * kind.itemsize, self.layout.inline)
        )
        found = []
        for index, (tag, type_, many, value) in enumerate(stored.tolist()):
            entry = Entry(tag, type_, many, value)
            if entry.size <= self.layout.inline:
                entry = entry._replace(value_at=at + (index + 1) * kind.itemsize - self.layout.inline)
            if entry.size > 0 and entry.value_at + entry.size <= self.size:
                found.append(entry)
        if sum(entry.size for entry in found) > self.size:
            raise ValueError("the values of its tags overlap")
        if any(entry.length > _MAX_NUMBERS and _SIZES[entry.type] > 1 for entry in found):
            raise ValueError("a value of its tags is larger than any image needs")
        return found, following

    def description(self, entries: list[Entry]) -> Directory:
        """Read what describes the photo: tags of the main directory, and EXIF's directories."""
        described = Directory()
        for entry in entries:
            if entry.tag in _CHILDREN:
                if (child := self._child(entry)) is not None:
                    described.children.setdefault(entry.tag, child)
            elif entry.tag in _DESCRIPTION or entry.tag == ORIENTATION:
                described.fields.setdefault(entry.tag, Field(entry.type, entry.length, self.value(entry)))
        return described

    def _child(self, entry: Entry) -> Directory | None:
        """Read the directory that an entry points at; pages may share one. None if it cannot be read."""
        if entry.type not in CODES or entry.length != 1:
            return None
        (offset,) = struct.unpack(self.layout.order + CODES[entry.type], self.value(entry))
        if offset in self._children:
            return self._children[offset]
        self._children[offset] = None  # what points back at it while it is read gets nothing
        try:
            entries, _ = self.entries(offset)
            child = Directory()
            for inner in entries:
                if inner.tag not in _CHILDREN:
                    child.fields.setdefault(inner.tag, Field(inner.type, inner.length, self.value(inner)))
                elif (deeper := self._child(inner)) is not None:
                    child.children.setdefault(inner.tag, deeper)
        except (ValueError, struct.error):
            return None  # what cannot be read cannot be carried
        self._children[offset] = child
        return child


def serialised(directory: Directory, layout: Layout, at: int, following: int = 0) -> bytes:
    """Build a directory, its values and its children, to be stored at offset `at`, which is even."""
    pointers = {tag: Field(LONG8 if layout.big else LONG, 1, b"") for tag in directory.children}
    entries = dict(sorted((directory.fields | pointers).items()))
    head, body = layout.pack("Q" if layout.big else "H", len(entries)), bytearray()
    size = len(head) + len(entries) * (20 if layout.big else 12) + layout.inline
    for tag, value in entries.items():
        data = value.data
        if tag in directory.children:
            place = at + size + len(body)
            body += serialised(directory.children[tag], layout, place)
            data = layout.pack(layout.offset, place)
        elif len(data) > layout.inline:
            place = at + size + len(body)
            body += data + bytes(len(data) % 2)
            data = layout.pack(layout.offset, place)
        head += layout.pack("HHQ" if layout.big else "HHI", tag, value.type, value.count)
        head += data.ljust(layout.inline, b"\0")
    return head + layout.pack(layout.offset, following) + bytes(body)


def to_exif(described: Directory, layout: Layout) -> bytes | None:
    """Build an EXIF block of a TIFF page's description; None if it says nothing."""
    fields = described.fields
    orientation = fields.get(ORIENTATION)
    upright = orientation is None or orientation.data[:2] == layout.pack("H", 1)
    if not described.children and (not fields or (set(fields) == {ORIENTATION} and upright)):
        return None
    small = Layout(layout.order)
    header = (b"II*\0" if layout.order == "<" else b"MM\0*") + small.pack("I", 8)
    return header + serialised(_without_big(described), small, at=8)


def from_exif(exif: bytes, layout: Layout) -> Directory:
    """Read the description of the photo in an EXIF block, in the byte order of `layout`.

    It is empty if the block cannot be read.
    """
    try:
        directories = Directories(io.BytesIO(exif))
        described = directories.description(directories.entries(directories.first)[0])
    except (ValueError, struct.error):
        return Directory()
    described.fields.pop(ORIENTATION, None)
    return described if directories.layout.order == layout.order else _swapped(described)


def _without_big(directory: Directory) -> Directory:
    """Convert the 8-byte types of a directory, which only BigTIFF knows."""
    fields = {tag: value for tag, value in directory.fields.items() if value.type not in _BIG_TYPES}
    return Directory(fields, {tag: _without_big(child) for tag, child in directory.children.items()})


def _swapped(directory: Directory) -> Directory:
    """Convert a directory to the other byte order."""
    fields = {}
    for tag, value in directory.fields.items():
        unit = 4 if value.type in (RATIONAL, 10) else _SIZES[value.type]  # rationals are two numbers
        data = np.frombuffer(value.data, f"u{unit}").byteswap().tobytes()
        fields[tag] = Field(value.type, value.count, data)
    return Directory(fields, {tag: _swapped(child) for tag, child in directory.children.items()})
