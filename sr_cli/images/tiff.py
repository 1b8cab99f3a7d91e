"""TIFF read: which images a file holds, and their pixels with all bits.

`tifffile` reads tags and lays out strips and tiles; Pillow decodes what has 8 bits or less, and what `tifffile`
cannot decompress. Sources: Adobe, "TIFF Revision 6.0", 1992 (the section is named where it matters); Adobe,
"Digital Negative Specification" 1.7, 2023; raw formats from exiftool's and libraw's documentation.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sr_cli.errors import InputError
from sr_cli.images import photoshop, tiff_tags
from sr_cli.images.photo import Metadata, Photo
from sr_cli.images.pieces import joined
from sr_cli.images.signatures import raw_photo
from sr_cli.images.source import PILLOW_TAMED, Source
from sr_cli.images.tiff_tags import Directories, Directory, Entry, Field, Layout, serialised, to_exif

try:
    import imagecodecs  # noqa: F401  (tifffile finds it by itself)

    _HAS_CODECS = True
except ImportError:
    _HAS_CODECS = False

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its remarks go to standard error

_X_RESOLUTION, _Y_RESOLUTION = 282, 283
# Sizes, samples, compression, strips and tiles, palette, inks, JPEG tables, YCbCr (sections 8, 11, 15 to 22).
_PIXEL_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334, 338),
    *(339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_NOT_THE_PICTURE = 0b1101  #: NewSubfileType: a reduced copy, a mask, a depth map (section 8; DNG).
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}
_RAW_COLOURS = (32803, 34892)  # the sensor's mosaic, and the same with colours filled in
_RAW_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)  # Sony, Epson, Samsung, Nikon, Kodak, Pentax
_CR2_SLICES, _RAW_FILES = 50752, (50706, 34310)  # in the first directory: DNGVersion, Leaf's data
_RAW_MARKS = (b"CR\2", b"IIII", b"MMMM")  # Canon's and Phase One's, after the header
_DEFLATE, _LZW, _PACKBITS = (8, 32946), 5, 32773
# Where and how pixels are stored, what exiftool and libtiff write by themselves, padding (TIFF 6.0; Technical Notes).
_STORAGE = {
    *range(254, 269), *range(273, 285), 288, 289, 290, 291, 292, 293, 296, 297, *range(317, 333), 334, 338, 339, 340,
    341, 342, 347, *range(512, 522), *range(529, 533), 32781, 32995, 32996, 32997, 32998, 59932, 65535,
}  # fmt: skip
_KNOWN_TAGS = (
    ({33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}, "places on the globe (GeoTIFF, GDAL)"),
    ({286, 287}, "the position on a page"),
    ({301, 320, 333, 336, 337}, "tables of inks and transfer functions"),
    ({37724}, "layers of Photoshop"),
    ({50838, 50839}, "ImageJ's metadata"),
)
_MAX_SAMPLES = 8
_LARGEST_TILE = 4096
_NAMES = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE Lab"}
_NAMES |= {9: "ICC Lab", 10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}


@dataclass(frozen=True)
class Page:
    """One image of a TIFF file."""

    tags: tifffile.TiffPage  #: `tifffile`'s view of its directory.
    entries: tuple[Entry, ...]  #: The directory as stored.
    directories: Directories  #: The file's directories.
    notes: tuple[str, ...] = ()  #: Data that was dropped, in words for `losses`.

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.tags.imagewidth, self.tags.imagelength

    @property
    def bits(self) -> int:
        """Bits per sample, of the widest."""
        bits = self.tags.bitspersample
        return max(bits) if isinstance(bits, tuple) else bits

    @property
    def colours(self) -> int:
        """PhotometricInterpretation."""
        return int(self.tags.photometric)

    @property
    def is_deep(self) -> bool:
        """Whether its pixels are gray or RGB of more than 8 bits."""
        return self.bits > 8 and self.colours in _COLOURS

    @property
    def is_the_picture(self) -> bool:
        """Whether it is no reduced copy, mask or depth map of another page."""
        return not self.tags.subfiletype & _NOT_THE_PICTURE

    @property
    def is_raw(self) -> bool:
        """Whether its pixels are those of a camera's sensor."""
        return self.colours in _RAW_COLOURS or int(self.tags.compression) in _RAW_COMPRESSIONS or self.has(_CR2_SLICES)

    def has(self, tag: int) -> bool:
        """Return whether a tag is there."""
        return any(entry.tag == tag for entry in self.entries)

    def block(self, tag: int) -> bytes | None:
        """Return a tag's bytes; None if it is absent."""
        return next((self.directories.value(entry) for entry in self.entries if entry.tag == tag), None)

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile."""
        return self.block(tiff_tags.ICC)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Dots per inch across and down."""
        per_inch = {2: 1.0, 3: 2.54}.get(int(self.tags.resolutionunit))
        stored = [self.block(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
        if per_inch is None or any(block is None or len(block) != 8 for block in stored):
            return None
        pairs = [struct.unpack(self.directories.layout.order + "II", block) for block in stored if block]
        if any(not 0 < above < 1_000_000 * below for above, below in pairs):
            return None
        across, down = (above / below * per_inch for above, below in pairs)
        return across, down

    @property
    def exif(self) -> bytes | None:
        """The tags that describe the photo, as a separate EXIF block."""
        described = self.directories.description(list(self.entries))
        if self.colours > _PALETTE:  # ink and Lab become sRGB
            described.fields.pop(tiff_tags.WHITE_POINT, None)
            described.fields.pop(tiff_tags.PRIMARIES, None)
        return to_exif(described, Layout(self.directories.layout.order))


def pages(source: Source) -> list[Page]:
    """Find all images of a TIFF file in full size, without reduced copies, masks and depth maps.

    Where all pages of the main chain are reduced copies, the full images are looked for in their child
    directories. Raises InputError for a raw photo and above a limit; ValueError, struct.error or
    tifffile.TiffFileError if the file is damaged.
    """
    notes: list[str] = []
    found = list(_chain(source, notes))
    children = [child for page, offsets in found for child in _children(source, page, offsets)]
    every = [page for page, _ in found]
    if _is_raw(source, [*every, *children]):
        raise raw_photo(source.name)
    chosen = [page for page in every if page.is_the_picture] or [page for page in children if page.is_the_picture]
    chosen = chosen or every[:1]
    for page in chosen:
        source.check_pixels(*page.size)
        _check_supported(source, page)
    source.file.seek(source.start)
    return [replace(chosen[0], notes=tuple(notes)), *chosen[1:]]


def _chain(source: Source, notes: list[str]) -> Iterator[tuple[Page, tuple[int, ...]]]:
    """Read the directories of the main chain, and with each the offsets of its children.

    A directory that cannot be read ends the chain, with a note, unless it is the first.
    """
    directories = Directories(source.file, max_entries=64 * (64 + source.limits.max_frames))
    offset, count = directories.first, 0
    file: tifffile.TiffFile | None = None
    while offset and not directories.was_read(offset):
        try:
            entries, following = directories.entries(offset)  # checked before tifffile sees it
        except (ValueError, struct.error):
            if count == 0:
                raise
            notes.append("further pages, which cannot be found, are dropped")
            return
        source.file.seek(source.start)
        if file is None:
            kinds = ("lsm", "scanimage", "ndpi", "stk", "eer", "vista", "philips", "indica")
            file = tifffile.TiffFile(source.file, **{f"is_{kind}": False for kind in kinds})  # type: ignore[arg-type]
        page = _page(source, directories, file, entries, offset)
        count += 1
        source.check_frames(count)
        source.count_metadata(sum(entry.size for entry in entries if entry.tag not in tiff_tags.PLACES))
        offset = following
        yield page, tuple(page.tags.subifds or ()) if page.has(tiff_tags.SUB_IFDS) else ()


def _children(source: Source, parent: Page, offsets: tuple[int, ...]) -> list[Page]:
    """Read the child directories of a page that can be read and were not read before."""
    found = []
    for offset in offsets[: source.limits.max_frames]:
        try:
            if parent.directories.was_read(offset):
                continue
            entries, _ = parent.directories.entries(offset)
            source.count_metadata(sum(entry.size for entry in entries if entry.tag not in tiff_tags.PLACES))
            found.append(_page(source, parent.directories, parent.tags.parent, entries, offset))
        except (ValueError, struct.error, tifffile.TiffFileError):
            continue
    return found


def _page(source: Source, directories: Directories, file: tifffile.TiffFile, entries: list[Entry], offset: int) -> Page:
    file.filehandle.seek(offset)
    return Page(tifffile.TiffPage(file, index=0), tuple(entries), directories)


def _is_raw(source: Source, found: list[Page]) -> bool:
    source.file.seek(source.start + 8)
    mark = source.file.read(4)
    marked = bool(found) and any(found[0].has(tag) for tag in _RAW_FILES)
    return marked or mark.startswith(_RAW_MARKS) or any(page.is_raw and page.is_the_picture for page in found)


def _check_supported(source: Source, page: Page) -> None:
    """Raise InputError, which names it, for a depth or colour space that is not supported."""
    tags, bits = page.tags, page.bits
    colours = _NAMES.get(page.colours, f"colour space {page.colours}")
    formats = tags.sampleformat if isinstance(tags.sampleformat, tuple) else (tags.sampleformat,)
    format = next((_FORMATS[int(kind)] for kind in formats if int(kind) in _FORMATS), None)
    problem = None
    if format is not None:
        problem = f"samples that are {format} of {bits} bits"
    elif bits > 16:
        problem = f"samples of {bits} bits"
    elif page.colours not in (*_COLOURS, _PALETTE, _INK, _YCBCR, _LAB):
        problem = f"the colour space {colours}" if page.colours in _NAMES else colours
    elif bits > 8 and page.colours not in (*_COLOURS, _INK):
        problem = f"{colours} with {bits} bits per sample"
    elif page.colours == _INK and (tags.samplesperpixel < 4 or tags.tags.valueof(332, 1) != 1):
        problem = "inks other than cyan, magenta, yellow and black"
    elif page.is_deep and not _COLOURS[page.colours] <= tags.samplesperpixel <= _MAX_SAMPLES:
        problem = f"{colours} of {tags.samplesperpixel} samples per pixel"
    elif tags.imagedepth != 1:
        problem = f"volumes ({tags.imagedepth} layers)"
    if problem:
        raise unsupported(source, problem)


def unsupported(source: Source, what: str) -> InputError:
    """Build the error for a kind of image that is not supported."""
    return InputError(f"{source.name}: {what} cannot be read; save it as RGB or gray with 8 or 16 bits per sample")


def describe(page: Page, photo: Photo) -> Photo:
    """Add the page's metadata to `photo`; the colour profile belongs to the pixels and is there already."""
    resources = photoshop.read(page.block(tiff_tags.PHOTOSHOP) or b"")
    found = Metadata(exif=page.exif, xmp=page.block(tiff_tags.XMP), iptc=page.block(tiff_tags.IPTC) or resources.iptc)
    found.photoshop, found.dpi = resources.others, page.dpi
    found.notes = [*page.notes, *resources.notes, *_lost_tags(page)]
    return found.describe(photo)


def _lost_tags(page: Page) -> list[str]:
    """Name tags that are neither carried nor about how pixels are stored."""
    left = {entry.tag for entry in page.entries if entry.tag not in tiff_tags.CARRIED and entry.tag not in _STORAGE}
    notes = [f"{what} are dropped" for tags, what in _KNOWN_TAGS if left & tags]
    others = sorted(left.difference(*(tags for tags, _ in _KNOWN_TAGS)))
    if others:
        shown = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
        notes.append(f"TIFF tags that srup does not know are dropped ({shown})")
    return notes


# Pixels


def open_image(source: Source, page: Page) -> Image.Image:
    """Open one page with Pillow. Raises InputError if it cannot read pages of this kind.

    Pillow is given the file with another directory at its end, which holds only what makes pixels. So neither a
    long text nor the page's place in the file matters, and the image is not turned.
    """
    directories, layout = page.directories, page.directories.layout
    fields = {entry.tag: Field(entry.type, entry.length, directories.value(entry))
              for entry in reversed(page.entries) if entry.tag in _PIXEL_TAGS}  # fmt: skip
    at = directories.size + directories.size % 2
    source.file.seek(source.start)
    head = source.file.read(8 if layout.big else 4) + layout.pack(layout.offset, at)
    end = bytes(directories.size % 2) + serialised(Directory(fields), layout, at)
    body = (source.start + len(head), directories.size - len(head))
    try:
        return Image.open(joined(source.file, [head, body, end]), formats=["TIFF"])
    except UnidentifiedImageError:
        raise unsupported(source, f"TIFF of this kind ({_kind(page)})") from None


def _kind(page: Page) -> str:
    """Describe how a page is stored, for people."""
    tags = page.tags
    colours = _NAMES.get(page.colours, f"colour space {page.colours}")
    compression = getattr(tags.compression, "name", tags.compression)
    return f"{colours}, {tags.samplesperpixel} samples of {page.bits} bits, compression {compression}"


def read_deep(source: Source, page: Page) -> Photo | None:
    """Read the pixels of a gray or RGB page of 9 to 16 bits per sample, bit by bit, spread over 16.

    None if nothing that is installed decompresses it. Raises ValueError, OSError or tifffile.TiffFileError if
    they are damaged.
    """
    samples = _samples(source, page)
    if samples is None:
        return None
    colours = _COLOURS[page.colours]
    if page.bits < 16:
        top = (1 << page.bits) - 1
        samples = (samples.astype(np.uint32) * 65535 // top).astype(np.uint16)
    pixels = np.ascontiguousarray(samples[..., :colours])
    if page.colours == _WHITE_IS_ZERO:
        pixels = 65535 - pixels
    extra = next((int(kind) for kind in page.tags.extrasamples), 0)
    if samples.shape[2] == colours or extra not in (1, 2):
        return Photo(pixels)
    alpha = np.ascontiguousarray(samples[..., colours])
    return Photo(_straight(pixels, alpha) if extra == 1 else pixels, alpha)


def _straight(pixels: NDArray[np.uint16], alpha: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Divide colours that were stored multiplied by alpha by it."""
    share = np.maximum(alpha, 1).astype(np.float64)[..., None] / 65535
    return np.clip(np.rint(pixels / share), 0, 65535).astype(np.uint16)


def _samples(source: Source, page: Page) -> NDArray[np.uint16] | None:
    """Read all samples (H, W, S) as stored; None if nothing that is installed decompresses them."""
    tags = page.tags
    code = int(tags.compression)
    ours = code in (1, *_DEFLATE, _LZW, _PACKBITS)
    if tags.dtype != np.uint16 or not (_HAS_CODECS or (ours and page.bits == 16)):
        return None
    width, height = page.size
    if tags.is_tiled:
        for side, whole in ((tags.tilewidth, width), (tags.tilelength, height)):
            if not 0 < side <= max(_LARGEST_TILE, whole + 16):
                raise ValueError("the size of a tile is nonsense")
    blocks = list(zip(tags.dataoffsets, tags.databytecounts, strict=True))
    if len(blocks) < math.prod(tags.chunked) or not all(size for _, size in blocks):
        raise ValueError("strips or tiles are missing")
    planes = tags.samplesperpixel if tags.planarconfig == 2 else 1
    result = np.zeros((planes, height, width, tags.samplesperpixel // planes), np.uint16)
    if ours:
        tags.compression = tifffile.COMPRESSION.NONE  # so that `decode` finds them decompressed
    full = math.prod(tags.chunks) * 2
    rows = tags.tilelength if tags.is_tiled else min(tags.rowsperstrip, height)
    strips = -(-height // rows)  # of a plane; the last one may be shorter
    for index, (offset, size) in enumerate(blocks[: math.prod(tags.chunked)]):
        source.file.seek(source.start + offset)
        data = source.file.read(size)  # fewer at the end of a file: whether that is enough shows in decoding
        if ours:
            left_rows = rows if tags.is_tiled else min(rows, height - index % strips * rows)
            data = _decompressed(code, data, full // rows * left_rows)
        part, (plane, _, top, left, _), _ = tags.decode(data, index)
        if part is None:
            raise ValueError("a strip or tile is empty")
        part = part[0, : height - top, : width - left]
        result[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
    return result[0] if planes == 1 else np.ascontiguousarray(result[..., 0].transpose(1, 2, 0))


def _decompressed(code: int, data: bytes, size: int) -> bytes:
    """Decompress a strip or tile to at most `size` bytes, however much its data would become."""
    if code in _DEFLATE:
        return zlib.decompressobj().decompress(data, size)
    if code == _LZW and not _HAS_CODECS:
        return _lzw_by_pillow(data, size)
    if code in (_LZW, _PACKBITS):
        return bytes(tifffile.TIFF.DECOMPRESSORS[code](data, out=size))
    return data


def _lzw_by_pillow(data: bytes, size: int) -> bytes:
    """Decompress LZW (section 13) to `size` bytes: Pillow reads them as a gray image of one row. Raises OSError."""
    layout, at = Layout(), 8 + len(data) + len(data) % 2
    values = {256: size, 257: 1, 258: 8, 259: _LZW, 262: _BLACK_IS_ZERO, 273: 8, 277: 1, 278: 1, 279: len(data)}
    fields = {tag: Field(tiff_tags.LONG, 1, layout.pack("I", value)) for tag, value in values.items()}
    file = b"II*\0" + layout.pack("I", at) + data.ljust(at - 8, b"\0") + serialised(Directory(fields), layout, at)
    with PILLOW_TAMED.allowing(size), Image.open(io.BytesIO(file), formats=["TIFF"]) as image:
        return image.tobytes()
