"""PNG: metadata, 16-bit pixels and animations, which Pillow reads partly or not at all, and a fast writer.

Source of all chunk layouts, filters and colour types: W3C, "Portable Network Graphics (PNG) Specification
(Third Edition)", 2025; the section is named where it matters.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import exif as exif_block
from sr_cli.images import photoshop, png_chunks
from sr_cli.images.parallel import InOrder
from sr_cli.images.photo import Metadata, Photo, Pixels
from sr_cli.images.png_chunks import Chunk
from sr_cli.images.source import NO_END, Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_METADATA = (b"iCCP", b"eXIf", b"pHYs", b"tRNS", b"tEXt", b"zTXt", b"iTXt")
_COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, _RGB_ALPHA: 4}
# In units of 1/100,000 (11.3.2.1, 11.3.2.2, 11.3.2.5).
_SRGB_GAMMA = struct.pack(">I", 45455)
_SRGB_PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "
_INCH = 0.0254
_STRIPE_BYTES = 2**20
# Level 4 with the Up filter: docs/photos.md has the measurement.
_LEVEL = 4
_UP = 2


# Reading


@dataclass
class Frame:
    """A frame of an animation: its place, what it does to the image, and where its pixels are (11.3.6.2)."""

    width: int
    height: int
    left: int
    top: int
    delay_ms: float
    dispose: int
    blend: int
    pieces: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each piece of the compressed pixels."""


@dataclass(kw_only=True)
class Contents(Metadata):
    """Metadata of a PNG file, and the position of its pixel data."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: int
    animated: bool = False
    plays: int = 0  #: How often the animation is shown; 0: for ever.
    frames: list[Frame] = field(default_factory=list)
    palette: bytes | None = None
    transparency: bytes | None = None  #: The content of tRNS: a transparent colour, or the palette's alpha.
    idat: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each piece of the compressed pixels."""

    @property
    def hides_still(self) -> bool:
        """Whether the image in IDAT is none of the animation's frames (4.9)."""
        return self.animated and bool(self.frames) and self.frames[0].pieces[:1] != self.idat[:1]


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, offset and length of each chunk's content, until IEND or where the file is cut off."""
    file.seek(len(SIGNATURE), 1)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = file.tell()
        yield kind, start, length
        if kind == b"IEND":
            return
        file.seek(start + length + 4)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Build a chunk: length, type, content and checksum (5.3)."""
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def inspect(source: Source) -> Contents:
    """Read all chunks but the pixels. Raises InputError above a limit; struct.error or ValueError if damaged."""
    file = source.file
    size = file.seek(0, 2)
    file.seek(source.start)
    contents: Contents | None = None
    complete, end = False, size
    for kind, offset, length in _chunks(file):
        if contents is None:
            contents = _read_header(source, kind)
        elif kind in (b"IDAT", b"fdAT", b"fcTL", b"acTL"):
            _note_pixels(contents, source, kind, offset, length)
        elif kind != b"IEND":
            source.count_metadata(min(length, max(0, size - offset)))
            data, checksum = file.read(length), file.read(4)
            sound = checksum == struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
            _add_checked(contents, source, kind, data, sound)
        complete, end = kind == b"IEND", offset + length + 4
    if contents is None or not contents.idat:
        raise ValueError("there are no pixels in it")
    if not complete:
        contents.notes.append(NO_END)
    elif size > end and file.seek(end) and file.read(4096).strip(b"\0\r\n "):
        contents.notes.append(f"{size - end:,} bytes after the image are dropped")
    file.seek(source.start)
    contents.frames = [frame for frame in contents.frames if frame.pieces]
    _unpack_raw_profiles(contents)
    carried = png_chunks.read(contents.png_chunks, contents.colour_type, contents.bits, contents.palette)
    contents.png_chunks = carried
    return contents


def _read_header(source: Source, kind: bytes) -> Contents:
    """Read IHDR, which has to be the first chunk (11.2.1)."""
    if kind == b"CgBI":
        raise InputError(f"{source.name}: a PNG out of an iOS app (CgBI) cannot be read; convert it first")
    if kind != b"IHDR":
        raise ValueError("the header is missing")
    width, height, bits, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", source.file.read(13))
    return Contents(width=width, height=height, bits=bits, colour_type=colour_type, interlaced=interlaced)


def _note_pixels(contents: Contents, source: Source, kind: bytes, offset: int, length: int) -> None:
    """Note where compressed pixels are, or what an animation says of them."""
    if kind == b"IDAT":
        contents.idat.append((offset, length))
        if contents.frames:
            contents.frames[-1].pieces.append((offset, length))
    elif kind == b"fdAT":
        if contents.frames and length > 4:
            contents.frames[-1].pieces.append((offset + 4, length - 4))
    elif kind == b"fcTL":
        contents.frames.append(_frame_control(source.file.read(length)))
        source.check_frames(len(contents.frames))
    else:
        contents.animated = True
        contents.plays = struct.unpack(">II", source.file.read(8))[1]


def xmp_packets(file: BinaryIO) -> Iterator[bytes]:
    """Yield the XMP that a file says before its pixels, from its current position, not compressed."""
    head = _XMP_KEYWORD.encode() + bytes(5)
    for kind, _, length in _chunks(file):
        if kind == b"IDAT":
            return
        if kind == b"iTXt" and file.read(len(head)) == head:
            yield file.read(length - len(head))


def _frame_control(data: bytes) -> Frame:
    _, width, height, left, top, above, below, dispose, blend = struct.unpack(">IIIIIHHBB", data)
    return Frame(width, height, left, top, 1000 * above / (below or 100), dispose, blend)


def pixel_data(source: Source, pieces: Sequence[tuple[int, int]]) -> bytes:
    """Read the compressed pixels at `pieces` (offset, length). Raises ValueError if the file is cut off."""
    end = source.file.seek(0, 2)
    if sum(length for _, length in pieces) > end:
        raise ValueError("cut off")
    data = bytearray()
    for offset, length in pieces:
        source.file.seek(offset)
        data += source.file.read(length)
    return bytes(data)


def _add_checked(contents: Contents, source: Source, kind: bytes, data: bytes, sound: bool) -> None:
    """Add a chunk, or name it: a damaged one that is not needed to see the image is skipped (13.2)."""
    if sound and (kind != b"tRNS" or len(data) in _transparency_sizes(contents)):
        _add(contents, source, kind, data)
    elif kind == b"PLTE" and contents.colour_type == _PALETTE:
        raise ValueError("the checksum of its palette")
    else:
        name = kind.decode("latin-1") if kind.isalpha() else kind.hex()
        contents.notes.append(f"the damaged PNG chunk {name} is dropped")


def _transparency_sizes(contents: Contents) -> range:
    """Return the lengths that tRNS can have (11.3.1.1)."""
    if contents.colour_type == _PALETTE:
        return range(1, len(contents.palette or b"") // 3 + 1)
    length = {_GRAY: 2, _RGB: 6}.get(contents.colour_type, 0)
    return range(length, length + 1)


def _add(contents: Contents, source: Source, kind: bytes, data: bytes) -> None:
    if kind == b"PLTE":
        contents.palette = data
    elif kind in _COLOUR_CHUNKS:
        contents.colour_chunks.append((kind, data))
    elif kind in _METADATA:
        with contextlib.suppress(ValueError, struct.error, zlib.error):  # unreadable metadata spoil no image
            _add_metadata(contents, source, kind, data)
    elif kind in png_chunks.CARRIED or kind[3:4].islower():
        # A lower case letter there: safe to copy, whatever was done to the pixels (5.4).
        contents.png_chunks.append((kind, data))
    else:
        name = kind.decode("latin-1") if kind.isalpha() else kind.hex()
        contents.notes.append(f"the PNG chunk {name} is dropped: it describes the original pixels")


def _add_metadata(contents: Contents, source: Source, kind: bytes, data: bytes) -> None:
    """Read a chunk that says something of the photo. Raises ValueError, struct.error or zlib.error if it cannot be."""
    keyword, _, rest = data.partition(b"\0")
    match kind:
        case b"iCCP":
            contents.icc_profile = source.inflate(rest[1:])
        case b"eXIf":
            contents.exif = exif_block.clean(data)
        case b"tRNS":
            contents.transparency = data
        case b"tEXt":
            _add_text(contents, keyword, rest)
        case b"zTXt":
            _add_text(contents, keyword, source.inflate(rest[1:]))
        case b"iTXt":
            _add_unicode_text(contents, source, keyword, rest)
        case b"pHYs":
            across, down, unit = struct.unpack(">IIB", data)
            if unit == 1 and across and down:
                contents.dpi = across * _INCH, down * _INCH
            elif across != down:  # only the proportions of a pixel
                contents.png_chunks.append((kind, data))


def _add_text(contents: Contents, keyword: bytes, text: bytes) -> None:
    """Add text in Latin-1; some programs put XMP there, which is UTF-8."""
    if keyword == _XMP_KEYWORD.encode():
        contents.xmp = contents.xmp or text
    else:
        contents.text.append((keyword.decode("latin-1"), text.decode("latin-1")))


def _add_unicode_text(contents: Contents, source: Source, keyword: bytes, rest: bytes) -> None:
    compressed, rest = rest[:1] == b"\1", rest[2:]
    language, translated, text = rest.split(b"\0", 2)
    text = source.inflate(text) if compressed else text
    if keyword == _XMP_KEYWORD.encode():
        contents.xmp = text
    elif language or translated:
        contents.png_chunks.append((b"iTXt", keyword + bytes(3) + language + b"\0" + translated + b"\0" + text))
    else:
        contents.text.append((keyword.decode("latin-1"), text.decode("utf-8", "replace")))


def _unpack_raw_profiles(contents: Contents) -> None:
    """Unpack EXIF and XMP as ImageMagick stored them before there was a chunk for them: text of hexadecimal digits."""
    text, contents.text = contents.text, []
    for keyword, content in text:
        if not keyword.startswith(_RAW_PROFILE):
            contents.text.append((keyword, content))
            continue
        try:
            data = bytes.fromhex("".join(content.split()[2:]))  # after the profile's name and length
        except ValueError:
            contents.notes.append("unreadable metadata in a text chunk are dropped")
            continue
        if data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            contents.xmp = contents.xmp or data.partition(b"\0")[2]
        elif keyword.endswith("xmp"):
            contents.xmp = contents.xmp or data
        elif keyword.endswith(("iptc", "8bim")):
            resources = photoshop.read(data)
            contents.iptc = contents.iptc or resources.iptc or (data if data[:1] == b"\x1c" else None)
            contents.photoshop = contents.photoshop or resources.others
            contents.notes += resources.notes
        elif keyword.endswith(("icc", "icm")):
            contents.icc_profile = contents.icc_profile or data
        elif keyword.endswith(("exif", "APP1")):
            contents.exif = contents.exif or exif_block.clean(data)


def read_16_bits(source: Source, contents: Contents) -> Photo:
    """Read the pixels of a 16-bit file, bit by bit. Raises InputError or ValueError if they are damaged."""
    data = bytearray()
    for offset, length in contents.idat:
        source.file.seek(offset)
        piece, checksum = source.file.read(length), source.file.read(4)
        # At the end of a file that is cut off there is no checksum; the decoder sees whether pixels are missing.
        if len(checksum) == 4 and checksum != struct.pack(">I", zlib.crc32(piece, zlib.crc32(b"IDAT"))):
            raise InputError(f"{source.name}: the photo is damaged or cut off (checksum of its pixels)")
        data += piece
    return decoded_16_bits(bytes(data), contents)


def decoded_16_bits(data: bytes, contents: Contents) -> Photo:
    """Decode the pixels of a 16-bit image from its compressed stream. Raises ValueError if that is damaged."""
    samples = _unfiltered(data, contents)
    if contents.colour_type in (_GRAY_ALPHA, _RGB_ALPHA):
        return Photo(np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1]))
    if contents.transparency is None:
        return Photo(samples)
    colour = np.frombuffer(contents.transparency, ">u2", samples.shape[2])
    return Photo(samples, np.where((samples == colour).all(axis=2), 0, 65535).astype(np.uint16))


def _unfiltered(data: bytes, contents: Contents) -> NDArray[np.uint16]:
    """Decode samples (H, W, 1 to 4) from the compressed stream, all filters and Adam7 undone by Pillow's decoder.

    That decoder knows no image of several 16-bit samples, but it works on pixels of as many bytes: one or
    two samples pass as pixels of 2 or 4 bytes; of three or four it gives the higher bytes ("16B" says big
    endian, as stored) and in a second run the lower ones ("16L", the same as if it were little endian).
    """
    size, samples = (contents.width, contents.height), _SAMPLES[contents.colour_type]

    def decode(mode: str, raw_mode: str) -> NDArray[np.uint8]:
        return np.asarray(Image.frombytes(mode, size, data, "zip", raw_mode, contents.interlaced))

    if samples <= 2:
        mode = "LA" if samples == 1 else "RGBA"
        return decode(mode, mode).view(">u2").astype(np.uint16)
    mode = "RGB" if samples == 3 else "RGBA"
    joined = decode(mode, f"{mode};16B").astype(np.uint16)
    joined <<= 8
    joined |= decode(mode, f"{mode};16L")
    return joined


# Writing


def metadata_chunks(photo: Photo) -> list[Chunk]:
    """Build everything that goes between the header and the pixels, in the order of section 5.6."""
    chunks = [chunk for chunk in photo.colour_chunks if photo.icc_profile is None or chunk[0] != b"sRGB"]
    if photo.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc_profile)))
    if photo.dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(dpi / _INCH) for dpi in photo.dpi), 1)))
    if photo.exif is not None:
        chunks.append((b"eXIf", photo.exif))
    if photo.xmp is not None:
        chunks.append((b"iTXt", _XMP_KEYWORD.encode() + bytes(5) + photo.xmp))
    if photo.iptc is not None or photo.photoshop:
        chunks.append(_raw_profile("iptc", photoshop.block(photo.iptc, photo.photoshop)))
    chunks += png_chunks.write(photo.png_chunks, photo.pixels.shape[2], photo.alpha is not None, photo.bits)
    chunks += [_text_chunk(keyword, text) for keyword, text in photo.text]
    return chunks


def _raw_profile(kind: str, data: bytes) -> Chunk:
    """Build ImageMagick's text of hexadecimal digits: the only form in which other programs find IPTC in a PNG."""
    digits = data.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    text = f"\n{kind}\n{len(data):8}\n" + "\n".join(lines) + "\n"
    return b"zTXt", (_RAW_PROFILE + kind).encode() + b"\0\0" + zlib.compress(text.encode())


def _text_chunk(keyword: str, text: str) -> Chunk:
    """Build tEXt where Latin-1 suffices, else iTXt (11.3.3). Bytes that were no UTF-8 are taken for Latin-1."""
    key = keyword.encode("latin-1", "replace")[:79] or b"Comment"
    text = text.replace("\0", "")
    try:
        return b"tEXt", key + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        pass
    try:
        return b"iTXt", key + bytes(5) + text.encode()
    except UnicodeEncodeError:
        return b"tEXt", key + b"\0" + text.encode("utf-8", "surrogateescape")


def says_srgb(photo: Photo) -> bool:
    """Tell whether the photo's PNG colour chunks say no more than what every viewer assumes without them: sRGB."""
    chunks = dict(photo.colour_chunks)
    if b"cICP" in chunks:
        return False
    gamma, primaries = chunks.get(b"gAMA", _SRGB_GAMMA), chunks.get(b"cHRM", _SRGB_PRIMARIES)
    if b"sRGB" in chunks or len(gamma) != 4 or len(primaries) != 32:
        return True
    stored, expected = (struct.unpack(">9I", part) for part in (gamma + primaries, _SRGB_GAMMA + _SRGB_PRIMARIES))
    return all(abs(a - b) <= 100 for a, b in zip(stored, expected, strict=True))


class PixelType(NamedTuple):
    """Samples of a pixel."""

    channels: int  #: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
    bits: int = 8  #: 8 or 16 a sample.


class PngWriter:
    """A PNG file written as its rows arrive, compressed on all cores; at most a few MB are kept in memory.

    The rows are cut into stripes of about 1 MB, each deflated by itself up to a byte boundary (a sync flush),
    so the pieces join to one stream; only references further back than the stripe's beginning are lost.

        with PngWriter(file, (width, height), PixelType(channels=3)) as writer:
            writer.write(rows)  # (n, width, channels), until there were `height` of them

    Several frames make an animation: `next_frame` begins each.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: tuple[int, int],
        pixel_type: PixelType,
        *,
        chunks: Sequence[Chunk] = (),
        animation: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        """Write what goes before the pixels.

        size: width and height. chunks: metadata. animation: its frames, and how often they are shown (0: ever).
        """
        width, height = size
        frames = animation[0] if animation else 1
        self._file, self._channels, self._bits = file, pixel_type.channels, pixel_type.bits
        self._shape, self._frames_left, self._sequence = (height, width), frames, 0
        self._pieces: InOrder[_Piece] = InOrder(self._put, threads)
        file.write(SIGNATURE)
        colour_type = {1: _GRAY, 2: _GRAY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}[self._channels]
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, self._bits, colour_type, 0, 0, 0))
        if animation:
            self._chunk(b"acTL", struct.pack(">II", *animation))
        for kind, content in chunks:
            self._chunk(kind, content)
        self._first, self._begun = True, False  # in the first frame; in any frame
        if not animation:
            self._begin(height, width)

    def next_frame(self, delay_ms: float, box: tuple[int, int, int, int] | None = None) -> None:
        """Begin the next frame of an animation: `box` (left, top, width, height) is what it replaces."""
        if self._begun:
            self._end_frame()
        height, width = self._shape
        left, top, wide, high = box or (0, 0, width, height)
        delay = _delay(delay_ms)
        # Neither disposed of nor blended: the rows replace what was in the box (11.3.6.2).
        self._chunk(b"fcTL", self._number() + struct.pack(">IIIIHHBB", wide, high, left, top, *delay, 0, 0))
        self._begin(high, wide)

    def write(self, rows: Pixels) -> None:
        """Write the next rows (n, width, channels) of the type that `bits` says; not to be changed afterwards."""
        if rows[:1].size * self._bits // 8 != self._row_bytes or len(rows) > self._rows_left:
            raise ValueError(f"{rows.shape} does not fit into the rest of the image")
        self._rows_left -= len(rows)
        for top in range(0, len(rows), self._stripe_rows):
            part = rows[top : top + self._stripe_rows]
            raw = np.ascontiguousarray(part, dtype=">u2" if self._bits == 16 else np.uint8)
            self._waiting.append(raw.reshape(len(part), -1).view(np.uint8))
            self._rows_waiting += len(part)
            if self._rows_waiting >= self._stripe_rows:
                self._submit()

    def close(self) -> None:
        """Write what is left. Raises ValueError if rows are missing."""
        self._end_frame()
        if self._frames_left:
            raise ValueError(f"{self._frames_left} frames are missing")
        self._chunk(b"IEND", b"")

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._pieces.__exit__(kind, value, trace)

    def _begin(self, height: int, width: int) -> None:
        self._begun = True
        self._rows_left, self._row_bytes = height, width * self._channels * self._bits // 8
        self._stripe_rows = max(1, _STRIPE_BYTES // self._row_bytes)
        self._waiting: list[NDArray[np.uint8]] = []
        self._rows_waiting, self._adler = 0, 1
        self._above = np.zeros(self._row_bytes, np.uint8)
        self._header = b"\x78\x5e"  # zlib: a window of 32 KB, compressed fast

    def _submit(self) -> None:
        stripe = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._rows_waiting = [], 0
        self._pieces.submit(_deflated, self._above, stripe)
        self._above = stripe[-1].copy()

    def _put(self, piece: _Piece) -> None:
        self._adler = _adler32_joined(self._adler, piece.adler, piece.size)
        self._data(self._header + piece.data)
        self._header = b""

    def _end_frame(self) -> None:
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows are missing")
        if self._waiting:
            self._submit()
        self._pieces.finish()
        self._data(b"\x03\0" + struct.pack(">I", self._adler))  # an empty last block, the checksum
        self._first = False
        self._frames_left -= 1

    def _data(self, data: bytes) -> None:
        if self._first:
            self._chunk(b"IDAT", data)
        else:
            self._chunk(b"fdAT", self._number() + data)

    def _number(self) -> bytes:
        self._sequence += 1
        return struct.pack(">I", self._sequence - 1)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(chunk(kind, content))


@dataclass(frozen=True)
class _Piece:
    """A stripe: its deflated bytes, and Adler-32 and size of what they stand for."""

    data: bytes
    adler: int
    size: int


def _deflated(above: NDArray[np.uint8], rows: NDArray[np.uint8]) -> _Piece:
    """Deflate rows of bytes (n, row) with the Up filter, up to a byte boundary."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    np.subtract(rows[0], above, out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    data = deflater.compress(filtered.data) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return _Piece(data, zlib.adler32(filtered.data), filtered.size)


def _adler32_joined(first: int, second: int, second_size: int) -> int:
    """Join the Adler-32 of two pieces (RFC 1950, section 8, solved for the concatenation)."""
    prime = 65521
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % prime
    high = ((first >> 16) + (second >> 16) + second_size % prime * ((first & 0xFFFF) - 1)) % prime
    return high << 16 | low


def _delay(milliseconds: float) -> tuple[int, int]:
    """Return a frame's duration as the fraction of a second that fcTL holds: two numbers below 65,536."""
    if milliseconds < 65_535:
        return round(milliseconds), 1000
    return min(65_535, round(milliseconds / 100)), 10
