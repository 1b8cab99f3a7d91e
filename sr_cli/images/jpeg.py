"""JPEG: reads the metadata in its segments and writes the segments of an output.

Pillow hands over part of it only: the last comment, the first packet of XMP, the first resources of Photoshop.
Sources: ITU-T T.81, annex B (markers); CIPA DC-008, 4.7 (EXIF) and DC-007 (MPF: further images); Adobe, "XMP
Specification", part 3, 1.1.3 (XMP, extended XMP); ICC.1:2022, B.4; ISO 21496-1 (gain maps); C2PA 1.4, A.3.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from sr_cli.images import exif as exif_block
from sr_cli.images import photoshop, phrases, xmp
from sr_cli.images.photo import Metadata, Photo, comment
from sr_cli.images.source import NO_END, Source
from sr_cli.images.tiff_tags import Directories

SEGMENT = 65_533  #: Bytes that one segment can hold.
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xEF, 0xFE
_END, _SCAN = 0xD9, 0xDA
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENSION_HEAD = len(_EXTENSION) + 32 + 8
_ICC, _MPF, _GAIN_MAP = b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"
# Two bytes that are neither compressed pixels (FF 00) nor a restart marker nor filling.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_WINDOW = 2**20
# Items whose presence explains bytes after the end of the photo.
_APPENDED = ("gain map", "video", "depth map", "attachment", "other image")


@dataclass(kw_only=True)
class Contents(Metadata):
    """Metadata of a JPEG file."""

    resources: bytes = b""  #: Photoshop's image resources, all segments joined.
    end: int | None = None  #: Where the image ends, after its end marker; None if that is missing.
    pictures: int = 1  #: Number of images in the file, by its multi-picture index.
    extensions: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    """Pieces of extended XMP by the name of the extension and by offset."""


def segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, offset and content's length of each segment, from the file's position to its end marker."""
    start = file.tell()
    at = start + 2
    while (found := _next_marker(file, at)) is not None:
        marker, at = found
        if marker == _END:
            yield marker, at, 0
            return
        if marker == 0xD8:  # the next image begins without an end of this one
            return
        file.seek(at)
        size = file.read(2)
        if len(size) < 2 or (length := struct.unpack(">H", size)[0]) < 2:
            return
        yield marker, at + 2, length - 2
        at += length


def _next_marker(file: BinaryIO, at: int) -> tuple[int, int] | None:
    """Find the next marker from `at` on, and the offset after it; compressed pixels are skipped."""
    size = 4096  # most segments follow each other; only pixels are long
    while True:
        file.seek(at)
        window = file.read(size)
        found = _MARKER.search(window)
        if found:
            return window[found.start() + 1], at + found.end()
        if len(window) < 2:
            return None
        at, size = at + len(window) - 1, _WINDOW


def makes_pixels(marker: int, start: bytes) -> bool:
    """Tell whether a decoder needs a segment, which begins with `start`, for pixels, their profile or resolution."""
    if marker == _APP1:
        return start.startswith(_EXIF)  # resolution of files without a JFIF header
    if marker == _APP2:
        return start.startswith(_ICC)
    if marker == _APP14:
        return start.startswith(b"Adobe") and len(start) >= 12
    return marker == _APP0 or not (_APP0 <= marker <= _APP15 or marker == _COMMENT)


def inspect(source: Source) -> Contents:
    """Read all segments of the first image, and what follows it. Raises InputError above a limit."""
    file, contents, scanned = source.file, Contents(), False
    file.seek(source.start)
    for marker, offset, length in segments(file):
        if marker == _END:
            contents.end = offset
        elif marker == _SCAN:
            scanned = True
        elif marker == _COMMENT or (_APP0 <= marker <= _APP15 and not scanned):
            source.count_metadata(length)
            file.seek(offset)
            _add(contents, marker, file.read(length))
    if contents.end is None:
        contents.notes.append(NO_END)
    if contents.xmp is not None:
        contents.xmp = _with_extension(contents)
    _note_appended(contents, file)
    resources = photoshop.read(contents.resources)
    contents.iptc, contents.photoshop = resources.iptc, resources.others
    contents.notes += resources.notes
    file.seek(source.start)
    return contents


def xmp_packets(file: BinaryIO) -> Iterator[bytes]:
    """Yield the XMP before the pixels, its extended part joined to it, from the file's current position."""
    contents = Contents()
    for marker, offset, length in segments(file):
        if marker in (_SCAN, _END):
            break
        if marker == _APP1:
            file.seek(offset)
            _add(contents, marker, file.read(length))
    if contents.xmp is not None:
        yield _with_extension(contents) or b""


def _add(contents: Contents, marker: int, data: bytes) -> None:
    if marker == _COMMENT:
        contents.text.append(comment(data))
    elif marker == _APP1 and data.startswith(_EXIF):
        _add_exif(contents, data[len(_EXIF) :])
    elif marker == _APP1 and data.startswith(_XMP):
        if contents.xmp is None:
            contents.xmp = data[len(_XMP) :]
        else:
            contents.notes.append("a second XMP packet is dropped")
    elif marker == _APP1 and data.startswith(_EXTENSION) and len(data) >= _EXTENSION_HEAD:
        guid = data[len(_EXTENSION) :][:32]
        (offset,) = struct.unpack_from(">I", data, _EXTENSION_HEAD - 4)
        contents.extensions.setdefault(guid, {})[offset] = data[_EXTENSION_HEAD:]
    elif marker == _APP13 and data.startswith(photoshop.JPEG_PREFIX):
        contents.resources += data[len(photoshop.JPEG_PREFIX) :]
    elif marker == _APP2 and data.startswith(_MPF):
        contents.pictures = max(1, _picture_count(data[len(_MPF) :]))
    elif marker == _APP2 and data.startswith(_GAIN_MAP):
        contents.notes.append("the gain map is dropped")
    elif marker == _APP11 and b"c2pa" in data[:200]:
        contents.notes.append("the content credentials (C2PA) are dropped: they certify the original pixels")
    elif not (marker in (_APP0, _APP14) or (marker == _APP2 and data.startswith(_ICC))):
        label = re.match(rb"[ -~]{0,30}", data)
        name = f" ({label[0].decode()})" if label and label[0] else ""
        contents.notes.append(f"data of another program in APP{marker - _APP0}{name} are dropped")


def _add_exif(contents: Contents, data: bytes) -> None:
    block = exif_block.clean(data)
    if contents.exif is None:
        contents.exif = block
    elif block is None:
        contents.exif += data  # of more than one segment
    else:
        contents.notes.append("a second EXIF block is dropped")


def _picture_count(index: bytes) -> int:
    """Return the number of images in a multi-picture index, a TIFF structure (DC-007, 5.2.3.2)."""
    with contextlib.suppress(ValueError, struct.error):
        directories = Directories(io.BytesIO(index))
        for entry in directories.entries(directories.first)[0]:
            if entry.tag == 0xB001:
                return int(struct.unpack_from(directories.layout.order + "I", directories.value(entry))[0])
    return 1


def _with_extension(contents: Contents) -> bytes | None:
    """Join the packet and its extended part; a packet that cannot be read is left as it is."""
    packet = contents.xmp or b""
    guid = xmp.extended_guid(packet)
    if guid is None:
        return packet
    pieces = contents.extensions.get(guid.encode("latin-1", "replace"), {})
    whole = bytearray()
    for offset, piece in sorted(pieces.items()):
        if offset != len(whole):
            break
        whole += piece
    try:
        return xmp.joined(packet, bytes(whole))
    except ValueError:
        contents.notes.append("the extended part of XMP, which is damaged or missing, is dropped")
        return xmp.joined(packet, None)


def _note_appended(contents: Contents, file: BinaryIO) -> None:
    """Name what follows the image, by the multi-picture index, XMP, or the bytes themselves."""
    promised = xmp.promises(contents.xmp) if contents.xmp else ()
    notes = [phrases.dropped(what) for what in promised]
    known = sum(what in ("gain map", "depth map") for what in promised)
    known += not known and any("gain map" in note for note in contents.notes)
    further = contents.pictures - 1 - known
    if further > 0:
        notes.append(phrases.other_images(further))
    if contents.end is not None:
        file.seek(contents.end)
        head = file.read(_WINDOW)
        size = file.seek(0, 2) - contents.end
        if re.search(rb"[\0-\xff]{4}ftyp", head[:64]) or b"MotionPhoto_Data" in head:
            notes.append("the video is dropped")
        explained = any(what in note for note in (*notes, *contents.notes) for what in _APPENDED)
        if head.strip(b"\0\xff\r\n ") and not explained:
            notes.append(f"{size:,} bytes after the image are dropped")
    contents.notes += notes


# Writing


@dataclass(frozen=True)
class Segments:
    """The segments of an output but those that Pillow writes, and what they cannot hold."""

    exif: bytes | None  #: EXIF with its prefix, for Pillow.
    segments: bytes
    lost: tuple[str, ...]


def metadata(photo: Photo) -> Segments:
    """Build EXIF, XMP, IPTC with Photoshop's other resources, and comments as segments."""
    out, lost, exif = bytearray(), [], None
    if photo.exif is not None:
        if len(_EXIF) + len(photo.exif) <= SEGMENT:
            exif = _EXIF + photo.exif
        else:
            lost.append("EXIF over 64 KB is dropped")
    if photo.xmp is not None:
        try:
            out += _xmp_segments(photo.xmp)
        except ValueError:
            lost.append("XMP over 64 KB is dropped")
    resources = photoshop.block(photo.iptc, photo.photoshop)
    for piece in _pieces(resources, SEGMENT - len(photoshop.JPEG_PREFIX)):
        out += _segment(_APP13, photoshop.JPEG_PREFIX + piece)
    for keyword, text in photo.text:
        data = text.encode("utf-8", "surrogateescape")
        if keyword != "Comment":
            continue
        if len(data) <= SEGMENT:
            out += _segment(_COMMENT, data)
        else:
            lost.append("a comment over 64 KB is dropped")
    return Segments(exif, bytes(out), tuple(dict.fromkeys(lost)))


def _xmp_segments(packet: bytes) -> bytes:
    """Build the segments of a packet, split if need be. Raises ValueError if it is too large and cannot be."""
    limit = SEGMENT - len(_XMP)
    if len(packet) <= limit:
        return _segment(_APP1, _XMP + packet)
    parts = xmp.split(packet, limit)
    out = _segment(_APP1, _XMP + parts.main)
    offset, size = 0, len(parts.extension)
    for piece in _pieces(parts.extension, SEGMENT - _EXTENSION_HEAD):
        out += _segment(_APP1, _EXTENSION + parts.guid.encode() + struct.pack(">II", size, offset) + piece)
        offset += len(piece)
    return out


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
