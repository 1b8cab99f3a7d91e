"""XMP packets: the two properties that an enlargement makes wrong, changed in place as text."""

from __future__ import annotations

import re


def _set(packet: bytes, name: bytes, value: int) -> bytes:
    """Every `name="..."` and `<name>...</name>` with a decimal value gets `value`."""
    number = str(value).encode()
    packet = re.sub(rb"(\b" + name + rb"\s*=\s*[\"'])\d+([\"'])", rb"\g<1>" + number + rb"\g<2>", packet)
    return re.sub(rb"(<" + name + rb">\s*)\d+(\s*</" + name + rb">)", rb"\g<1>" + number + rb"\g<2>", packet)


def edited(packet: bytes, *, upright: bool = False, size: tuple[int, int] | None = None) -> bytes:
    """The packet with tiff:Orientation 1 (`upright`) and the dimensions `size` (width, height).

    Only properties that are there are changed. Packets in UTF-16, which files practically never hold, stay
    as they are.
    """
    if upright:
        packet = _set(packet, b"tiff:Orientation", 1)
    if size is not None:
        for name, value in ((b"ImageWidth", size[0]), (b"ImageLength", size[1])):
            packet = _set(packet, b"tiff:" + name, value)
        for name, value in ((b"PixelXDimension", size[0]), (b"PixelYDimension", size[1])):
            packet = _set(packet, b"exif:" + name, value)
    return packet
