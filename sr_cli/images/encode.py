"""`Photo`s to files: PNG, JPEG, WebP, TIFF and GIF, chosen by the target's suffix."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr_cli import storage
from sr_cli.errors import OutputError, UsageError
from sr_cli.images import colour, formats, gif, jpeg, png, profiles, tiff_writer, xmp
from sr_cli.images.alpha import bleed
from sr_cli.images.formats import OutputFormat
from sr_cli.images.photo import Photo, PhotoSequence, Pixels, without_metadata

JPEG_QUALITY, WEBP_QUALITY = 95, 90
_STRIPE_ROWS = 128


@dataclass(frozen=True)
class WriteOptions:
    """How images are written."""

    format: str | None = None  #: "png", "jpeg", "webp", "tiff" or "gif"; None: what the suffix says, PNG for a stream.
    quality: int | None = None
    """1..100 for JPEG (95 by default) and WebP (90; 100 is lossless); it says nothing to the others."""
    overwrite: bool = False  #: Whether an existing file is replaced.
    strip: bool = False  #: Whether to drop all metadata except the colour information.


def write(
    photo: Photo,
    target: Path | BinaryIO,
    *,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    strip: bool = False,
) -> None:
    """Write a photo to a file, which appears complete or not at all, or to a binary stream.

    The options are those of `WriteOptions`.
    Drops metadata that the format cannot hold: see `losses`. Raises UsageError for a suffix or size that cannot
    be written, OutputError if the target exists (without `overwrite`) or cannot be written.
    """
    write_all(PhotoSequence((photo,)), target, WriteOptions(format, quality, overwrite, strip))


def write_all(
    sequence: PhotoSequence,
    target: Path | BinaryIO,
    options: WriteOptions = WriteOptions(),
    *,
    frames: Iterable[Photo] | None = None,
    placing: Callable[[Path], None] | None = None,
    wait_for_rows: Callable[[int], None] | None = None,
) -> None:
    """Write the pages or frames of a sequence, with its durations; everything else as in `write`.

    placing: called with the complete temporary file just before it gets its name.
    frames: what to write in place of `sequence.frames`, as many, e.g. a generator of enlarged ones: PNG and
    TIFF take and forget them one by one, so memory holds one frame only.
    wait_for_rows: only for a single image as PNG, whose pixels are still being filled: called with how many rows
    have to be final next, and returns once they are.
    Raises UsageError, too, if the format holds only one image, or pages where this is an animation.
    """
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise UsageError(f"quality is 1 to 100, not {options.quality}")
    if isinstance(target, Path):
        output = formats.for_target(target, options.format)
    else:
        output = formats.by_name(options.format or "png")
    formats.check_several(output, sequence.kind, len(sequence.frames))
    encoder = _Encoder(sequence, output, options, wait_for_rows)
    if not isinstance(target, Path):
        buffer = io.BytesIO()
        encoder.encode(frames or sequence.frames, buffer)
        target.write(buffer.getbuffer())
        return
    with storage.atomic_output(target, overwrite=options.overwrite, placing=placing) as file:
        encoder.encode(frames or sequence.frames, file)
        modified = sequence.frames[0].modified_ns
        if modified is not None and not options.strip:
            file.flush()
            with contextlib.suppress(OSError):  # some network shares keep no times: the image matters more
                os.utime(file.fileno() if os.utime in os.supports_fd else file.name, ns=(modified, modified))


class _Encoder:
    """One output: what is written, in which format and how."""

    def __init__(
        self,
        sequence: PhotoSequence,
        output: OutputFormat,
        options: WriteOptions,
        wait_for_rows: Callable[[int], None] | None = None,
    ) -> None:
        self._wait_for_rows = wait_for_rows
        self._sequence, self._output, self._strip = sequence, output, options.strip
        self._quality = options.quality or {"JPEG": JPEG_QUALITY, "WEBP": WEBP_QUALITY}.get(output.name, 0)

    def encode(self, frames: Iterable[Photo], file: BinaryIO) -> None:
        """Raise UsageError for a size that the format cannot hold, OSError from the file, OutputError."""
        prepared = (self._prepared(photo) for photo in frames)
        if self._output is formats.PNG:
            self._png(prepared, file)
        elif self._output is formats.TIFF:
            self._tiff(prepared, file)
        else:
            self._pillow(prepared, file)

    def _prepared(self, photo: Photo) -> Photo:
        """Change the photo into what the format can hold."""
        formats.check_size(self._output, photo.width, photo.height)
        if self._strip:
            photo = without_metadata(photo)
        pixels, alpha = photo.pixels, photo.alpha
        if self._output is not formats.PNG and photo.icc_profile is None:
            photo = replace(photo, icc_profile=profiles.equivalent(photo))
        if not self._output.sixteen_bits:
            pixels, alpha = to_8_bits(pixels), None if alpha is None else to_8_bits(alpha)
        if alpha is not None and not self._output.alpha:
            pixels, alpha = on_white(pixels, alpha), None
        packet = xmp.finished(photo.xmp, mime=self._output.mime, history=photo.made_by)
        return replace(photo, pixels=pixels, alpha=alpha, xmp=packet)

    def _png(self, frames: Iterator[Photo], file: BinaryIO) -> None:
        first = next(frames)
        count = len(self._sequence.frames)
        fitting = first.icc_profile if profiles.fits(first, self._output) else None
        with png.PngWriter(
            file,
            (first.width, first.height),
            png.PixelType(first.pixels.shape[2] + (first.alpha is not None), first.bits),
            chunks=png.metadata_chunks(replace(first, icc_profile=fitting)),
            animation=(count, self._sequence.plays) if count > 1 else None,
        ) as writer:
            if count == 1:
                for stripe in _stripes(first, self._wait_for_rows):
                    writer.write(_samples(stripe))
                return
            shown: Pixels | None = None
            for photo, duration in zip(itertools.chain([first], frames), self._sequence.durations_ms, strict=True):
                samples = _samples(photo)
                left, top, width, height = box = _changed(shown, samples)
                writer.next_frame(duration, box)
                writer.write(samples[top : top + height, left : left + width])
                shown = samples

    def _tiff(self, frames: Iterator[Photo], file: BinaryIO) -> None:
        first = next(frames)
        count = len(self._sequence.frames)
        size = count * (first.pixels.nbytes + (0 if first.alpha is None else first.alpha.nbytes))
        with tiff_writer.TiffWriter(file, order=tiff_writer.order_of(first), big=size > 4_000_000_000) as writer:
            for photo in itertools.chain([first], frames):
                profile = photo.icc_profile if profiles.fits(photo, self._output) else None
                writer.page(replace(photo, icc_profile=profile), several=count > 1)

    def _pillow(self, frames: Iterator[Photo], file: BinaryIO) -> None:
        first = next(frames)
        image, profile = self._image(first)
        if self._output is formats.GIF:
            options: dict[str, Any] = {"disposal": 2, "optimize": False}
        else:
            made = (_jpeg_options if self._output is formats.JPEG else _webp_options)(first, self._quality)
            options = {key: value for key, value in {**made, "icc_profile": profile}.items() if value is not None}
        if self._sequence.kind == "animation":
            plays, longest = self._sequence.plays, formats.LONGEST_MS[self._output.name]
            durations = [min(round(value), longest) for value in self._sequence.durations_ms]
            options |= {"save_all": True, "duration": durations}
            options["append_images"] = [self._image(photo)[0] for photo in frames]
            if self._output is not formats.GIF:
                options["loop"] = plays
            elif plays != 1:  # GIF counts repetitions, and plays once if it says nothing
                options["loop"] = plays - 1 if plays else 0
        encoded = io.BytesIO()  # Pillow writes to a real file past Python, where "disk full" loses its name
        try:
            image.save(encoded, self._output.name, **options)
        except ValueError as error:  # an encoder's own limit
            raise OutputError(f"cannot be written as {self._output.name}: {error}") from error
        content = encoded.getbuffer()
        file.write(gif.with_metadata(bytes(content), first, profile) if self._output is formats.GIF else content)

    def _image(self, photo: Photo) -> tuple[Image.Image, bytes | None]:
        """Build Pillow's image for the format, with the profile that fits it."""
        if self._output is formats.GIF:
            return _palette_image(photo), photo.icc_profile if profiles.fits(photo, self._output) else None
        samples = _samples(photo)
        image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        profile = photo.icc_profile
        if photo.is_gray and not self._output.gray:
            if profile is not None and colour.space(profile) == b"GRAY":
                return colour.gray_to_rgb(image, profile)
            return image.convert("RGBA" if photo.alpha is not None else "RGB"), profile
        return image, profile if profiles.fits(photo, self._output) else None


def to_8_bits(samples: Pixels) -> Pixels:
    """Round samples of 16 bits to 8, to nearest (65535 becomes 255)."""
    if samples.dtype == np.uint8:
        return samples
    result = np.empty(samples.shape, np.uint8)
    for top in range(0, len(samples), _STRIPE_ROWS):  # the wider type for all of it would triple the memory
        rows = samples[top : top + _STRIPE_ROWS]
        result[top : top + _STRIPE_ROWS] = (rows.astype(np.uint32) + 128) // 257
    return result


def on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Lay 8-bit pixels (H, W, C) on white."""
    result = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _STRIPE_ROWS):
        rows = slice(top, top + _STRIPE_ROWS)
        share = alpha[rows].astype(np.float32)[..., None] / np.float32(255)
        result[rows] = np.rint(255 + (pixels[rows] - np.float32(255)) * share)
    return result


def _stripes(photo: Photo, wait_for_rows: Callable[[int], None] | None) -> Iterator[Photo]:
    """Yield the photo's rows in portions, so that no second copy of all of it is needed; each once it is final."""
    for top in range(0, photo.height, _STRIPE_ROWS):
        if wait_for_rows is not None:
            wait_for_rows(min(top + _STRIPE_ROWS, photo.height))
        alpha = None if photo.alpha is None else photo.alpha[top : top + _STRIPE_ROWS]
        yield Photo(photo.pixels[top : top + _STRIPE_ROWS], alpha)


def _samples(photo: Photo) -> Pixels:
    """Return (H, W, 1 to 4): pixels and, last, alpha."""
    if photo.alpha is None:
        return photo.pixels
    return np.concatenate([photo.pixels, photo.alpha[..., None]], axis=2)


def _changed(before: Pixels | None, after: Pixels) -> tuple[int, int, int, int]:
    """Return the left, top, width and height of what differs between two frames (one pixel if nothing does)."""
    if before is None:
        return 0, 0, after.shape[1], after.shape[0]
    differs = (before != after).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return 0, 0, 1, 1
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def _jpeg_options(photo: Photo, quality: int) -> dict[str, Any]:
    metadata = jpeg.metadata(photo)
    options: dict[str, Any] = {"quality": quality, "extra": metadata.segments, "exif": metadata.exif}
    if quality >= 90:
        options["subsampling"] = "4:4:4"
    if photo.dpi is not None:
        options["dpi"] = tuple(min(65_535, max(1, round(value))) for value in photo.dpi)
    return options


def _webp_options(photo: Photo, quality: int) -> dict[str, Any]:
    return {"quality": quality, "lossless": quality == 100, "method": 4, "exif": photo.exif, "xmp": photo.xmp}


def _palette_image(photo: Photo) -> Image.Image:
    """Reduce a frame to 255 colours chosen for it, and one for what is less than half opaque."""
    pixels = bleed(photo.pixels, photo.alpha)
    rgb = Image.fromarray(np.repeat(pixels, 3, axis=2) if photo.is_gray else pixels)
    image = rgb.quantize(255, Image.Quantize.MEDIANCUT)
    if photo.alpha is not None:
        palette = (image.getpalette() or [])[: 3 * 255]
        free = len(palette) // 3
        image.putpalette([*palette, 0, 0, 0])
        image.paste(free, mask=Image.fromarray(np.where(photo.alpha < 128, 255, 0).astype(np.uint8)))
        image.info["transparency"] = free
    return image
