"""Photoshop's image resources, the wrapping in which JPEG and PNG hold IPTC captions.

Source: Adobe, "Photoshop File Formats Specification", 2019, "Image Resource Blocks".
"""

from __future__ import annotations

import struct

IPTC = 0x0404
JPEG_PREFIX = b"Photoshop 3.0\0"


def block(iptc: bytes) -> bytes:
    """IPTC records as the only resource: signature, number, no name, size, content padded to an even length."""
    return b"8BIM" + struct.pack(">HHI", IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def iptc(data: bytes) -> bytes | None:
    """The IPTC records among image resources; None if there are none or the blocks are damaged."""
    at = 0
    while data[at : at + 4] == b"8BIM" and len(data) >= at + 12:
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 6] + 1
        at += 6 + name + name % 2
        if len(data) < at + 4:
            break
        (size,) = struct.unpack_from(">I", data, at)
        if number == IPTC:
            return data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
    return None
