"""Chunks that only PNG has, from one PNG file to the next: copied, converted or scaled.

Source: W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 2025, 11.3; "Extensions to the PNG
1.2 Specification", 1.3.0 (oFFs, sCAL, pCAL, sTER); vpAg and caNv are ImageMagick's (coders/png.c).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import TypeAlias

from sr_cli.images.geometry import Move

Chunk: TypeAlias = tuple[bytes, bytes]  #: Type and content.

CARRIED = (b"bKGD", b"sBIT", b"tIME", b"pCAL", b"sCAL", b"sTER")
"""Chunks that are unsafe to copy (by their fourth letter) unless their meaning is known, as it is here."""
_GRAY, _PALETTE, _GRAY_ALPHA = 0, 3, 4


def read(chunks: Sequence[Chunk], colour_type: int, bits: int, palette: bytes | None) -> list[Chunk]:
    """Read chunks into the form of `Photo.png_chunks`: bKGD as 16-bit red, green and blue, whatever the pixels are."""
    result = []
    for kind, data in chunks:
        if kind != b"bKGD":
            result.append((kind, data))
            continue
        with contextlib.suppress(struct.error, IndexError, ValueError):
            if colour_type == _PALETTE:
                values = [value * 257 for value in (palette or b"")[3 * data[0] : 3 * data[0] + 3]]
            else:
                count = 1 if colour_type in (_GRAY, _GRAY_ALPHA) else 3
                values = [min(value * 65535 // (2**bits - 1), 65535) for value in struct.unpack(f">{count}H", data)]
                values *= 3 // count
            result.append((kind, struct.pack(">3H", *values)))
    return result


def write(chunks: Sequence[Chunk], channels: int, alpha: bool, bits: int) -> list[Chunk]:
    """Build chunks for a file of gray (1) or RGB (3 `channels`) pixels, with or without alpha, of `bits`."""
    result = []
    for kind, data in chunks:
        if kind == b"bKGD":
            colour = [round(value * (2**bits - 1) / 65535) for value in struct.unpack(">3H", data)]
            if channels == 1 and len(set(colour)) > 1:
                continue  # a background colour for a gray image
            data = struct.pack(f">{channels}H", *colour[:channels])
        elif kind == b"sBIT":  # every bit of an enlarged image means something
            data = bytes([bits] * (channels + alpha))
        result.append((kind, data))
    return result


def moved(chunks: Sequence[Chunk], move: Move) -> tuple[Chunk, ...]:
    """Change sizes and places in chunks to the moved image's; those that cannot be read stay as they are."""
    return tuple((kind, _moved(kind, data, move)) for kind, data in chunks)


def _moved(kind: bytes, data: bytes, move: Move) -> bytes:
    with contextlib.suppress(struct.error, ValueError, OverflowError):
        if kind == b"pHYs" and move.swaps:
            across, down, unit = struct.unpack(">IIB", data)
            return struct.pack(">IIB", down, across, unit)
        if kind == b"oFFs":  # position of the image on a page
            x, y, unit = struct.unpack(">iiB", data)
            return data if unit else struct.pack(">iiB", *map(round, move.scaled_size((x, y))), unit)
        if kind == b"vpAg":  # the page's size
            width, height, unit = struct.unpack(">IIB", data)
            return data if unit else struct.pack(">IIB", *map(round, move.scaled_size((width, height))), unit)
        if kind == b"caNv":
            width, height, x, y = struct.unpack(">IIii", data)
            sizes = (*move.scaled_size((width, height)), *move.scaled_size((x, y)))
            return struct.pack(">IIii", *map(round, sizes))
        if kind == b"sCAL":  # the size of a pixel on the subject
            across, _, down = data[1:].partition(b"\0")
            lengths = move.turned_size((float(across), float(down)))
            texts = (f"{length / scale:.9g}".encode() for length, scale in zip(lengths, move.scale, strict=True))
            return data[:1] + b"\0".join(texts)
    return data
