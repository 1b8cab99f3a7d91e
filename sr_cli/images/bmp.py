"""BMP: the colours that its header gives, of which Pillow says nothing.

Source: Microsoft, "BITMAPV4HEADER" and "BITMAPV5HEADER" (wingdi.h): colour space, endpoints, gamma, profile.
"""

from __future__ import annotations

import struct

from sr_cli.images.photo import Metadata
from sr_cli.images.source import Source

_FILE_HEADER = 14
_V4, _V5 = 108, 124
_EMBEDDED, _LINKED, _CALIBRATED = b"DEBM", b"KNIL", b"\0\0\0\0"  # "MBED" and "LINK", little endian


def inspect(source: Source) -> Metadata:
    """Read the colours of a BMP file; none for older headers. Raises InputError above a limit."""
    file = source.file
    file.seek(source.start + _FILE_HEADER)
    header = file.read(_V5)
    try:
        return _colours(source, header)
    except (struct.error, ValueError, ZeroDivisionError, OverflowError):
        return Metadata(notes=["the colour space, which cannot be read, is dropped"])
    finally:
        file.seek(source.start)


def _colours(source: Source, header: bytes) -> Metadata:
    if len(header) < 4:
        return Metadata()
    (size,) = struct.unpack_from("<I", header)
    kind = header[56:60] if size >= _V4 else b""
    if size >= _V5 and kind == _EMBEDDED:
        offset, length = struct.unpack_from("<II", header, 112)
        source.count_metadata(length)
        source.file.seek(source.start + _FILE_HEADER + offset)
        profile = source.file.read(length)
        if len(profile) != length:
            raise ValueError("cut off")
        return Metadata(icc_profile=profile)
    if kind == _LINKED:
        return Metadata(notes=["the colour profile, a separate file, is dropped"])
    if kind == _CALIBRATED:
        return Metadata(colour_chunks=_calibrated(header))
    return Metadata()


def _calibrated(header: bytes) -> list[tuple[bytes, bytes]]:
    """Return PNG's cHRM and gAMA; none where the endpoints are zeros, as most programs leave them."""
    endpoints = [value / 2**30 for value in struct.unpack_from("<9I", header, 60)]
    red, green, blue = (endpoints[at : at + 3] for at in (0, 3, 6))
    gamma = sum(struct.unpack_from("<3I", header, 96)) / 3 / 2**16
    if not all(map(sum, (red, green, blue))):
        return []
    white = [sum(parts) for parts in zip(red, green, blue, strict=True)]
    places = [round(value / sum(colour) * 100_000) for colour in (white, red, green, blue) for value in colour[:2]]
    chunks = [(b"cHRM", struct.pack(">8I", *places))]
    if gamma > 0:
        chunks.append((b"gAMA", struct.pack(">I", round(100_000 / gamma))))
    return chunks
