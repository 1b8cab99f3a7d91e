"""Files to `Photo`s. Every failure of a decoder on a bad file is one `InputError`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import animation, bmp, colour, gif, isobmff, jpeg, pixel_parts, png, tiff
from sr_cli.images import exif as exif_block
from sr_cli.images import xmp as xmp_packet
from sr_cli.images.photo import Limits, Metadata, Photo, PhotoSequence, Pixels, with_pixels
from sr_cli.images.pieces import joined
from sr_cli.images.signatures import HEAD_BYTES, with_codec
from sr_cli.images.source import Source, decoding, opened

_OTHER_PROFILE = "the colour profile is dropped: it is for another kind of pixels"
_READERS: dict[str, Callable[[Source], Metadata]] = {
    "JPEG": jpeg.inspect,
    "GIF": gif.inspect,
    "BMP": bmp.inspect,
    "AVIF": isobmff.inspect,
    "HEIF": isobmff.inspect,
}
_CONVERTED = {"CMYK": "CMYK", "LAB": "CIE Lab"}  #: Pillow's modes whose colours are converted, and their names.


def read(source: Path | BinaryIO, *, limits: Limits | None = None) -> Photo:
    """Read the image in a file or stream (the first one if it holds several), upright.

    Raises InputError with one line that names the file: missing, a folder, empty, no image of a format we
    read, damaged, cut off, or over a limit; OutOfMemory if it does not fit.
    """
    return _read(source, limits or Limits(), every=False).frames[0]


def read_all(source: Path | BinaryIO, *, limits: Limits | None = None) -> PhotoSequence:
    """Read all images in a file or stream: the pages of a TIFF, or the frames of an animated GIF, WebP, AVIF or PNG.

    The frames of an animation are composed: each is what is to be seen, whatever the file's disposal and
    blending. Metadata are with the first frame, with each page. Raises like `read`.
    """
    return _read(source, limits or Limits(), every=True)


def _read(source: Path | BinaryIO, limits: Limits, *, every: bool) -> PhotoSequence:
    with opened(source, limits) as file, decoding(file):
        reader = {"PNG": _read_png, "TIFF": _read_tiff}.get(file.format, _read_other)
        sequence = reader(file, every)
    modified = file.modified_ns
    return replace(sequence, frames=tuple(replace(photo, modified_ns=modified) for photo in sequence.frames))


def open_image(source: Source) -> Image.Image:
    """Open the input with Pillow's decoder for its format, no other. Raises what Pillow raises.

    The decoder gets the parts that make pixels; the image's `info["notes"]` says what was repaired.
    """
    file = source.file
    notes: tuple[str, ...] = ()
    if source.format == "JPEG":
        file = pixel_parts.of_jpeg(source)
    elif source.format == "WEBP":
        file, notes = pixel_parts.of_webp(source)
    elif source.format in ("AVIF", "HEIF"):
        head, size = with_codec(source.format, file.read(HEAD_BYTES)), file.seek(0, io.SEEK_END)
        rest = source.start + len(head)
        file = joined(file, [head, (rest, size - rest)])
    if source.format == "HEIF":
        import pi_heif  # rarely needed, and not quite free to load

        pi_heif.register_heif_opener()
    image = Image.open(file, formats=[source.format])
    image.info["notes"] = notes
    return image


def _read_png(source: Source, every: bool) -> PhotoSequence:
    contents = png.inspect(source)
    source.check_pixels(contents.width, contents.height)
    if every and contents.animated and len(contents.frames) > 1:
        return _described(animation.read_apng(source, contents), contents)
    if contents.bits == 16:
        photo = _deep(png.read_16_bits(source, contents), contents.icc_profile, "PNG")
        return _one(contents.describe(photo))
    image = Image.open(pixel_parts.of_png(source, contents), formats=["PNG"])
    image.load()
    return _one(contents.describe(_photo(source.name, image, contents.icc_profile)))


def _read_tiff(source: Source, every: bool) -> PhotoSequence:
    pages = tiff.pages(source)
    if not every:
        pages = pages[:1]
    source.check_total(sum(width * height for width, height in (page.size for page in pages)), f"{len(pages)} pages")
    photos = tuple(_read_page(source, page) for page in pages)
    return PhotoSequence(photos, "pages" if len(photos) > 1 else "still")


def _read_page(source: Source, page: tiff.Page) -> Photo:
    """Read one page, upright."""
    photo = tiff.read_deep(source, page) if page.is_deep else None
    if photo is not None:
        described = tiff.describe(page, _deep(photo, page.icc_profile, "TIFF"))
        return upright(described)
    image = tiff.open_image(source, page)
    image.load()
    photo = _photo(source.name, image, page.icc_profile)
    if page.bits == 12 and photo.bits == 16:
        photo = replace(photo, pixels=(photo.pixels.astype(np.uint32) * 65535 // 4095).astype(np.uint16))
    elif page.bits > 8 and photo.bits == 8:
        remedy = " (pip install 'srup[tiff]' keeps them)" if page.is_deep else ""
        photo = replace(photo, notes=(*photo.notes, f"{page.bits} bits per sample were read as 8{remedy}"))
    return upright(tiff.describe(page, photo))


def _read_other(source: Source, every: bool) -> PhotoSequence:
    image = open_image(source)
    source.check_pixels(image.width, image.height)
    metadata = _metadata_of(source, image)
    if every and image.format in animation.FORMATS and getattr(image, "n_frames", 1) > 1:
        return _described(animation.read_frames(source, image, metadata.icc_profile), metadata)
    image = _loaded(source, image)
    photo = metadata.describe(_photo(source.name, image, metadata.icc_profile))
    return _one(replace(photo, notes=(*image.info.get("notes", ()), *photo.notes)))


def _metadata_of(source: Source, image: Image.Image) -> Metadata:
    """Read metadata by our own readers where Pillow hands over only part of them; by Pillow else."""
    reader = _READERS.get(source.format)
    found = reader(source) if reader else Metadata()
    if source.format == "GIF":
        return found
    info = image.info
    found.icc_profile = found.icc_profile or info.get("icc_profile")
    if source.format == "JPEG":
        # Pillow knows one resolution of EXIF's two; JFIF's go before both.
        stated = info.get("dpi") if info.get("jfif_unit") in (1, 2) else None
        found.dpi = _dpi(stated) or (exif_block.dpi(found.exif) if found.exif else None)
        return found
    found.exif = exif_block.clean(info.get("exif"))
    found.xmp = info["xmp"] if isinstance(info.get("xmp"), bytes) else None
    found.dpi = _dpi(info.get("dpi"))
    source.count_metadata(sum(len(block) for block in (found.exif, found.xmp, found.icc_profile) if block))
    return found


def _loaded(source: Source, image: Image.Image) -> Image.Image:
    """Decode the image's pixels.

    A JPEG is complete if no pixels are missing, with an end marker or without.
    """
    if source.format != "JPEG":
        image.load()
        return image
    end = jpeg.inspect(replace(source)).end  # a copy: metadata are counted once
    try:
        image.load()
    except OSError:
        if end is not None:
            raise
        return pixel_parts.without_end(source)
    if end is not None:
        pixel_parts.check_bottom(source, image, end)
    return image


def _described(frames: PhotoSequence, metadata: Metadata) -> PhotoSequence:
    """Give an animation the file's metadata in its first frame, and turn all frames as these say."""
    first, *others = frames.frames
    first = metadata.describe(first)
    turned = (replace(upright(replace(photo, exif=first.exif)), exif=None) for photo in others)
    return replace(frames, frames=(upright(first), *turned))


def _one(photo: Photo) -> PhotoSequence:
    return PhotoSequence((upright(photo),))


def _deep(photo: Photo, profile: bytes | None, format: str) -> Photo:
    """Return a photo with 16 bits per sample, described."""
    fitting = colour.fitting(profile, gray=photo.is_gray)
    notes = (_OTHER_PROFILE,) if profile and not fitting else ()
    return replace(photo, icc_profile=fitting, source_format=format, source_mode="16 bits", notes=notes)


def _photo(name: str, image: Image.Image, profile: bytes | None) -> Photo:
    """Return pixels, alpha and profile of a decoded frame in any of Pillow's modes."""
    mode, format = image.mode, image.format
    if mode in ("I", "F"):
        raise InputError(f"{name}: samples of 32 bits cannot be read; save it with 8 or 16 bits")
    notes: tuple[str, ...] = ()
    if not mode.startswith("I;16"):
        image, fitting = colour.gray_or_rgb(image, profile)
        if mode in _CONVERTED:
            notes = (f"{_CONVERTED[mode]} becomes sRGB",)
        elif profile and not fitting:
            notes = (_OTHER_PROFILE,)
        profile = fitting
    return Photo(*channels(image), profile, source_format=format, source_mode=mode, notes=notes)


def channels(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Split Pillow's image in any mode of 8 or 16 bits into (H, W, 1 or 3) and alpha (H, W) or None."""
    if image.mode in ("I", "F"):
        raise InputError(f"samples of 32 bits cannot be read (mode {image.mode}); convert them to 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], None
    image, _ = colour.gray_or_rgb(image, None)
    samples = np.array(image)  # a copy: Pillow's own memory is read-only
    if samples.ndim == 2:
        return samples[..., None], None
    if image.mode in ("LA", "RGBA"):
        return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    return samples, None


def _dpi(value: object) -> tuple[float, float] | None:
    """Return Pillow's `dpi` (numbers or fractions, sometimes with a zero denominator), None if it is nonsense."""
    try:
        across, down = (float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def upright(photo: Photo) -> Photo:
    """Turn the photo as its EXIF says, which then says "upright".

    EXIF and XMP of converted colours then name sRGB. The thumbnail embedded in EXIF is dropped, and what XMP says
    about attachments, which are not read.
    """
    if photo.exif is None and photo.xmp is None:
        return photo
    orientation = exif_block.orientation(photo.exif)
    if photo.source_mode in _CONVERTED:
        exif = None if photo.exif is None else exif_block.as_srgb(photo.exif)
        photo = replace(photo, exif=exif, xmp=None if photo.xmp is None else xmp_packet.as_srgb(photo.xmp))
    alpha = None if photo.alpha is None else oriented(photo.alpha, orientation)
    return with_pixels(photo, oriented(photo.pixels, orientation), alpha, orientation=orientation)


def oriented(samples: Pixels, orientation: int) -> Pixels:
    """Turn (H, W, ...) stored with EXIF `orientation` 1..8 as it is meant to be seen (CIPA DC-008, 4.6.5.1.6)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
