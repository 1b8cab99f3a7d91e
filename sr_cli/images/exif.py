"""EXIF blocks edited in place, so that everything else in them (maker notes above all) stays where it was.

A maker note holds offsets from the block's beginning: rewriting the block, as most libraries do, breaks it.
So only the bytes of the few values that a turn or an enlargement makes wrong are changed.
Source: TIFF 6.0, section 2 (header, directories, types); CIPA DC-008 (EXIF 2.32), section 4.6.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sr_cli.images.geometry import Move

ORIENTATION, EXIF_IFD, GPS_IFD, MAKER_NOTE = 0x0112, 0x8769, 0x8825, 0x927C
IMAGE_WIDTH, IMAGE_LENGTH = 0x0100, 0x0101
PIXEL_X, PIXEL_Y = 0xA002, 0xA003
_SUB_IFDS, _INTEROPERABILITY_IFD = 0x014A, 0xA005
_RELATED_WIDTH, _RELATED_LENGTH = 0x1001, 0x1002
X_RESOLUTION, Y_RESOLUTION = 0x011A, 0x011B
_RESOLUTION_UNIT = 0x0128
_FOCAL_PLANE_X, _FOCAL_PLANE_Y = 0xA20E, 0xA20F
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_COLOUR_SPACE = 0xA001
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
# Tags with the position of an image inside the block: strips, tiles, a JPEG stream.
_PLACES_OF_PIXELS = {0x0111, 0x0117, 0x0144, 0x0145, _THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH}
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_CODES = {_SHORT: "H", _LONG: "I"}
_MAX_DIRECTORIES = 16
_TOP = 2**32 - 1


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
            yield _Entry(at, *struct.unpack_from(self.order + "HHI", self.data, at))

    def found(self, ifd: int) -> dict[int, _Entry]:
        """Return the entries of a directory by tag, as far as the block goes."""
        result: dict[int, _Entry] = {}
        with contextlib.suppress(struct.error):
            for entry in self.entries(ifd):
                result.setdefault(entry.tag, entry)
        return result

    def numbers(self, entry: _Entry | None, at_most: int = 1) -> tuple[int, ...]:
        """Return up to `at_most` values of SHORT or LONG; () without an entry, and for any other type or count."""
        if entry is None or entry.type not in _CODES or not 0 < entry.count <= at_most:
            return ()
        code = f"{self.order}{entry.count}{_CODES[entry.type]}"
        return struct.unpack_from(code, self.data, self._place(entry, struct.calcsize(code)))

    def set_numbers(self, entry: _Entry, values: Sequence[int]) -> None:
        """Store as many values as there were; as LONG, at the block's end if need be, where SHORT is too narrow."""
        kind = _LONG if max(values) > 65535 else entry.type
        code = f"{self.order}{len(values)}{_CODES[kind]}"
        size = struct.calcsize(code)
        if kind != entry.type:
            struct.pack_into(self.order + "H", self.data, entry.at + 2, kind)
            if size > 4:
                at = len(self.data) + len(self.data) % 2
                self.data.extend(bytes(at + size - len(self.data)))
                struct.pack_into(self.order + "I", self.data, entry.at + 8, at)
        struct.pack_into(code, self.data, self._place(entry, size), *values)

    def set_number(self, entry: _Entry | None, value: int) -> None:
        """Change a single SHORT or LONG, if that is there."""
        if entry and self.numbers(entry):
            self.set_numbers(entry, [value])

    def rational(self, entry: _Entry | None) -> tuple[int, int, int] | None:
        """Return where a single RATIONAL is stored, its numerator and denominator; None for any other type."""
        if entry is None or (entry.type, entry.count) != (_RATIONAL, 1):
            return None
        at = self.unpack("I", entry.at + 8)
        return at, self.unpack("I", at), self.unpack("I", at + 4)

    def _place(self, entry: _Entry, size: int) -> int:
        return entry.at + 8 if size <= 4 else self.unpack("I", entry.at + 8)

    def remove(self, ifd: int, tags: set[int]) -> None:
        """Take entries out of a directory, and with them its link to the next one; those after them move up."""
        entries = list(self.entries(ifd))
        kept = b"".join(self.data[entry.at : entry.at + 12] for entry in entries if entry.tag not in tags)
        if len(kept) == 12 * len(entries):
            return
        struct.pack_into(self.order + "H", self.data, ifd, len(kept) // 12)
        # Some writers omit the link of an EXIF directory; values then follow directly after its entries.
        self.data[ifd + 2 : ifd + 2 + 12 * len(entries)] = kept.ljust(12 * len(entries), b"\0")

    def next_ifd_at(self, ifd: int) -> int:
        """Return where the offset of the following directory is stored."""
        return ifd + 2 + 12 * self.unpack("H", ifd)

    def directories(self) -> list[int]:
        """Return the offsets of the main directory and of those below it (EXIF, GPS, interoperability), each once."""
        found: list[int] = []
        with contextlib.suppress(struct.error):
            waiting = [self.unpack("I", 4)]
            while waiting and len(found) < _MAX_DIRECTORIES:
                ifd = waiting.pop(0)
                if ifd in found or ifd + 2 > len(self.data):
                    continue
                found.append(ifd)
                entries = self.found(ifd)
                children = (entries.get(tag) for tag in (EXIF_IFD, GPS_IFD, _INTEROPERABILITY_IFD))
                waiting += [self.unpack("I", child.at + 8) for child in children if child]
        return found


def clean(data: object) -> bytes | None:
    """Remove the "Exif" prefix that some formats put before a block; None for what is no TIFF structure."""
    block = data.removeprefix(b"Exif\0\0") if isinstance(data, bytes) else b""
    return block if len(block) >= 8 and block[:4] in (b"II*\0", b"MM\0*") else None


def orientation(data: bytes | None) -> int:
    """Return the orientation 1..8; 1 without a block, and where it is absent, unreadable or nonsense."""
    with contextlib.suppress(struct.error):  # cut off: what was not there does not turn the image
        block = _Block(data or b"")
        stored = block.numbers(block.found(block.unpack("I", 4)).get(ORIENTATION))
        return stored[0] if stored and 1 <= stored[0] <= 8 else 1
    return 1


def has(data: bytes, tag: int) -> bool:
    """Return whether any directory of the block has the tag."""
    block = _Block(data)
    return any(tag in block.found(ifd) for ifd in block.directories())


def dpi(data: bytes) -> tuple[float, float] | None:
    """Return the dots per inch across and down, as stored in the main directory; None if it does not say both."""
    block = _Block(data)
    with contextlib.suppress(struct.error):
        entries = block.found(block.unpack("I", 4))
        unit = block.numbers(entries.get(_RESOLUTION_UNIT))
        stored = [block.rational(entries.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)]
        found = [value[1] / value[2] for value in stored if value and 0 < value[1] < 1_000_000 * value[2]]
        if len(found) == 2:
            per_inch = 2.54 if unit == (3,) else 1  # inches where the unit is not known (4.6.4.1, ResolutionUnit)
            return found[0] * per_inch, found[1] * per_inch
    return None


def edited(data: bytes, move: Move) -> bytes:
    """Edit the block so that it is true for the moved image: upright, its size, its places; no embedded thumbnail.

    Only entries that are there are changed; a block that is cut off is changed as far as it goes.
    """
    block = _Block(data)
    _drop_thumbnails(block)
    for ifd in block.directories():
        entries = block.found(ifd)
        # Each part for itself: where one finds its end, the others must not be left undone.
        for edit in (_set_sizes, _swap_resolutions, _scale_focal_plane, _move_subject):
            with contextlib.suppress(struct.error):
                edit(block, entries, move)
    return bytes(block.data)


def as_srgb(data: bytes) -> bytes:
    """Edit the block of an image whose colours were converted to sRGB (EXIF 2.32, 4.6.6.2, ColorSpace)."""
    block = _Block(data)
    for ifd in block.directories():
        with contextlib.suppress(struct.error):
            block.set_number(block.found(ifd).get(_COLOUR_SPACE), 1)
    return bytes(block.data)


def _set_sizes(block: _Block, entries: dict[int, _Entry], move: Move) -> None:
    width, height = move.after
    wanted = {ORIENTATION: 1}
    wanted |= dict.fromkeys((IMAGE_WIDTH, PIXEL_X, _RELATED_WIDTH), width)
    wanted |= dict.fromkeys((IMAGE_LENGTH, PIXEL_Y, _RELATED_LENGTH), height)
    for tag, value in wanted.items():
        block.set_number(entries.get(tag), value)


def _swap_resolutions(block: _Block, entries: dict[int, _Entry], move: Move) -> None:
    """Exchange across and down where the image was turned.

    Dots per inch stay as they are, so a print grows with the image.
    """
    if move.swaps:
        _swap(block, entries.get(X_RESOLUTION), entries.get(Y_RESOLUTION))


def _scale_focal_plane(block: _Block, entries: dict[int, _Entry], move: Move) -> None:
    """Scale the pixels per unit of length on the sensor: as many more as the image has (EXIF 2.32, 4.6.6.7)."""
    across, down = entries.get(_FOCAL_PLANE_X), entries.get(_FOCAL_PLANE_Y)
    if move.swaps:
        _swap(block, across, down)
    for entry, scale in zip((across, down), move.scale, strict=True):
        if (stored := block.rational(entry)) and stored[2]:
            at, above, below = stored
            value = Fraction(above, below) * Fraction(scale).limit_denominator(10**6)
            while max(value.numerator, value.denominator) > _TOP:
                value = value.limit_denominator(value.denominator // 2) if value.denominator > 1 else Fraction(_TOP)
            struct.pack_into(block.order + "II", block.data, at, value.numerator, value.denominator)


def _swap(block: _Block, first: _Entry | None, second: _Entry | None) -> None:
    """Exchange two rational values by exchanging where their entries point to."""
    if first and second and (first.type, first.count) == (second.type, second.count) == (_RATIONAL, 1):
        a, b = block.unpack("I", first.at + 8), block.unpack("I", second.at + 8)
        struct.pack_into(block.order + "I", block.data, first.at + 8, b)
        struct.pack_into(block.order + "I", block.data, second.at + 8, a)


def _move_subject(block: _Block, entries: dict[int, _Entry], move: Move) -> None:
    """Move a point (x, y), circle (x, y, diameter) or rectangle (centre x, y, width, height) in pixels (4.6.6.3)."""
    for tag in (_SUBJECT_AREA, _SUBJECT_LOCATION):
        values = block.numbers(entries.get(tag), 4)
        if len(values) >= 2:
            block.set_numbers(entries[tag], moved_subject(values, move))


def moved_subject(values: Sequence[float], move: Move) -> list[int]:
    """Move a SubjectArea or SubjectLocation (2 to 4 numbers) into the new image."""
    x, y = move.point(values[0], values[1])
    moved = [min(x, move.after[0] - 1), min(y, move.after[1] - 1)]
    if len(values) == 3:
        moved.append(values[2] * (move.scale[0] * move.scale[1]) ** 0.5)
    elif len(values) == 4:
        moved += move.scaled_size((values[2], values[3]))
    return [max(0, round(value)) for value in moved]


def _drop_thumbnails(block: _Block) -> None:
    """Unlink the directories after the first, which describe thumbnails, and take images out of all others."""
    for ifd in [*block.directories(), *_further_directories(block)]:
        with contextlib.suppress(struct.error):
            _blank_thumbnail(block, ifd)
    with contextlib.suppress(struct.error):
        struct.pack_into(block.order + "I", block.data, block.next_ifd_at(block.unpack("I", 4)), 0)
    for ifd in block.directories():
        with contextlib.suppress(struct.error):
            block.remove(ifd, _PLACES_OF_PIXELS | {_SUB_IFDS})


def _further_directories(block: _Block) -> list[int]:
    """List the directories that hold images: those that follow another one, and the children called SubIFDs."""
    found: list[int] = []
    for first in block.directories():
        with contextlib.suppress(struct.error):
            found += block.numbers(block.found(first).get(_SUB_IFDS), _MAX_DIRECTORIES)
        with contextlib.suppress(struct.error):
            ifd = block.unpack("I", block.next_ifd_at(first))
            while ifd and ifd not in found and len(found) < _MAX_DIRECTORIES:
                found.append(ifd)
                ifd = block.unpack("I", block.next_ifd_at(ifd))
    return found


def _blank_thumbnail(block: _Block, ifd: int) -> None:
    """Overwrite the JPEG stream that a directory points at, so that the old thumbnail cannot be recovered."""
    found = block.found(ifd)
    stored = [*block.numbers(found.get(_THUMBNAIL_OFFSET)), *block.numbers(found.get(_THUMBNAIL_LENGTH))]
    if len(stored) < 2 or sum(stored) > len(block.data) or block.data[stored[0] :][:2] != b"\xff\xd8":
        return
    start, length = stored
    if start + length == len(block.data):
        del block.data[start:]  # cameras put it last
    else:
        block.data[start : start + length] = bytes(length)
