"""A writer of TIFF: page by page and strip by strip, deflated on all cores.

Sources: Adobe, "TIFF Revision 6.0", 1992 (the section is named where it matters); Deflate from "TIFF Technical
Notes", 2002; BigTIFF from the libtiff project.
"""

from __future__ import annotations

import zlib
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np

from sr_cli.images import tiff_tags
from sr_cli.images.parallel import InOrder
from sr_cli.images.photo import Photo, Pixels
from sr_cli.images.tiff_tags import CODES, LONG, LONG8, SHORT, Directory, Field, Layout, from_exif, serialised

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT, _PREDICTOR, _EXTRA_SAMPLES = 282, 283, 284, 296, 317, 338
_STRIPE_BYTES = 2**20
_LEVEL = 4


class TiffWriter:
    """A TIFF file written page by page and strip by strip, deflated on all cores.

    Horizontal differences (predictor 2) before Deflate, strips of about 1 MB. Offsets have 64 bits (BigTIFF)
    only if the uncompressed pixels would not fit into 4 GB.

        with TiffWriter(file, order=order_of(photo)) as writer:
            writer.page(photo)
    """

    def __init__(self, file: BinaryIO, *, order: Literal["<", ">"] = "<", big: bool = False) -> None:
        self._file, self._layout = file, Layout(order, big)
        self._strips: list[tuple[int, int]] = []
        self._pieces: InOrder[bytes] = InOrder(self._put)
        file.write((b"II" if order == "<" else b"MM") + self._layout.pack("H", 43 if big else 42))
        if big:
            file.write(self._layout.pack("HH", 8, 0))
        self._link = file.tell()  # where the offset of the next directory belongs
        file.write(self._layout.pack(self._layout.offset, 0))

    def page(self, photo: Photo, *, several: bool = False) -> None:
        """Write the next image. several: it is one page of many (section 8, NewSubfileType)."""
        stored = np.dtype("u1" if photo.bits == 8 else f"{self._layout.order}u2")
        samples = photo.pixels.shape[2] + (photo.alpha is not None)
        rows = max(1, _STRIPE_BYTES // (photo.width * samples * stored.itemsize))
        self._strips = []
        for top in range(0, photo.height, rows):
            alpha = None if photo.alpha is None else photo.alpha[top : top + rows]
            self._pieces.submit(_deflated, photo.pixels[top : top + rows], alpha, stored)
        self._pieces.finish()
        self._directory(self._describe(photo, samples, rows, several))

    def _describe(self, photo: Photo, samples: int, rows: int, several: bool) -> Directory:
        """Build the page's tags. EXIF is in this file's byte order, so its values are carried as they are."""
        directory = Directory()
        if photo.exif is not None:
            directory = from_exif(photo.exif, self._layout)

        def put(tag: int, kind: int, *values: int) -> None:
            code = f"{len(values)}{CODES[kind]}"
            directory.fields[tag] = Field(kind, len(values), self._layout.pack(code, *values))

        put(_SUBFILE, LONG, 2 if several else 0)
        put(_WIDTH, LONG, photo.width)
        put(_LENGTH, LONG, photo.height)
        put(_BITS, SHORT, *[photo.bits] * samples)
        put(_COMPRESSION, SHORT, 8)
        put(_PHOTOMETRIC, SHORT, 1 if photo.is_gray else 2)
        put(tiff_tags.ORIENTATION, SHORT, 1)
        put(_SAMPLES, SHORT, samples)
        put(_ROWS_PER_STRIP, LONG, rows)
        offset_type = LONG8 if self._layout.big else LONG
        put(_STRIP_OFFSETS, offset_type, *[offset for offset, _ in self._strips])
        put(_STRIP_SIZES, offset_type, *[size for _, size in self._strips])
        put(_PLANAR, SHORT, 1)
        put(_PREDICTOR, SHORT, 2)
        if photo.alpha is not None:
            put(_EXTRA_SAMPLES, SHORT, 2)  # not multiplied into the colours
        if photo.dpi is not None:
            for tag, dpi in zip((_X_RESOLUTION, _Y_RESOLUTION), photo.dpi, strict=True):
                directory.fields[tag] = Field(tiff_tags.RATIONAL, 1, self._layout.pack("II", round(dpi * 1000), 1000))
            put(_RESOLUTION_UNIT, SHORT, 2)
        blocks = {
            tiff_tags.XMP: photo.xmp,
            tiff_tags.IPTC: photo.iptc,
            tiff_tags.PHOTOSHOP: photo.photoshop,
            tiff_tags.ICC: photo.icc_profile,
        }
        for tag, data in blocks.items():
            if data:
                directory.fields[tag] = Field(
                    tiff_tags.BYTE if tag == tiff_tags.XMP else tiff_tags.UNDEFINED, len(data), data
                )
        return directory

    def _directory(self, directory: Directory) -> None:
        at = self._file.seek(0, 2)
        self._file.write(bytes(at % 2))
        at += at % 2
        data = serialised(directory, self._layout, at)
        entries = len(directory.fields) + len(directory.children)
        self._file.write(data)
        self._file.seek(self._link)
        self._file.write(self._layout.pack(self._layout.offset, at))
        self._file.seek(0, 2)
        self._link = at + (8 + 20 * entries if self._layout.big else 2 + 12 * entries)

    def _put(self, strip: bytes) -> None:
        self._strips.append((self._file.seek(0, 2), len(strip)))
        self._file.write(strip)

    def __enter__(self) -> TiffWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pieces.__exit__(kind, value, trace)


def _deflated(rows: Pixels, alpha: Pixels | None, stored: np.dtype[np.unsignedinteger]) -> bytes:
    """Deflate rows (n, W, C) and their alpha (n, W) as differences from the pixel to the left, as `stored`."""
    if alpha is not None:
        rows = np.concatenate([rows, alpha[..., None]], axis=2)
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(np.ascontiguousarray(differences, dtype=stored).data, _LEVEL)


def order_of(photo: Photo) -> Literal["<", ">"]:
    """Return the byte order in which the photo's EXIF can be carried as it is."""
    return ">" if photo.exif is not None and photo.exif[:2] == b"MM" else "<"
