"""Reads the kind, size and limits of a file without decoding its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from sr_cli.images import animation, png, tiff
from sr_cli.images import exif as exif_block
from sr_cli.images.decode import open_image
from sr_cli.images.photo import Limits
from sr_cli.images.source import Source, decoding, opened

_ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")


@dataclass(frozen=True)
class Header:
    """Properties of the images in a file."""

    sizes: tuple[tuple[int, int], ...]  #: Width and height of each page or frame, upright.
    kind: Literal["still", "pages", "animation"]  #: Their kind.
    bits: int  #: Bits per sample in memory, 8 or 16.
    channels: int  #: 1 gray, 3 RGB, one more with transparency; at most what the image turns out to have.


def probe(source: Path | BinaryIO, *, limits: Limits | None = None) -> Header:
    """Read no more than the headers. Raises InputError as `read_all` would for what they show."""
    with opened(source, limits or Limits()) as file, decoding(file):
        return {"PNG": _png, "TIFF": _tiff}.get(file.format, _other)(file)


def _png(source: Source) -> Header:
    contents = png.inspect(source)
    size = (contents.width, contents.height)
    source.check_pixels(*size)
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(contents.colour_type, 4)
    orientation = exif_block.orientation(contents.exif)
    frames = 1
    if contents.animated:
        frames = max(1, len(contents.frames))
        source.check_pixels(*size, frames)
    return _header([_turned(size, orientation)] * frames, "animation", 16 if contents.bits == 16 else 8, channels)


def _tiff(source: Source) -> Header:
    pages = tiff.pages(source)
    sizes = [_turned(page.size, exif_block.orientation(page.exif)) for page in pages]
    deep = any(page.is_deep for page in pages)
    return _header(sizes, "pages", 16 if deep else 8, 4)


def _other(source: Source) -> Header:
    image = open_image(source)
    frames = int(getattr(image, "n_frames", 1)) if image.format in animation.FORMATS else 1
    source.check_pixels(*image.size, frames)
    orientation = exif_block.orientation(exif_block.clean(image.info.get("exif")))
    gray = image.mode in ("1", "L", "LA", "La")
    transparent = image.mode in _ALPHA_MODES or "transparency" in image.info or frames > 1
    return _header([_turned(image.size, orientation)] * frames, "animation", 8, (1 if gray else 3) + transparent)


def _header(sizes: list[tuple[int, int]], several: Literal["pages", "animation"], bits: int, channels: int) -> Header:
    return Header(tuple(sizes), several if len(sizes) > 1 else "still", bits, channels)


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation >= 5 else size
