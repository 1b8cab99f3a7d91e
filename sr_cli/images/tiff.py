"""TIFF: directories of tags, 16-bit pixels, which Pillow reads as 8 bits, and a writer of pages.

Source: Adobe, "TIFF Revision 6.0", 1992 (the section is named where it matters); predictor and Deflate from
"TIFF Technical Notes", 2002; BigTIFF from the libtiff project. An EXIF block is a TIFF file without pixels
(CIPA DC-008), so the same code carries EXIF from and to TIFF.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.images import exif as exif_block
from sr_cli.images import photoshop
from sr_cli.images.parallel import InOrder
from sr_cli.images.photo import Photo, Pixels
from sr_cli.images.source import PILLOW_TAMED, Source

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 266, 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT = 282, 283, 284, 296
_WHITE_POINT, _PRIMARIES = 318, 319
_PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_SIZES = 317, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _XMP, _IPTC, _PHOTOSHOP, _ICC = 338, 339, 700, 33723, 34377, 34675
_INTEROPERABILITY_IFD = 0xA005
_CHILDREN = (exif_block.EXIF_IFD, exif_block.GPS_IFD, _INTEROPERABILITY_IFD)
# Tags that describe the photograph, not how or where its pixels are stored (section 8; EXIF 2.32, 4.6.4;
# white point and primaries; Microsoft's XP tags and ratings; the EXIF tags that some programs put into the
# main directory).
_DESCRIPTION = {
    *(269, 270, 271, 272, 285, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, 33434, 33437, 34850, 34855),
    *(36867, 36868, 36880, 36881, 36882, 37377, 37378, 37379, 37380, 37381, 37383, 37384, 37385, 37386),
    *(40091, 40092, 40093, 40094, 40095),
}
_PLACES = (_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES)
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 3, 4, 5, 7, 16
_CODES = {_BYTE: "B", _SHORT: "H", _LONG: "I", 13: "I", _LONG8: "Q", 18: "Q"}
_MAX_ENTRIES = 4096
_STRIPE_BYTES = 2**20
_LEVEL = 4


@dataclass(frozen=True)
class Layout:
    """How a file stores numbers: byte order, and 4 or (BigTIFF) 8 bytes for each offset."""

    order: Literal["<", ">"] = "<"
    big: bool = False

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def inline(self) -> int:
        """Bytes of a value that fit into a directory entry."""
        return 8 if self.big else 4

    def pack(self, code: str, *values: int) -> bytes:
        return struct.pack(self.order + code, *values)


@dataclass(frozen=True)
class Field:
    """A tag's value as stored: its type, how many, and the bytes."""

    type: int
    count: int
    data: bytes


@dataclass
class Directory:
    """Tags and, by the tag that points at them, further directories (EXIF, GPS, interoperability)."""

    fields: dict[int, Field] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)

    def numbers(self, tag: int, layout: Layout) -> tuple[int, ...]:
        """The whole numbers of a tag; () if it is absent or of another kind."""
        found = self.fields.get(tag)
        if found is None or found.type not in _CODES:
            return ()
        return struct.unpack(f"{layout.order}{found.count}{_CODES[found.type]}", found.data)

    def number(self, tag: int, layout: Layout, default: int) -> int:
        return next(iter(self.numbers(tag, layout)), default)


class _Reader:
    """Reads numbers and directories out of a file from its current position on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.start = file, file.tell()
        self.size = file.seek(0, 2) - self.start
        head = self.read(0, min(16, self.size))
        order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
        (version,) = struct.unpack_from(order + "H", head, 2)
        if head[:2] not in (b"II", b"MM") or version not in (42, 43):
            raise ValueError("no TIFF header")
        self.layout = Layout(order, version == 43)
        (self.first,) = struct.unpack_from(order + self.layout.offset, head, 8 if self.layout.big else 4)

    def read(self, offset: int, size: int) -> bytes:
        if offset + size > self.size:
            raise ValueError("cut off")
        self.file.seek(self.start + offset)
        return self.file.read(size)

    def numbers(self, code: str, offset: int) -> tuple[int, ...]:
        code = self.layout.order + code
        return struct.unpack(code, self.read(offset, struct.calcsize(code)))

    def directory(self, offset: int, depth: int = 0, count: Source | None = None) -> tuple[Directory, int]:
        """The directory at `offset` and the offset of the next one (0: none). Unreadable tags are left out."""
        layout, result = self.layout, Directory()
        (entries,) = self.numbers("Q" if layout.big else "H", offset)
        if entries > _MAX_ENTRIES:
            raise ValueError("a directory of tags is damaged")
        at, size = offset + (8 if layout.big else 2), 20 if layout.big else 12
        for entry in range(at, at + entries * size, size):
            tag, kind, many = self.numbers("HHQ" if layout.big else "HHI", entry)
            length = _TYPE_SIZES.get(kind, 0) * many
            value_at = entry + size - layout.inline
            if length > layout.inline:
                (value_at,) = self.numbers(layout.offset, value_at)
            if tag in _CHILDREN:
                try:
                    (child,) = self.numbers("I" if kind != _LONG8 else "Q", entry + size - layout.inline)
                    if depth == 2:
                        continue
                    result.children[tag] = self.directory(child, depth + 1, count)[0]
                except (ValueError, struct.error):
                    pass  # what cannot be read cannot be carried
            elif length > 0 and value_at + length <= self.size:
                if count is not None and tag not in _PLACES:
                    count.count_metadata(length)
                result.fields[tag] = Field(kind, many, self.read(value_at, length))
        (following,) = self.numbers(layout.offset, at + entries * size)
        return result, following


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF file."""

    index: int
    """Its place in the file, reduced copies counted."""
    directory: Directory
    layout: Layout

    def number(self, tag: int, default: int) -> int:
        return self.directory.number(tag, self.layout, default)

    def numbers(self, tag: int) -> tuple[int, ...]:
        return self.directory.numbers(tag, self.layout)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.number(_WIDTH, 0), self.number(_LENGTH, 0)

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller copy or a mask of another page (section 8, NewSubfileType)."""
        return bool(self.number(_SUBFILE, 0) & 5)

    @property
    def has_16_bits(self) -> bool:
        """Whether its pixels are 16-bit gray or RGB, with or without alpha."""
        return (
            self.bits == {16}
            and self.number(_PHOTOMETRIC, -1) in (0, 1, 2)
            and set(self.numbers(_SAMPLE_FORMAT)) in ({1}, set())
            and self.number(_COMPRESSION, 1) != 7
        )

    @property
    def bits(self) -> set[int]:
        """Bits per sample."""
        return set(self.numbers(_BITS))

    def block(self, tag: int) -> bytes | None:
        """A tag's bytes; None if it is absent."""
        found = self.directory.fields.get(tag)
        return found.data if found else None

    @property
    def icc_profile(self) -> bytes | None:
        return self.block(_ICC)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Dots per inch across and down."""
        per_inch = {2: 1.0, 3: 2.54}.get(self.number(_RESOLUTION_UNIT, 2))
        stored = [self.block(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
        if per_inch is None or any(block is None or len(block) != 8 for block in stored):
            return None
        pairs = [struct.unpack(self.layout.order + "II", block) for block in stored if block]
        if any(not 0 < above < 1_000_000 * below for above, below in pairs):
            return None
        across, down = (above / below * per_inch for above, below in pairs)
        return across, down

    @property
    def exif(self) -> bytes | None:
        """What describes the photograph, as an EXIF block of its own."""
        kept = {
            tag: value
            for tag, value in self.directory.fields.items()
            if tag in _DESCRIPTION or tag == exif_block.ORIENTATION
        }
        if self.number(_PHOTOMETRIC, 1) > 3:  # ink and Lab become sRGB
            kept.pop(_WHITE_POINT, None)
            kept.pop(_PRIMARIES, None)
        block = Directory(kept, self.directory.children)
        if not block.children and (not kept or (set(kept) == {exif_block.ORIENTATION} and self.number(274, 1) == 1)):
            return None
        layout = Layout(self.layout.order)
        header = (b"II*\0" if layout.order == "<" else b"MM\0*") + layout.pack("I", 8)
        return header + serialised(_without_big(block, self.layout), layout, at=8)


def pages(source: Source) -> list[Page]:
    """All pictures of a TIFF file but reduced copies. Raises ValueError or struct.error if it is damaged."""
    reader = _Reader(source.file)
    found: list[Page] = []
    offset, seen = reader.first, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        directory, offset = reader.directory(offset, count=source)
        found.append(Page(len(found), directory, reader.layout))
        source.check_pixels(*found[-1].size)
        source.check_frames(len(found))
    source.file.seek(source.start)
    return [page for page in found if not page.is_reduced] or found[:1]


def describe(page: Page, photo: Photo) -> Photo:
    """`photo` with the page's metadata; the colour profile belongs to the pixels and is there already."""
    xmp, iptc = page.block(_XMP), page.block(_IPTC)
    if iptc is None and (resources := page.block(_PHOTOSHOP)) is not None:
        iptc = photoshop.iptc(resources)
    return replace(photo, exif=page.exif, xmp=xmp, iptc=iptc, dpi=page.dpi, source_format="TIFF")


def _without_big(directory: Directory, layout: Layout) -> Directory:
    """The directory without the 8-byte types that only BigTIFF knows."""
    fields = {tag: value for tag, value in directory.fields.items() if value.type not in (16, 17, 18)}
    return Directory(fields, {tag: _without_big(child, layout) for tag, child in directory.children.items()})


def serialised(directory: Directory, layout: Layout, at: int, following: int = 0) -> bytes:
    """A directory, its values and its children, to be stored at offset `at`, which is even."""
    pointers = {tag: Field(_LONG8 if layout.big else _LONG, 1, b"") for tag in directory.children}
    entries = dict(sorted((directory.fields | pointers).items()))
    head, body = layout.pack("Q" if layout.big else "H", len(entries)), bytearray()
    size = len(head) + len(entries) * (20 if layout.big else 12) + layout.inline
    for tag, value in entries.items():
        data = value.data
        if tag in directory.children:
            place = at + size + len(body)
            body += serialised(directory.children[tag], layout, place)
            data = layout.pack(layout.offset, place)
        elif len(data) > layout.inline:
            place = at + size + len(body)
            body += data + bytes(len(data) % 2)
            data = layout.pack(layout.offset, place)
        head += layout.pack("HHQ" if layout.big else "HHI", tag, value.type, value.count)
        head += data.ljust(layout.inline, b"\0")
    return head + layout.pack(layout.offset, following) + bytes(body)


# 16-bit pixels


def read_16_bits(source: Source, page: Page) -> Photo:
    """The pixels of a 16-bit page, bit by bit. Raises ValueError or OSError if they are damaged."""
    samples = page.number(_SAMPLES, 1)
    colours = 3 if page.number(_PHOTOMETRIC, 1) == 2 else 1
    if not colours <= samples <= 5:
        raise ValueError(f"{samples} samples per pixel")
    if page.number(_PLANAR, 1) == 2:
        joined = np.concatenate([_plane(source, page, 1, plane, samples) for plane in range(samples)], axis=2)
    else:
        joined = _plane(source, page, samples, 0, 1)
    pixels = np.ascontiguousarray(joined[..., :colours])
    if page.number(_PHOTOMETRIC, 1) == 0:
        pixels = 65535 - pixels  # white is zero
    extra = next(iter(page.numbers(_EXTRA_SAMPLES)), 0)
    if samples == colours or extra not in (1, 2):
        return Photo(pixels)
    alpha = np.ascontiguousarray(joined[..., colours])
    return Photo(_straight(pixels, alpha) if extra == 1 else pixels, alpha)


def _straight(pixels: NDArray[np.uint16], alpha: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Colours that were stored multiplied by alpha, divided by it again."""
    share = np.maximum(alpha, 1).astype(np.float64)[..., None] / 65535
    return np.clip(np.rint(pixels / share), 0, 65535).astype(np.uint16)


def _plane(source: Source, page: Page, samples: int, plane: int, planes: int) -> NDArray[np.uint16]:
    """(H, W, samples) of one plane, whatever its compression: the strips are given to Pillow in a file that
    calls each row of 16-bit samples a row of 8-bit ones, twice as many, without a predictor."""
    width, height = page.size
    tiled = _TILE_OFFSETS in page.directory.fields
    block_width = page.number(_TILE_WIDTH, width) if tiled else width
    block_height = page.number(_TILE_LENGTH, height) if tiled else page.number(_ROWS_PER_STRIP, height)
    if not 0 < block_width <= 2**20 or not block_height > 0:
        raise ValueError("the size of a tile or strip is nonsense")
    across = -(-width // block_width)
    offsets = page.numbers(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    sizes = page.numbers(_TILE_SIZES if tiled else _STRIP_SIZES)
    share = len(offsets) // planes
    # The last strip may be shorter than the others; the last tile is full.
    down = -(-height // block_height)
    if len(offsets) != len(sizes) or share < across * down or (len(offsets) % planes):
        raise ValueError("strips or tiles are missing")
    blocks = slice(plane * share, plane * share + across * down)
    stored = _in_8_bits(source, page, samples, tiled, list(zip(offsets[blocks], sizes[blocks], strict=True)))
    wide = stored.view(page.layout.order + "u2").astype(np.uint16)
    wide = wide.reshape(wide.shape[0], across, block_width, samples)
    if page.number(_PREDICTOR, 1) == 2:
        wide = np.cumsum(wide, axis=2, dtype=np.uint16)
    elif page.number(_PREDICTOR, 1) != 1:
        raise ValueError("its predictor is for floating point")
    return np.ascontiguousarray(wide.reshape(wide.shape[0], across * block_width, samples)[:height, :width])


def _in_8_bits(
    source: Source, page: Page, samples: int, tiled: bool, blocks: Sequence[tuple[int, int]]
) -> NDArray[np.uint8]:
    """The blocks (offset, size) of a plane as bytes (rows, bytes per row), uncompressed by Pillow's libtiff."""
    width, height = page.size
    layout = Layout("<")
    strip = page.number(_ROWS_PER_STRIP, height)
    fields = {_BITS: 8, _COMPRESSION: page.number(_COMPRESSION, 1), _PHOTOMETRIC: 1, _SAMPLES: 1}
    fields[_FILL_ORDER] = page.number(_FILL_ORDER, 1)
    if tiled:
        tile_width, tile_height = page.number(_TILE_WIDTH, 0), page.number(_TILE_LENGTH, 0)
        width, height = -(-width // tile_width) * tile_width, -(-height // tile_height) * tile_height
        fields |= {_TILE_WIDTH: tile_width * samples * 2, _TILE_LENGTH: tile_height}
    else:
        fields |= {_ROWS_PER_STRIP: min(strip, height)}
    source.check_pixels(width, height)
    fields |= {_WIDTH: width * samples * 2, _LENGTH: height}
    if sum(size for _, size in blocks) > source.file.seek(0, 2):
        raise ValueError("strips or tiles overlap or are cut off")
    out = io.BytesIO(b"II*\0\0\0\0\0")
    out.seek(8)
    places = []
    for offset, size in blocks:
        source.file.seek(source.start + offset)
        places.append(out.tell())
        if out.write(source.file.read(size)) < size:
            raise ValueError("a strip or tile is cut off")
    source.file.seek(source.start)
    directory = Directory({tag: Field(_LONG, 1, layout.pack("I", value)) for tag, value in fields.items()})
    for tag, values in ((_TILE_OFFSETS, places), (_TILE_SIZES, [size for _, size in blocks])):
        tag = tag if tiled else {_TILE_OFFSETS: _STRIP_OFFSETS, _TILE_SIZES: _STRIP_SIZES}[tag]
        directory.fields[tag] = Field(_LONG, len(values), layout.pack(f"{len(values)}I", *values))
    at = out.tell() + out.tell() % 2
    out.seek(at)
    out.write(serialised(directory, layout, at))
    out.seek(4)
    out.write(layout.pack("I", at))
    out.seek(0)
    with PILLOW_TAMED.allowing(source.limits.max_pixels * 2 * samples):
        image = Image.open(out, formats=["TIFF"])
        image.load()
    if image.mode != "L":
        raise ValueError(f"unexpected mode {image.mode}")
    return np.asarray(image)


# Writing


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
        """The next picture. several: it is one page of many (section 8, NewSubfileType)."""
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
        """The page's tags. EXIF is in this file's byte order, so its values are carried as they are."""
        directory = Directory()
        if photo.exif is not None:
            directory = _from_exif(photo.exif, self._layout)

        def put(tag: int, kind: int, *values: int) -> None:
            code = f"{len(values)}{_CODES[kind]}"
            directory.fields[tag] = Field(kind, len(values), self._layout.pack(code, *values))

        put(_SUBFILE, _LONG, 2 if several else 0)
        put(_WIDTH, _LONG, photo.width)
        put(_LENGTH, _LONG, photo.height)
        put(_BITS, _SHORT, *[photo.bits] * samples)
        put(_COMPRESSION, _SHORT, 8)
        put(_PHOTOMETRIC, _SHORT, 1 if photo.is_gray else 2)
        put(exif_block.ORIENTATION, _SHORT, 1)
        put(_SAMPLES, _SHORT, samples)
        put(_ROWS_PER_STRIP, _LONG, rows)
        offset_type = _LONG8 if self._layout.big else _LONG
        put(_STRIP_OFFSETS, offset_type, *[offset for offset, _ in self._strips])
        put(_STRIP_SIZES, offset_type, *[size for _, size in self._strips])
        put(_PLANAR, _SHORT, 1)
        put(_PREDICTOR, _SHORT, 2)
        if photo.alpha is not None:
            put(_EXTRA_SAMPLES, _SHORT, 2)  # not multiplied into the colours
        if photo.dpi is not None:
            for tag, dpi in zip((_X_RESOLUTION, _Y_RESOLUTION), photo.dpi, strict=True):
                directory.fields[tag] = Field(_RATIONAL, 1, self._layout.pack("II", round(dpi * 1000), 1000))
            put(_RESOLUTION_UNIT, _SHORT, 2)
        for tag, data in {_XMP: photo.xmp, _IPTC: photo.iptc, _ICC: photo.icc_profile}.items():
            if data is not None:
                directory.fields[tag] = Field(_BYTE if tag == _XMP else _UNDEFINED, len(data), data)
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
    """Rows (n, W, C) and their alpha (n, W) as differences from the pixel to the left, as `stored`, deflated."""
    if alpha is not None:
        rows = np.concatenate([rows, alpha[..., None]], axis=2)
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(np.ascontiguousarray(differences, dtype=stored).data, _LEVEL)


def order_of(photo: Photo) -> Literal["<", ">"]:
    """The byte order in which the photo's EXIF can be carried as it is."""
    return ">" if photo.exif is not None and photo.exif[:2] == b"MM" else "<"


def _from_exif(exif: bytes, layout: Layout) -> Directory:
    """The description of the photograph in an EXIF block; empty if it cannot be read."""
    try:
        reader = _Reader(io.BytesIO(exif))
        directory = reader.directory(reader.first)[0]
    except (ValueError, struct.error):
        return Directory()
    kept = {tag: value for tag, value in directory.fields.items() if tag in _DESCRIPTION}
    described = Directory(kept, directory.children)
    return described if reader.layout.order == layout.order else _swapped(described)


def _swapped(directory: Directory) -> Directory:
    """The same directory in the other byte order."""
    fields = {}
    for tag, value in directory.fields.items():
        unit = 4 if value.type in (_RATIONAL, 10) else _TYPE_SIZES[value.type]  # rationals are two numbers
        data = np.frombuffer(value.data, f"u{unit}").byteswap().tobytes()
        fields[tag] = Field(value.type, value.count, data)
    return Directory(fields, {tag: _swapped(child) for tag, child in directory.children.items()})
