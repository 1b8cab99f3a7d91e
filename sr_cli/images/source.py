"""Inputs opened, limits kept, and a decoder's many ways to fail turned into one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from sr_cli.errors import InputError, OutOfMemory, SrupError, reason_of
from sr_cli.images.photo import Limits
from sr_cli.images.signatures import HEAD_BYTES, identify

NO_END = "the file is cut off at its end; no pixel is missing"
"""The note on a file that is cut off but lacks no pixel."""
_PIECE_BYTES = 2**20


@dataclass
class Source:
    """An opened input: its seekable content, its format, its name for messages, when it was changed, its limits."""

    file: BinaryIO
    name: str
    format: str  #: Pillow's name of the format, by the first bytes.
    modified_ns: int | None
    limits: Limits
    start: int = 0  #: Where in `file` the content begins.
    metadata_bytes: int = field(default=0, init=False)

    def check_frames(self, frames: int) -> None:
        """Raise InputError for more frames or pages than the limit."""
        if frames > self.limits.max_frames:
            raise self._over(f"holds more than {self.limits.max_frames:,} frames or pages", "--max-frames")

    def check_pixels(self, width: int, height: int, frames: int = 1) -> None:
        """Raise InputError for an image without pixels, or if all frames together have more than the limit."""
        if width < 1 or height < 1:
            raise InputError(f"{self.name}: has no pixels ({width}x{height})")
        self.check_frames(frames)
        self.check_total(width * height * frames, f"{width}x{height}" + (f" times {frames}" if frames > 1 else ""))

    def check_total(self, pixels: int, size: str) -> None:
        """Raise InputError if images of `pixels` together, described as `size`, have more than the limit."""
        if pixels > self.limits.max_pixels:
            raise self.too_large(size)

    def too_large(self, size: str) -> InputError:
        """Return the error for what has more pixels than the limit."""
        return self._over(f"{size} is more than {self.limits.max_pixels:,} pixels", "--max-pixels")

    def count_metadata(self, size: int) -> None:
        """Count bytes of metadata. Raises InputError above the limit."""
        self.metadata_bytes += size
        if self.metadata_bytes > self.limits.max_metadata_bytes:
            limit = self.limits.max_metadata_bytes
            raise self._over(f"holds more than {limit:,} bytes of metadata", "--max-metadata-bytes")

    def _over(self, what: str, option: str) -> InputError:
        return InputError(f"{self.name}: {what}; raise the limit with {option} if you trust it")

    def inflate(self, data: bytes) -> bytes:
        """Inflate metadata compressed by zlib, and count it. Raises zlib.error, and InputError above the limit."""
        room = self.limits.max_metadata_bytes - self.metadata_bytes
        inflater = zlib.decompressobj()
        content = inflater.decompress(data, room + 1)
        self.count_metadata(len(content))
        if not inflater.eof:
            raise zlib.error("cut off")
        return content


@contextlib.contextmanager
def opened(source: Path | BinaryIO, limits: Limits) -> Iterator[Source]:
    """Open a path or a stream (which need not be seekable) for decoders.

    A pipe or a device is read into memory, once, up to the limit and only if it begins like an image. Raises
    InputError.
    """
    if not isinstance(source, Path):
        name = getattr(source, "name", "")
        name = "standard input" if name == "<stdin>" else name if isinstance(name, str) and name else "the input"
        yield _checked(source, name, limits)
        return
    if source.is_dir():
        raise InputError(f"{source}: is a folder, not a photo")
    try:
        with source.open("rb") as file:
            yield _checked(file, str(source), limits)
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except PermissionError:
        raise InputError(f"{source}: no permission to read it") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {reason_of(error)}") from error


def _checked(file: BinaryIO, name: str, limits: Limits) -> Source:
    modified, regular = None, True
    with contextlib.suppress(OSError, AttributeError):  # streams in memory have no file
        status = os.fstat(file.fileno())
        regular = stat.S_ISREG(status.st_mode)
        modified = status.st_mtime_ns if regular else None
    seekable = regular and file.seekable()
    start = file.tell() if seekable else 0
    head = _read(file, HEAD_BYTES)
    if not head:
        raise InputError(f"{name}: is empty")
    format = identify(name, head)
    if not seekable:
        file = _buffered(file, head, name, limits.max_input_bytes)
    file.seek(start)
    return Source(file, name, format, modified, limits, start)


def _read(file: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: an unbuffered pipe gives what is there."""
    data = b""
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return data


def _buffered(file: BinaryIO, head: bytes, name: str, limit: int) -> BinaryIO:
    """Read the rest of a stream that began with `head`. Raises InputError for more than `limit` bytes in all."""
    content, piece = io.BytesIO(), head
    while piece:
        content.write(piece)
        if content.tell() > limit:
            raise InputError(f"{name}: is larger than {limit:,} bytes; raise --max-input if you trust it")
        piece = file.read(_PIECE_BYTES)
    return content


class _PillowTamed:
    """Pillow's limit on pixels is a global, ours an argument.

    While any thread is inside, Pillow refuses what is above the largest limit of those inside; afterwards the limit is
    as it was. Its warnings are left alone: `warnings.catch_warnings` of two threads would mix up each other's filters
    (the command line ignores Pillow's from the start).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: list[int] = []

    @contextlib.contextmanager
    def allowing(self, pixels: int) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._before = Image.MAX_IMAGE_PIXELS
            self._inside.append(pixels)
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._inside.remove(pixels)
                self._set()

    def _set(self) -> None:
        # Pillow warns above its limit and refuses above twice of it.
        Image.MAX_IMAGE_PIXELS = max(self._inside) // 2 + 1 if self._inside else self._before


PILLOW_TAMED = _PillowTamed()


@contextlib.contextmanager
def decoding(source: Source) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged or hostile bytes into one `InputError`.

    Decoders raise nearly every built-in exception on such files (struct.error, IndexError, SyntaxError, ...);
    all of them mean the same here. Only the decoding of a file belongs inside.
    """
    try:
        with PILLOW_TAMED.allowing(source.limits.max_pixels):
            yield
    except SrupError:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{source.name}: does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise source.too_large("a frame") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{source.name}: the photo is damaged or cut off (its headers)") from error
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        if detail.lower().startswith("unsupported "):
            raise InputError(f"{source.name}: {detail.lower()}; save it with 8 or 16 bits per sample") from error
        raise InputError(f"{source.name}: the photo is damaged or cut off ({detail})") from error
