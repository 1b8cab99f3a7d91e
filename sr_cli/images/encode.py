"""`Photo`s to files: PNG, JPEG, WebP and TIFF, chosen by the target's suffix."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from sr_cli.errors import OutputError, UsageError
from sr_cli.images import exif as exif_block
from sr_cli.images import formats
from sr_cli.images.atomic import atomic_output
from sr_cli.images.decode import TIFF_DESCRIPTION, TIFF_XMP
from sr_cli.images.formats import OutputFormat
from sr_cli.images.photo import Photo, without_metadata

JPEG_QUALITY, WEBP_QUALITY = 95, 90
_JPEG_BLOCK = 65_533  # what one APP segment can hold


def write(
    photo: Photo,
    target: Path | BinaryIO,
    *,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    strip: bool = False,
    placing: Callable[[Path], None] | None = None,
) -> None:
    """Writes a photo to a file, which appears complete or not at all, or to a binary stream.

    format: "png", "jpeg", "webp" or "tiff"; by default what the suffix says, PNG for a stream.
    quality: 1..100 for JPEG (95) and WebP (90; 100 is lossless); nothing to say for the others.
    strip: no metadata but what gives the pixels their colour.
    placing: called with the complete temporary file just before it gets its name.
    JPEG has no transparency: the picture is laid on white. Raises UsageError for a suffix or size that cannot
    be written, OutputError if the target exists (without `overwrite`) or cannot be written.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality is 1 to 100, not {quality}")
    output = formats.for_target(target, format) if isinstance(target, Path) else formats.by_name(format or "png")
    formats.check_size(output, photo.width, photo.height)
    photo = without_metadata(photo) if strip else photo
    if not isinstance(target, Path):
        buffer = io.BytesIO()
        encode(photo, buffer, output, quality)
        target.write(buffer.getbuffer())
        return
    with atomic_output(target, overwrite=overwrite, placing=placing) as file:
        encode(photo, file, output, quality)
        if photo.modified_ns is not None:
            file.flush()
            os.utime(file.fileno() if os.utime in os.supports_fd else file.name, ns=(photo.modified_ns,) * 2)


class _Unnamed(io.RawIOBase):
    """A file without its descriptor, so that Pillow writes through Python, where "disk full" keeps its name."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def encode(photo: Photo, file: BinaryIO, output: OutputFormat, quality: int | None) -> None:
    """One photo in one format. Raises OSError from the file, OutputError if the encoder refuses."""
    image = Image.fromarray(_samples(photo, output))
    options = {
        "PNG": _png_options,
        "JPEG": _jpeg_options,
        "WEBP": _webp_options,
        "TIFF": _tiff_options,
    }[output.name](photo, quality)
    if photo.icc_profile is not None and _profile_fits(photo.icc_profile, image.mode):
        options["icc_profile"] = photo.icc_profile
    try:
        image.save(cast(BinaryIO, _Unnamed(file)), output.name, **options)
    except ValueError as error:  # an encoder's own limit, e.g. a metadata block over its size
        raise OutputError(f"cannot be written as {output.name}: {error}") from error


def to_8_bits(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Samples of 16 bits as 8, rounded to nearest (65535 becomes 255)."""
    if samples.dtype == np.uint8:
        return cast("NDArray[np.uint8]", samples)
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _samples(photo: Photo, output: OutputFormat) -> NDArray[Any]:
    """The array that Pillow takes for this format: (H, W) or (H, W, 2 to 4)."""
    pixels, alpha = photo.pixels, photo.alpha
    if not output.sixteen_bits:
        pixels, alpha = to_8_bits(pixels), None if alpha is None else to_8_bits(alpha)
    if alpha is not None and not output.alpha:
        share = alpha.astype(np.float32)[..., None] / np.float32(255)
        pixels, alpha = np.rint(255 + (pixels - np.float32(255)) * share).astype(np.uint8), None
    if photo.is_gray and not output.gray:
        pixels = np.repeat(pixels, 3, axis=2)
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _profile_fits(profile: bytes, mode: str) -> bool:
    """Whether a decoder will accept the profile for pixels of this mode (ICC.1:2022, 7.2.6)."""
    gray = mode in ("L", "LA", "I;16")
    return profile[16:20] == (b"GRAY" if gray else b"RGB ")


def _png_options(photo: Photo, quality: int | None) -> dict[str, Any]:
    chunks = PngImagePlugin.PngInfo()
    for name, content in photo.colour_chunks:
        chunks.add(name, content)
    for key, value in photo.text:
        _add_text(chunks, key, value)
    if photo.xmp is not None:
        chunks.add_itxt("XML:com.adobe.xmp", photo.xmp.decode("utf-8", "replace"))
    options: dict[str, Any] = {"pnginfo": chunks}
    if photo.exif is not None:
        options["exif"] = photo.exif
    if photo.dpi is not None:
        options["dpi"] = photo.dpi
    return options


def _add_text(chunks: PngImagePlugin.PngInfo, key: str, value: str) -> None:
    """tEXt where Latin-1 suffices, else iTXt (PNG, third edition, 11.3.3)."""
    try:
        value.encode("latin-1")
        chunks.add_text(key, value)
    except UnicodeEncodeError:
        chunks.add_itxt(key, value)


def _jpeg_options(photo: Photo, quality: int | None) -> dict[str, Any]:
    quality = JPEG_QUALITY if quality is None else quality
    options: dict[str, Any] = {"quality": quality, "optimize": True, "progressive": False}
    if quality >= 90:
        options["subsampling"] = "4:4:4"
    if photo.exif is not None and len(photo.exif) + 6 <= _JPEG_BLOCK:
        options["exif"] = b"Exif\0\0" + photo.exif
    if photo.xmp is not None and len(photo.xmp) + 29 <= _JPEG_BLOCK:
        options["xmp"] = photo.xmp
    if photo.dpi is not None:
        options["dpi"] = tuple(min(65_535, max(1, round(value))) for value in photo.dpi)
    comment = dict(photo.text).get("Comment")
    if comment and len(comment.encode()) <= _JPEG_BLOCK:
        options["comment"] = comment.encode()
    return options


def _webp_options(photo: Photo, quality: int | None) -> dict[str, Any]:
    quality = WEBP_QUALITY if quality is None else quality
    options: dict[str, Any] = {"quality": quality, "lossless": quality == 100, "method": 4}
    if photo.exif is not None:
        options["exif"] = photo.exif
    if photo.xmp is not None:
        options["xmp"] = photo.xmp
    return options


def _tiff_options(photo: Photo, quality: int | None) -> dict[str, Any]:
    tags = Image.Exif()
    if photo.exif is not None:
        tags.load(photo.exif)
        for tag in set(tags) - set(TIFF_DESCRIPTION) - {exif_block.EXIF_IFD, exif_block.GPS_IFD}:
            del tags[tag]
    if photo.xmp is not None:
        tags[TIFF_XMP] = photo.xmp
    options: dict[str, Any] = {"compression": "raw", "exif": tags}
    if photo.dpi is not None:
        options["dpi"] = photo.dpi
    return options
