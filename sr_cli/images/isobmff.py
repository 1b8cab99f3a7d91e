"""AVIF and HEIF: metadata in their boxes that Pillow's decoders do not return.

Sources: ISO/IEC 14496-12 (boxes, items, `colr`), ISO/IEC 23008-12 (image items, auxiliary images), AV1 Image
File Format 1.1 (`av1C`, `tmap`), ITU-T H.273 (code points of colours).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from sr_cli.images import phrases
from sr_cli.images.photo import Metadata, Photo
from sr_cli.images.source import Source

_MAX_META = 16 * 2**20
_MAX_BOXES = 20_000
_UNSPECIFIED = 2
_SRGB = (1, 13)
_IMAGES = (b"av01", b"hvc1", b"grid", b"iden", b"iovl", b"jpeg")
_SAMPLE_ENTRIES = (b"av01", b"hvc1", b"hev1")
_SAMPLE_ENTRY_HEAD = 78
_AUXILIARY = {b"gainmap": "gain map", b"auxid:2": "depth map", b"depth": "depth map", b"matte": "mask of the camera"}


@dataclass(kw_only=True)
class Contents(Metadata):
    """Properties of the primary image, and the other items of the file."""

    nclx: tuple[int, int] | None = None
    """Code points of primaries and transfer function; None where the file says nothing or an ICC profile does."""
    bits: int = 8  #: Bits per sample as stored.

    def describe(self, photo: Photo) -> Photo:
        """Return `photo` with this; a photo with a profile needs no colour space as well."""
        described = super().describe(photo)
        return described if photo.icc_profile is None else replace(described, colour_chunks=())


def inspect(source: Source) -> Contents:
    """Read the boxes before and around the pixels; a file that is damaged is read as far as it goes."""
    contents, file = Contents(), source.file
    size = file.seek(0, 2)
    try:
        for kind, start, length in _top_boxes(file, source.start, size):
            if kind == b"mpvd":
                contents.notes.append("the video is dropped")
            elif kind in (b"meta", b"moov") and length <= _MAX_META:
                file.seek(start)
                data = file.read(length)
                (_read_meta if kind == b"meta" else _read_movie)(contents, data)
    except (struct.error, IndexError, ValueError):
        pass  # the decoder is the one to judge
    if contents.nclx and contents.nclx != _SRGB and max(contents.nclx) < 256:
        contents.colour_chunks = [(b"cICP", bytes([*contents.nclx, 0, 1]))]  # RGB (matrix 0) of the full range
    if contents.bits > 8:
        contents.notes.append(f"{contents.bits} bits per sample were read as 8")
    file.seek(source.start)
    return contents


def _top_boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each box from `at` to `end`, and where its content begins and how long it is."""
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        start = at + 8
        if size == 1:
            (size,), start = struct.unpack_from(">Q", head, 8), at + 16
        size = size or end - at
        if size < start - at:
            return
        yield kind, start, at + size - start
        at += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of each box in another one's content."""
    for kind, start, length in _top_boxes(io.BytesIO(data), 0, len(data)):
        yield kind, data[start : start + length]


def _read_meta(contents: Contents, data: bytes) -> None:
    boxes = dict(_boxes(data[4:]))
    primary = struct.unpack_from(">H" if boxes[b"pitm"][0] == 0 else ">I", boxes[b"pitm"], 4)[0]
    parts = list(_boxes(boxes.get(b"iprp", b"")))
    properties = [box for kind, content in parts if kind == b"ipco" for box in _boxes(content)]
    links = [link for kind, content in parts if kind == b"ipma" for link in _associations(content)]
    for item, index in links:
        if not 0 < index <= len(properties):
            continue
        kind, content = properties[index - 1]
        if item == primary:
            _read_property(contents, kind, content)
        elif kind == b"auxC":
            what = next((what for mark, what in _AUXILIARY.items() if mark in content.lower()), None)
            if what:
                contents.notes.append(phrases.dropped(what))
    _note_items(contents, boxes, primary)
    contents.notes = list(dict.fromkeys(contents.notes))


def _associations(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the item and property index of each association (23008-12, 9.3)."""
    version, wide = data[0], data[3] & 1
    (count,), at = struct.unpack_from(">I", data, 4), 8
    for _ in range(min(count, _MAX_BOXES)):
        code = ">H" if version < 1 else ">I"
        (item,) = struct.unpack_from(code, data, at)
        at += struct.calcsize(code)
        number, at = data[at], at + 1
        for _ in range(number):
            index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            at += 2 if wide else 1
            yield item, index


def _read_property(contents: Contents, kind: bytes, data: bytes) -> None:
    if kind == b"colr" and data[:4] == b"nclx":
        primaries, transfer = struct.unpack_from(">HH", data, 4)
        primaries = 1 if primaries == _UNSPECIFIED else primaries
        transfer = 13 if transfer == _UNSPECIFIED else transfer
        contents.nclx = (primaries, transfer)
    elif kind == b"pixi":
        contents.bits = max(data[5 : 5 + data[4]])
    elif kind == b"av1C":
        contents.bits = max(contents.bits, (12 if data[2] & 0x20 else 10) if data[2] & 0x40 else 8)
    elif kind == b"hvcC":
        contents.bits = max(contents.bits, 8 + (data[17] & 7))


def _note_items(contents: Contents, boxes: dict[bytes, bytes], primary: int) -> None:
    """Name the other images of the file: no thumbnails, no tiles of a larger image, none that is named already."""
    if b"iinf" not in boxes:
        return
    items, tone_mapped = set(), False
    head = 6 if boxes[b"iinf"][0] == 0 else 8
    for kind, data in _boxes(boxes[b"iinf"][head:]):
        if kind == b"infe" and data[0] >= 2:
            item, at = struct.unpack_from(">H" if data[0] == 2 else ">I", data, 4)[0], 6 if data[0] == 2 else 8
            name, hidden = data[at + 2 : at + 6], data[3] & 1
            tone_mapped |= name == b"tmap"
            if name in _IMAGES and not hidden:
                items.add(item)
    if tone_mapped:
        contents.notes.append("the gain map is dropped")
    for kind, source, targets in _references(boxes.get(b"iref", b"")):
        if kind in (b"thmb", b"auxl"):
            items.discard(source)
        elif kind == b"dimg":
            items.difference_update(targets)
    further = len(items - {primary})
    if further:
        contents.notes.append(phrases.other_images(further))


def _references(data: bytes) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Yield the kind, source and targets of each reference between items (14496-12, 8.11.12)."""
    if len(data) < 4:
        return
    code = "H" if data[0] == 0 else "I"
    for kind, content in _boxes(data[4:]):
        source, count = struct.unpack_from(f">{code}H", content)
        yield kind, source, struct.unpack_from(f">{count}{code}", content, struct.calcsize(f">{code}H"))


def _read_movie(contents: Contents, data: bytes) -> None:
    """Read the colours of an animation, which its track says again, where the first image's item says nothing."""
    found = Contents()
    for entry in _sample_entries(data, 0):
        for kind, content in _boxes(entry[_SAMPLE_ENTRY_HEAD:]):
            _read_property(found, kind, content)
    contents.nclx = contents.nclx or found.nclx
    contents.bits = max(contents.bits, found.bits)


def _sample_entries(data: bytes, depth: int) -> Iterator[bytes]:
    for kind, content in _boxes(data):
        if kind in (b"trak", b"mdia", b"minf", b"stbl") and depth < 6:
            yield from _sample_entries(content, depth + 1)
        elif kind == b"stsd":
            yield from (entry for name, entry in _boxes(content[8:]) if name in _SAMPLE_ENTRIES)
