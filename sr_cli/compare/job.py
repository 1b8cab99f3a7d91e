"""Enlarges a photo with each model and writes the page and the sheet."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import images, storage
from sr_cli.compare import methods, page, sheet
from sr_cli.compare.methods import Layer, Method
from sr_cli.compare.options import CompareOptions
from sr_cli.errors import OutputError, UsageError
from sr_cli.metrics import differences
from sr_cli.metrics.differences import Spot

_IN_MEMORY = 2**30  #: Bytes of enlargements that are kept in memory; more are kept in files.


@dataclass(frozen=True)
class Comparison:
    """What was compared, and where the page is."""

    photo: Path  #: The photo.
    width: int  #: Columns of the enlarged photos.
    height: int  #: Rows of the enlarged photos.
    scale: int  #: The largest factor of all models.
    layers: tuple[Layer, ...]  #: What was compared; the first two are the photo's pixels and bicubic.
    spots: tuple[Spot, ...]  #: Where the models differ most.
    page: Path  #: The HTML page.
    page_bytes: int  #: Its size.
    format: str  #: Format of its tiles, `AVIF` or `WEBP`.
    quality: int  #: The encoder's quality; 100 is lossless.
    coverage: float  #: Share of its tiles that are there at full size.
    sheet: Path | None = None  #: The static sheet, if it was asked for.


@dataclass(frozen=True)
class CompareEvent:
    """Progress of the whole job: each enlargement is one step, writing the page the last."""

    label: str  #: What is being done: a layer's label, or `writing the page`.
    done: float  #: Steps done, with the part of the current one.
    steps: int  #: Steps in all.


OnEvent = Callable[[CompareEvent], None]


def run(
    photo: Path, options: CompareOptions, on_event: OnEvent, *, output: Path | None = None, png: Path | None = None
) -> Comparison:
    """Compare the models on `photo` and write the page to `output` (`{stem}_compare.html` next to the photo).

    Raises InputError, WeightsError, OutputError (a file exists and `overwrite` is not set), UsageError, OutOfMemory.
    """
    output = output or photo.with_name(f"{photo.stem}_compare.html")
    _check_outputs(output, png, options.overwrite)
    original = _cropped(for_display(images.read(photo)), options.crop)
    compared = methods.load(options, photo)
    scale = max(method.upscaler.scale for method in compared)
    height, width = original.shape[0] * scale, original.shape[1] * scale
    with _store(len(compared), height, width) as pictures:
        layers = [Layer("Original", "nearest", scale=scale), *_enlarge(compared, original, pictures, on_event)]
        found = differences.find(pictures[1:] if len(pictures) > 2 else pictures, options.spots)
        content = page.Content(photo.name, original, options.crop, layers, pictures, found, scale)

        def on_tile(done: int, total: int) -> None:
            on_event(CompareEvent("writing the page", len(compared) + done / total, len(compared) + 1))

        html, pyramid = page.build(content, options.max_bytes, on_tile)
        if png is not None:
            sheet_photo = images.Photo(sheet.draw(photo.name, [layer.label for layer in layers], content.crops()))
            images.write(sheet_photo, png, format="png", overwrite=options.overwrite)
    text = html.encode("utf-8")
    with storage.atomic_output(output, overwrite=options.overwrite) as file:
        file.write(text)
    return Comparison(
        photo=photo,
        width=width,
        height=height,
        scale=scale,
        layers=tuple(layers),
        spots=tuple(found),
        page=output,
        page_bytes=len(text),
        format=pyramid.format,
        quality=pyramid.quality,
        coverage=pyramid.coverage,
        sheet=png,
    )


def for_display(photo: images.Photo) -> NDArray[np.uint8]:
    """Return a photo as a browser shows it: (H, W, 3), 8 bits of sRGB, what is transparent laid on white."""
    pixels = images.to_8_bits(photo.pixels)
    if photo.is_gray:
        pixels = np.repeat(pixels, 3, axis=2)
    elif photo.icc_profile is not None:
        pixels = np.asarray(images.to_srgb(Image.fromarray(pixels), photo.icc_profile)[0])
    if photo.alpha is not None:
        pixels = images.on_white(pixels, images.to_8_bits(photo.alpha))
    return pixels.astype(np.uint8, copy=False)


def _enlarge(
    compared: Sequence[Method], original: NDArray[np.uint8], pictures: Sequence[NDArray[np.uint8]], on_event: OnEvent
) -> list[Layer]:
    """Fill `pictures` with the enlargements; return the layers, now with their times."""
    layers = []
    for index, (method, picture) in enumerate(zip(compared, pictures, strict=True)):

        def on_tile(done: int, total: int, index: int = index, label: str = method.layer.label) -> None:
            on_event(CompareEvent(label, index + done / total, len(compared) + 1))

        on_tile(0, 1)
        started = time.perf_counter()
        result = method.upscaler.upscale(original, on_tile)
        seconds = time.perf_counter() - started
        enlarged = result.pixels
        if enlarged.shape != picture.shape:  # a model of another scale
            size = (picture.shape[1], picture.shape[0])
            enlarged = np.asarray(Image.fromarray(enlarged).resize(size, Image.Resampling.BICUBIC))
        picture[:] = enlarged
        layers.append(replace(method.layer, seconds=seconds, tiles=result.tiles))
    return layers


@contextlib.contextmanager
def _store(count: int, height: int, width: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Give room for `count` photos; on disk if they are large, because a few of full camera size fill the memory."""
    shape = (height, width, 3)
    if count * math.prod(shape) <= _IN_MEMORY:
        yield [np.empty(shape, np.uint8) for _ in range(count)]
        return
    with tempfile.TemporaryDirectory(prefix="srup-compare-", ignore_cleanup_errors=True) as folder:
        files = [Path(folder, f"{i}.raw") for i in range(count)]
        for path in files:
            _reserve(path, math.prod(shape))
        yield [np.memmap(path, np.uint8, "r+", shape=shape) for path in files]


def _reserve(path: Path, size: int) -> None:
    """Make a file whose bytes are really there: a disk that fills up under a mapped file would end the process."""
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: no room for {size:,} bytes of intermediate images ({error.strerror}); "
            "use --crop, or set TMPDIR to a larger disk"
        ) from error


def _cropped(pixels: NDArray[np.uint8], crop: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    if crop is None:
        return pixels
    left, top, width, height = crop
    if min(left, top) < 0 or min(width, height) < 1 or top >= pixels.shape[0] or left >= pixels.shape[1]:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UsageError(f"--crop {left},{top},{width},{height} is outside of the photo, which is {size}")
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _check_outputs(output: Path, png: Path | None, overwrite: bool) -> None:
    """Raise, before minutes of work, UsageError or OutputError for outputs that cannot be written."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output}: the page is HTML; choose a name that ends in .html")
    if png is not None and png.suffix.lower() != ".png":
        raise UsageError(f"{png}: the sheet is a PNG file; choose a name that ends in .png")
    for target in (output, png):
        if target is None:
            continue
        if target.exists() and not overwrite:
            raise OutputError(f"{target}: already exists; choose another name or pass --overwrite")
        if not target.parent.is_dir():
            raise OutputError(f"{target}: cannot be written: the folder {target.parent} does not exist")
