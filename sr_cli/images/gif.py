"""GIF: comments, XMP and colour profiles, which Pillow reads partly and writes partly.

Source: CompuServe, "Graphics Interchange Format, Version 89a", 1990, sections 17 to 26; XMP in an application
extension: Adobe, "XMP Specification", part 3, 1.1.2; profiles in one: ICC.1:2022, B.5 ("ICCRGBG1", "012").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from sr_cli.images.photo import Metadata, Photo, comment
from sr_cli.images.source import Source

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_COMMENT, _APPLICATION, _PLAIN_TEXT = 0xFE, 0xFF, 0x01
_XMP, _ICC = b"XMP DataXMP", b"ICCRGBG1012"
# Bytes after the packet that lead every reader of sub-blocks to the end, wherever in the packet it lost count.
_MAGIC = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
_MAX_BLOCK = 64 * 2**20


def inspect(source: Source) -> Metadata:
    """Read all extensions of the file. Raises InputError above a limit."""
    contents, file = Metadata(), source.file
    file.seek(source.start)
    for label, name, data in _extensions(file):
        source.count_metadata(len(data))
        if label == _COMMENT:
            contents.text.append(comment(data))
        elif label == _PLAIN_TEXT:
            contents.notes.append("text drawn over the image is dropped")
        elif name == _XMP:
            contents.xmp = data
        elif name == _ICC:
            contents.icc_profile = data
        elif name not in (b"NETSCAPE2.0", b"ANIMEXTS1.0", b""):
            shown = name.decode("ascii", "replace")
            contents.notes.append(f"data of another program ({shown}) are dropped")
    file.seek(source.start)
    return contents


def first_xmp(file: BinaryIO) -> bytes | None:
    """Read the XMP of a file, from its current position."""
    return next((data for _, name, data in _extensions(file) if name == _XMP), None)


def _extensions(file: BinaryIO) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the label, application's name and data of each extension, as far as the file goes."""
    head = file.read(13)
    if len(head) < 13:
        return
    file.seek(_table_size(head[10]), 1)
    while kind := file.read(1):
        if kind[0] == _IMAGE:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                return
            file.seek(_table_size(descriptor[8]) + 1, 1)
            for _ in _blocks(file):
                pass
        elif kind[0] == _EXTENSION:
            label = (file.read(1) or b"\0")[0]
            name = b""
            if label == _APPLICATION:
                name = file.read((file.read(1) or b"\0")[0])
            yield label, name, _xmp(file) if name == _XMP else b"".join(_blocks(file))
        else:
            return


def _table_size(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while (size := (file.read(1) or b"\0")[0]) and (data := file.read(size)):
        yield data


def _xmp(file: BinaryIO) -> bytes:
    """Read a packet, which is not cut into sub-blocks; the magic bytes after it end in the first zero."""
    data = bytearray()
    while len(data) < _MAX_BLOCK and (piece := file.read(4096)):
        # Text has no zero in it; the magic bytes are 258, the last two of them zeros.
        if (end := piece.find(0)) >= 0:
            data += piece[:end]
            file.seek(end + 2 - len(piece), 1)
            return bytes(data[: max(0, len(data) - len(_MAGIC) + 2)])
        data += piece
    return bytes(data)


def with_metadata(gif: bytes, photo: Photo, profile: bytes | None) -> bytes:
    """Put a photo's comments, XMP and a profile before the first frame of a GIF file."""
    at = 13 + _table_size(gif[10])
    out = bytearray(b"GIF89a" + gif[6:at])
    if profile is not None:
        out += _application(_ICC) + _in_blocks(profile)
    if photo.xmp is not None:
        out += _application(_XMP) + photo.xmp.replace(b"\0", b" ") + _MAGIC
    for keyword, text in photo.text:
        if keyword == "Comment":
            out += struct.pack("BB", _EXTENSION, _COMMENT) + _in_blocks(text.encode("utf-8", "surrogateescape"))
    return bytes(out + gif[at:])


def _application(name: bytes) -> bytes:
    return struct.pack("BBB", _EXTENSION, _APPLICATION, len(name)) + name


def _in_blocks(data: bytes) -> bytes:
    pieces = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
