"""Files to `Photo`s. Every failure of a decoder on a bad file is one `InputError`."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sr_cli.errors import InputError, OutOfMemory
from sr_cli.images import exif as exif_block
from sr_cli.images import xmp as xmp_packet
from sr_cli.images.formats import READABLE
from sr_cli.images.photo import Limits, Photo, Pixels, with_pixels

TIFF_XMP = 700
# Tags of a TIFF file that describe the photograph, not how its pixels are stored (TIFF 6.0, section 8).
TIFF_DESCRIPTION = (270, 271, 272, 305, 306, 315, 316, 33432)


@dataclass(frozen=True)
class Source:
    """An opened input: its content, its name for messages, and when it was changed."""

    file: BinaryIO
    name: str
    modified_ns: int | None


@contextlib.contextmanager
def opened(source: Path | BinaryIO) -> Iterator[Source]:
    """A path or a stream (which need not be seekable) as something that decoders can read. Raises InputError."""
    if isinstance(source, Path):
        if source.is_dir():
            raise InputError(f"{source}: is a folder, not a picture")
        try:
            with source.open("rb") as file:
                yield _checked(file, str(source))
        except FileNotFoundError:
            raise InputError(f"{source}: no such file") from None
        except PermissionError:
            raise InputError(f"{source}: no permission to read it") from None
        except OSError as error:
            raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    else:
        yield _checked(source, "standard input" if getattr(source, "name", "") == "<stdin>" else "the input")


def _checked(file: BinaryIO, name: str) -> Source:
    modified = None
    with contextlib.suppress(OSError, AttributeError):  # streams in memory have no file behind them
        status = os.fstat(file.fileno())
        modified = status.st_mtime_ns if stat.S_ISREG(status.st_mode) else None
    if not file.seekable():
        file = io.BytesIO(file.read())
    start = file.tell()
    if not file.read(1):
        raise InputError(f"{name}: is empty")
    file.seek(start)
    return Source(file, name, modified)


class _PillowTamed:
    """Pillow's own limit on pixels is a global, ours is an argument; its warnings matter only if it fails.

    Both are off while any thread is inside, and as they were afterwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._warnings.__exit__(None, None, None)


_PILLOW_TAMED = _PillowTamed()


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Whatever a decoder raises on damaged or hostile bytes becomes one `InputError`.

    Decoders raise nearly every built-in exception on such files (struct.error, IndexError, SyntaxError, ...);
    all of them mean the same here. Only calls into decoders belong inside.
    """
    try:
        with _PILLOW_TAMED:
            yield
    except (InputError, OutOfMemory):
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{name}: does not fit into memory") from error
    except UnidentifiedImageError as error:
        known = ", ".join(READABLE)
        raise InputError(f"{name}: not a picture in a format that can be read ({known}), or damaged") from error
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: the picture is damaged or cut off ({detail})") from error


def check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    """Raises InputError for a picture without pixels or with more than the limit."""
    if width < 1 or height < 1:
        raise InputError(f"{name}: has no pixels ({width}x{height})")
    if width * height > limits.max_pixels:
        raise InputError(
            f"{name}: {width}x{height} is more than {limits.max_pixels:,} pixels; "
            "raise the limit with --max-pixels if you trust it"
        )


def read(source: Path | BinaryIO, *, limits: Limits | None = None) -> Photo:
    """The picture in a file or stream (the first one if it holds several), upright.

    Raises InputError with one line that names the file: missing, a folder, empty, no picture of a format we
    read, damaged, cut off, or over a limit; OutOfMemory if it does not fit.
    """
    limits = limits or Limits()
    with opened(source) as input, decoding(input.name):
        image = Image.open(input.file, formats=READABLE)
        check_pixels(input.name, image.width, image.height, limits)
        exif = _tiff_exif(image) if image.format == "TIFF" else image.info.get("exif")
        image.load()  # a TIFF is turned upright by this
        photo = _metadata(image, *channels(image), exif_block.clean(exif) if isinstance(exif, bytes) else None)
        _check_metadata(input.name, photo, limits)
        photo = upright(photo, turned=image.format == "TIFF")
    return replace(photo, modified_ns=input.modified_ns)


def channels(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """(H, W, 1 or 3) and alpha (H, W) or None of a decoded frame in any of Pillow's modes."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return np.asarray(image).astype(np.uint16)[..., None], None
    if image.mode in ("I", "F"):
        raise InputError(f"pictures with 32 bits per sample cannot be read (mode {image.mode})")
    if image.mode in ("P", "PA"):
        image = _without_palette(image)
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB"))
    samples = np.array(image)  # a copy: Pillow's own memory is read-only
    if samples.ndim == 2:
        return samples[..., None], None
    if samples.shape[2] in (2, 4):
        return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    return samples, None


def _without_palette(image: Image.Image) -> Image.Image:
    """A palette picture as gray or RGB, with alpha where the palette has any."""
    transparent = image.mode == "PA" or "transparency" in image.info
    wide = image.convert("RGBA" if transparent else "RGB")
    red, green, blue = wide.split()[:3]
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return Image.merge("LA", (red, wide.getchannel("A"))) if transparent else red
    return wide


def _metadata(image: Image.Image, pixels: Pixels, alpha: Pixels | None, exif: bytes | None) -> Photo:
    """The photo with everything that Pillow found beside the pixels; not turned upright yet."""
    info = image.info
    dpi = info.get("dpi")
    packet = image.tag_v2.get(TIFF_XMP) if image.format == "TIFF" else info.get("xmp")  # type: ignore[attr-defined]
    text = dict(getattr(image, "text", {}))
    text.pop("XML:com.adobe.xmp", None)
    if comment := info.get("comment"):
        text["Comment"] = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return Photo(
        pixels=pixels,
        alpha=alpha,
        icc_profile=_matching_profile(info.get("icc_profile"), gray=pixels.shape[2] == 1),
        exif=exif,
        xmp=packet if isinstance(packet, bytes) else None,
        dpi=_dpi(dpi),
        text=tuple((str(key), str(value)) for key, value in text.items()),
        source_format=image.format,
        source_mode=image.mode,
    )


def _dpi(value: object) -> tuple[float, float] | None:
    """Pillow's `dpi` (numbers or fractions, sometimes with a zero denominator), None if it is nonsense."""
    try:
        across, down = (float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _matching_profile(profile: bytes | None, *, gray: bool) -> bytes | None:
    """The ICC profile unless it describes another kind of pixels than these (ICC.1:2022, 7.2.6)."""
    if not profile:
        return None
    space = profile[16:20]
    return profile if space == b"RGB " or (gray and space == b"GRAY") else None


def _tiff_exif(image: Image.Image) -> bytes | None:
    """What a TIFF file says about the photograph, as an EXIF block of its own."""
    stored, block = image.getexif(), Image.Exif()
    for tag in (exif_block.ORIENTATION, *TIFF_DESCRIPTION):
        if tag in stored:
            block[tag] = stored[tag]
    for directory in (exif_block.EXIF_IFD, exif_block.GPS_IFD):
        block.get_ifd(directory).update(stored.get_ifd(directory))
    return (
        block.tobytes()
        if len(block) or block.get_ifd(exif_block.EXIF_IFD) or block.get_ifd(exif_block.GPS_IFD)
        else None
    )


def _check_metadata(name: str, photo: Photo, limits: Limits) -> None:
    size = sum(len(block) for block in (photo.exif, photo.xmp, photo.icc_profile) if block)
    size += sum(len(key) + len(value) for key, value in photo.text)
    if size > limits.max_metadata_bytes:
        raise InputError(
            f"{name}: holds {size:,} bytes of metadata, more than {limits.max_metadata_bytes:,}; "
            "raise the limit with --max-metadata-bytes if you trust it"
        )


def upright(photo: Photo, *, turned: bool = False) -> Photo:
    """The photo turned as its EXIF says (unless its pixels are `turned` already), which then says "upright".

    The thumbnail embedded in EXIF is dropped.
    """
    if photo.exif is None:
        return photo
    orientation = exif_block.orientation(photo.exif)
    photo = replace(
        photo,
        exif=exif_block.edited(photo.exif, upright=True, thumbnail=False),
        xmp=xmp_packet.edited(photo.xmp, upright=True) if photo.xmp and orientation != 1 else photo.xmp,
        dpi=photo.dpi[::-1] if photo.dpi and orientation >= 5 else photo.dpi,
    )
    if orientation == 1:
        return photo
    if turned:
        return with_pixels(photo, photo.pixels, photo.alpha)
    alpha = None if photo.alpha is None else oriented(photo.alpha, orientation)
    return with_pixels(photo, oriented(photo.pixels, orientation), alpha)


def oriented(samples: Pixels, orientation: int) -> Pixels:
    """(H, W, ...) stored with EXIF `orientation` 1..8, as it is meant to be seen (CIPA DC-008, 4.6.5.1.6)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
