"""ICC profiles: which a format accepts, and one made for colours that are given as PNG's cICP, or gAMA and cHRM.

Sources: ICC.1:2022 (profile format, 8.3.3 three-component matrix profiles, 10.18 parametric curves); ITU-T H.273
(2021), tables 2 and 3 (primaries, transfer functions); B. Lindbloom, "Chromatic Adaptation" (Bradford matrix).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sr_cli.images import colour, formats, png
from sr_cli.images.formats import OutputFormat
from sr_cli.images.photo import Photo

_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
_D50 = np.array([0.9642, 1.0, 0.8249])
_Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
# White point; red, green and blue.
_PRIMARIES: dict[int, tuple[tuple[float, float], _Points]] = {
    1: (_D65, ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))),  # BT.709, sRGB
    4: ((0.310, 0.316), ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08))),  # BT.470 M
    5: (_D65, ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06))),  # BT.470 BG
    6: (_D65, ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))),  # BT.601
    7: (_D65, ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))),
    9: (_D65, ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),  # BT.2020
    11: (_DCI, ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),  # DCI P3
    12: (_D65, ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),  # Display P3
    22: (_D65, ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077))),
}
_BT709 = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),  # sRGB
}
"""Parameters of a parametric curve, by code point: g alone, or g, a, b, c, d."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def fits(photo: Photo, output: OutputFormat) -> bool:
    """Tell whether decoders of the format accept the photo's profile for these pixels.

    PNG and TIFF want exactly that of gray or RGB; JPEG takes an RGB profile for gray; a palette is RGB.
    """
    if photo.icc_profile is None:
        return False
    space = colour.space(photo.icc_profile)
    if output is formats.GIF:
        return space == b"RGB "
    if output in (formats.JPEG, formats.WEBP) and photo.is_gray:
        return True
    return space == (b"GRAY" if photo.is_gray else b"RGB ")


def equivalent(photo: Photo) -> bytes | None:
    """Build a profile for what the photo's PNG chunks say about colours; None for sRGB, HDR and gray pixels."""
    return None if photo.is_gray or png.says_srgb(photo) else from_chunks(photo.colour_chunks)


def from_chunks(chunks: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Build a matrix profile that says the same as PNG's colour chunks; None for HDR (PQ, HLG) and nonsense."""
    found = dict(chunks)
    if code := found.get(b"cICP"):
        if len(code) != 4 or code[0] not in _PRIMARIES or code[1] not in _CURVES:
            return None
        return _profile(f"H.273 {code[0]}/{code[1]}", *_PRIMARIES[code[0]], _CURVES[code[1]])
    gamma, places = found.get(b"gAMA", struct.pack(">I", 45455)), found.get(b"cHRM")
    if len(gamma) != 4 or (places is not None and len(places) != 32):
        return None
    (exponent,) = struct.unpack(">I", gamma)
    white, points = _PRIMARIES[1]
    if places is not None:
        values = [value / 100_000 for value in struct.unpack(">8I", places)]
        pairs = [(values[at], values[at + 1]) for at in range(0, 8, 2)]
        white, points = pairs[0], (pairs[1], pairs[2], pairs[3])
    if not 1_000 <= exponent <= 1_000_000:
        return None
    try:
        return _profile(f"gamma {100_000 / exponent:.4g}", white, points, (100_000 / exponent,))
    except (np.linalg.LinAlgError, ZeroDivisionError, struct.error):
        return None


def _profile(name: str, white: tuple[float, float], points: _Points, curve: tuple[float, ...]) -> bytes:
    adaptation = _adaptation(_xyz(white))
    columns = np.stack([_xyz(point) for point in points], axis=1)
    matrix = adaptation @ (columns * np.linalg.solve(columns, _xyz(white)))
    tags = {
        b"desc": _text(name),
        b"cprt": _text("No copyright"),
        b"wtpt": _numbers(b"XYZ ", _D50),
        b"chad": _numbers(b"sf32", adaptation.ravel()),
        **{kind: _numbers(b"XYZ ", matrix[:, n]) for n, kind in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve)),
    }
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for kind, data in tags.items():
        table += struct.pack(">4sII", kind, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    date = struct.pack(">6H", 2024, 1, 1, 0, 0, 0)  # the same colours give the same bytes
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, bytes(4), 0x04400000, b"mntr", b"RGB ", b"XYZ ", date, b"acsp")
    header = (header.ljust(68, b"\0") + _fixed(_D50)).ljust(128, b"\0")
    return header + table + body


def _xyz(place: tuple[float, float]) -> NDArray[np.float64]:
    x, y = place
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that makes a white that of D50."""
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    result: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD
    return result


def _fixed(values: NDArray[np.float64] | Sequence[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _numbers(kind: bytes, values: NDArray[np.float64]) -> bytes:
    return kind + bytes(4) + _fixed(values)


def _curve(parameters: tuple[float, ...]) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0 if len(parameters) == 1 else 3, 0) + _fixed(parameters)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data
