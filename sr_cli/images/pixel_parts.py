"""Extracts the parts of a file that a decoder needs for the pixels, with a proper end.

Pillow refuses a file for a long text, a damaged chunk that the pixels do not need, or a missing end marker. Sources:
W3C, "PNG Specification (Third Edition)", 2025, 5 and 13.2; ITU-T T.81, annexes B and G; Google, "WebP Container
Specification", 2023 (RFC 9649).
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from random import Random
from typing import BinaryIO

from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import jpeg, png
from sr_cli.images.pieces import Piece, joined
from sr_cli.images.source import NO_END, Source

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READABLE_PROCESSES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_PROGRESSIVE = (0xC2, 0xCA)
_JPEG_LS = 0xF7
_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"


# PNG


def of_png(source: Source, contents: png.Contents) -> BinaryIO:
    """Build a PNG of the chunks that make pixels; pixels that are cut off end where the file does.

    The chunks of pixels keep their checksums, which the decoder looks at.
    """
    end = source.file.seek(0, io.SEEK_END)
    pieces: list[Piece] = [png.SIGNATURE, (source.start + len(png.SIGNATURE), 25)]
    if contents.palette is not None and contents.colour_type == 3:
        pieces.append(png.chunk(b"PLTE", contents.palette))
    if contents.transparency is not None:
        pieces.append(png.chunk(b"tRNS", contents.transparency))
    for offset, length in contents.idat:
        if offset + length + 4 <= end:
            pieces.append((offset - 8, length + 12))
        else:
            source.file.seek(offset)
            pieces.append(png.chunk(b"IDAT", source.file.read(length)))
    return joined(source.file, [*pieces, png.chunk(b"IEND", b"")])


# JPEG


def of_jpeg(source: Source) -> BinaryIO:
    """Build a JPEG without the segments that make no pixels. Raises InputError for an unsupported kind."""
    return joined(source.file, _jpeg_pieces(source))


def _jpeg_pieces(source: Source, end: int | None = None) -> list[Piece]:
    """Find the parts of a JPEG that make pixels, up to offset `end`, by default of the file."""
    file = source.file
    size = file.seek(0, io.SEEK_END) if end is None else end
    file.seek(size - 1)
    size -= file.read(1) == b"\xff"  # half a marker
    file.seek(source.start)
    pieces: list[Piece] = [b"\xff\xd8"]
    for marker, offset, length in jpeg.segments(file):
        file.seek(offset)
        start = file.read(min(length, 32))
        if marker in _FRAME_HEADERS or marker == _JPEG_LS:
            _check_frame(source, marker, start)
        if marker == _SCAN:
            return [*pieces, (offset - 4, size - offset + 4)]
        if jpeg.makes_pixels(marker, start):
            pieces.append((offset - 4, length + 4))
    return pieces


def _check_frame(source: Source, marker: int, header: bytes) -> None:
    """Raise InputError for a depth or process of compression that is not supported."""
    precision, _, _, components = struct.unpack_from(">BHHB", header)
    problem = None
    if marker == _JPEG_LS:
        problem = "JPEG-LS"
    elif marker not in _READABLE_PROCESSES:
        problem = "lossless JPEG" if marker in (0xC3, 0xC7, 0xCB, 0xCF) else "hierarchical JPEG"
    elif precision != 8:
        problem = f"JPEG with {precision} bits per sample"
    elif components not in (1, 3, 4):
        problem = f"JPEG with {components} colour components"
    if problem:
        raise InputError(f"{source.name}: {problem} cannot be read; save it with 8 bits as gray, RGB or CMYK")


def without_end(source: Source) -> Image.Image:
    """Decode a JPEG that ends without its end marker. Raises ValueError if it lacks pixels.

    The image is complete if all its scans have begun and its pixels do not depend on the bits that follow.
    """
    if not _has_all_scans(source):
        raise ValueError("cut off")
    pieces = _jpeg_pieces(source)
    image = _decoded(source, [*pieces, _JPEG_END])
    _check_complete(source, image, pieces)
    return image


def check_bottom(source: Source, image: Image.Image, end: int) -> None:
    """Raise ValueError if a JPEG lacks pixels although its end marker, before offset `end`, is there.

    Decoders fill what is missing with the last colour. So only images with a flat corner are looked at again.
    """
    width, height = image.size
    corner = image.crop((max(0, width - 8), max(0, height - 8), width, height))
    extremes = corner.getextrema()
    if all(low == high for low, high in (extremes if isinstance(extremes[0], tuple) else [extremes])):
        _check_complete(source, image, _jpeg_pieces(source, end - len(_JPEG_END)))


def _check_complete(source: Source, image: Image.Image, pieces: list[Piece]) -> None:
    """Raise ValueError if the pixels depend on what follows `pieces`, which hold the image without its end."""
    random = Random(0)
    expected = _digest(image)
    for filling in (b"\xff\0" * 64, bytes(64), bytes(random.randrange(255) for _ in range(64))):
        if _digest(_decoded(source, [*pieces, filling + _JPEG_END])) != expected:
            raise ValueError("cut off")


def _decoded(source: Source, pieces: list[Piece]) -> Image.Image:
    image = Image.open(joined(source.file, pieces), formats=["JPEG"])
    source.check_pixels(*image.size)
    image.load()
    return image


def _digest(image: Image.Image) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _has_all_scans(source: Source) -> bool:
    """Return whether every coefficient of every component is sent to its last bit (T.81, G.1.1.1)."""
    missing: set[tuple[int, int]] = set()
    progressive = False
    source.file.seek(source.start)
    for marker, offset, length in jpeg.segments(source.file):
        if marker not in _FRAME_HEADERS and marker != _SCAN:
            continue
        source.file.seek(offset)
        header = source.file.read(length)
        if len(header) < length or length < 6:
            return False
        if marker in _FRAME_HEADERS:
            progressive = marker in _PROGRESSIVE
            components = header[6::3][: header[5]]
            missing = {(component, k) for component in components for k in range(64 if progressive else 1)}
        else:
            first, last, approximation = header[-3:] if progressive else (0, 0, 0)
            if approximation & 15 == 0:
                missing -= {(name, k) for name in header[1 : 1 + 2 * header[0] : 2] for k in range(first, last + 1)}
    return not missing


# WebP


def of_webp(source: Source) -> tuple[BinaryIO, tuple[str, ...]]:
    """Build a WebP of its chunks, with right sizes and flags, and notes on what was wrong.

    Raises ValueError for an animation that is cut off: the number of missing frames is unknown.
    """
    file = source.file
    end = file.seek(0, io.SEEK_END)
    file.seek(source.start + 4)
    (stated,) = struct.unpack("<I", file.read(4))
    chunks = list(webp_chunks(file, source.start + 12, end))
    kinds = {kind for kind, _, _ in chunks}
    cut = end - source.start - 8 < stated
    if cut and b"ANIM" in kinds and stated - (end - source.start - 8) >= 8:
        raise ValueError("cut off")
    pieces: list[Piece] = []
    for kind, offset, length in chunks:
        head = struct.pack("<4sI", kind, length)
        if kind == b"VP8X":
            file.seek(offset)
            flags = file.read(length)
            pieces.append(head + bytes([_webp_flags(flags[0], kinds)]) + flags[1:])
        else:
            pieces += [head, (offset, length)]
        pieces.append(bytes(length % 2))
    size = sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
    notes = (NO_END,) if cut else ()
    return joined(file, [struct.pack("<4sI4s", b"RIFF", size + 4, b"WEBP"), *pieces]), notes


def webp_chunks(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, offset and content's length of each known chunk that is all there; the file is at its content."""
    while at + 8 <= end:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if at + 8 + length > end:
            return
        if kind in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "):
            yield kind, at + 8, length
        at += 8 + length + length % 2


def _webp_flags(flags: int, kinds: set[bytes]) -> int:
    """Build the flags of VP8X as the chunks are there: a promise that is not kept is an error to the decoder."""
    for kind, flag in ((b"ICCP", 0x20), (b"EXIF", 0x08), (b"XMP ", 0x04), (b"ANIM", 0x02)):
        flags = flags | flag if kind in kinds else flags & ~flag
    return flags
