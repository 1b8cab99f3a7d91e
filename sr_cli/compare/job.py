"""Enlarges a photograph with each model and writes the page and the sheet."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import __version__, images, inference, storage, weights
from sr_cli.compare import page, sheet, spots
from sr_cli.compare.display import for_display
from sr_cli.compare.options import CompareOptions
from sr_cli.compare.spots import Spot
from sr_cli.errors import OutputError, UsageError, WeightsError
from sr_cli.weights.specs import is_path

Pixels = NDArray[np.uint8]

_IN_MEMORY = 2**30
_PAGE_OVERHEAD = 2**17
"""Bytes of the page that are no pictures: the template and the figures."""


@dataclass(frozen=True)
class Layer:
    """One way of enlarging, as the page shows it."""

    label: str
    """What it is called on the page, different for each."""
    model: str
    """The model's name; `nearest` for the photograph's own pixels."""
    stage: str | None = None
    """Its stage, where it has one."""
    fidelity: float | None = None
    """Where it lies between its GAN stage (0) and that stage's parent (1)."""
    scale: int = 4
    """The factor by which it enlarges; shown at the largest of all."""
    seconds: float | None = None
    """Time to enlarge the photograph, without loading the model; None for nearest."""
    tiles: int = 0
    """Tiles computed; 0 for interpolation."""
    device: str | None = None
    """What it ran on; None for interpolation."""
    precision: str | None = None
    """What it was computed in; None for interpolation."""
    parameters: int | None = None
    """Trained values of the network."""
    weights_bytes: int | None = None
    """Size of the weights file."""


@dataclass(frozen=True)
class Comparison:
    """What became of it all."""

    photo: Path
    """The photograph."""
    width: int
    """Columns of the enlarged pictures."""
    height: int
    """Rows of the enlarged pictures."""
    scale: int
    """The largest factor of all models."""
    layers: tuple[Layer, ...]
    """What was compared; the first two are the photograph's pixels and bicubic."""
    spots: tuple[Spot, ...]
    """Where the models differ most."""
    page: Path
    """The HTML page."""
    page_bytes: int
    """Its size."""
    format: str
    """Format of its tiles, `AVIF` or `WEBP`."""
    quality: int
    """The encoder's quality; 100 is lossless."""
    coverage: float
    """Share of its tiles that are there at full size."""
    sheet: Path | None = None
    """The static sheet, if it was asked for."""


@dataclass(frozen=True)
class CompareEvent:
    """Progress: `enlarging` (with the layer's label) or `writing` the page."""

    kind: Literal["enlarging", "writing"]
    """What goes on."""
    done: int
    """Tiles done."""
    total: int
    """Tiles in all."""
    label: str = ""
    """The layer being computed."""


Report = Callable[[CompareEvent], None]


def run(
    photo: Path, options: CompareOptions, report: Report, *, output: Path | None = None, png: Path | None = None
) -> Comparison:
    """Compares the models on `photo` and writes the page to `output` (`{stem}_compare.html` beside the photo).

    Raises InputError, WeightsError, OutputError (a file exists and `overwrite` is not set), UsageError, OutOfMemory.
    """
    output = output or photo.with_name(f"{photo.stem}_compare.html")
    _check_outputs(output, png, options.overwrite)
    pixels = _cropped(for_display(images.read(photo)), options.crop)
    sources = _sources(options)
    scale = max(source.upscaler.scale for source in sources)
    height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
    with _store(len(sources), height, width) as pictures:
        layers = [Layer("Original", "nearest", scale=scale)]
        for source, picture in zip(sources, pictures, strict=True):
            layers.append(_enlarge(source, pixels, picture, report))
        found = spots.find(pictures[1:] if len(pictures) > 2 else pictures, options.spots)
        crops = [[_nearest(pixels, spot, scale), *(spot.of(picture) for picture in pictures)] for spot in found]
        text, pyramid = _page(photo, pixels, pictures, layers, found, crops, scale, options, report)
        if png is not None:
            sheet_photo = images.Photo(sheet.draw(photo.name, [layer.label for layer in layers], crops))
            images.write(sheet_photo, png, format="png", overwrite=options.overwrite)
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


@dataclass(frozen=True)
class _Source:
    """An enlarger that is ready, and what is known of it before it ran."""

    upscaler: inference.Upscaler
    layer: Layer
    file: Path | None = None
    """Its weights, where the user named a file."""


def _sources(options: CompareOptions) -> list[_Source]:
    """Bicubic, then each model at each fidelity. Raises WeightsError where one cannot be had."""
    found = [_interpolation("bicubic")]
    for spec in options.models or _bundled(options):
        if spec in inference.INTERPOLATIONS:
            if all(source.layer.model != spec for source in found):
                found.append(_interpolation(spec))
            continue
        for fidelity in options.fidelities or (None,):
            found.append(_network(spec, fidelity, options))
    labels = [source.layer.label for source in found]
    # Runs keep their weights under the same names: then their folders tell them apart.
    found = [_with_folder(source) if labels.count(source.layer.label) > 1 else source for source in found]
    labels = [source.layer.label for source in found]
    if duplicate := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(f"{duplicate} is named twice; name each model once")
    return found


def _with_folder(source: _Source) -> _Source:
    if source.file is None:
        return source
    label = f"{source.file.absolute().parent.name}/{source.layer.label}"
    return replace(source, layer=replace(source.layer, label=label))


def _bundled(options: CompareOptions) -> list[str]:
    """The models whose weights come with the package; with a fidelity, those that it can be applied to."""
    names = []
    for name, entry in weights.read_manifest().models.items():
        stage = "gan" if options.fidelities else entry.default_stage
        path = entry.path(entry.stages[stage]) if stage is not None and stage in entry.stages else None
        if path is not None and path.exists():
            names.append(name)
    if not names:
        raise WeightsError("no weights are bundled that could be compared; name a model or a file with -m")
    return names


def _interpolation(name: str) -> _Source:
    return _Source(inference.Upscaler(name), Layer(name.capitalize(), name))


def _network(spec: str, fidelity: float | None, options: CompareOptions) -> _Source:
    from sr_cli import models

    if fidelity is None:
        loaded = weights.load(spec, offline=options.offline)
    else:
        loaded = weights.load_blend(spec, fidelity, offline=options.offline)
    upscaler = inference.Upscaler(
        loaded,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        ensemble=options.ensemble,
    )
    label = loaded.name if fidelity is not None or loaded.stage is None else f"{loaded.name}:{loaded.stage}"
    return _Source(
        upscaler,
        Layer(
            label=label if fidelity is None else f"{label}, fidelity {fidelity:g}",
            model=loaded.name,
            stage=loaded.stage,
            fidelity=fidelity,
            scale=upscaler.scale,
            device=upscaler.device_name,
            precision=upscaler.precision,
            parameters=models.count_parameters(loaded.generator),
            weights_bytes=loaded.path.stat().st_size if loaded.path.exists() else None,
        ),
        loaded.path if is_path(spec) else None,
    )


def _enlarge(source: _Source, pixels: Pixels, picture: Pixels, report: Report) -> Layer:
    """Fills `picture` with the enlargement; the layer, now with its time."""
    label = source.layer.label
    report(CompareEvent("enlarging", 0, 1, label))
    started = time.perf_counter()
    result = source.upscaler.upscale(pixels, lambda done, total: report(CompareEvent("enlarging", done, total, label)))
    seconds = time.perf_counter() - started
    height, width = picture.shape[:2]
    enlarged = result.pixels
    if enlarged.shape[:2] != (height, width):  # a model of another scale
        enlarged = np.asarray(Image.fromarray(enlarged).resize((width, height), Image.Resampling.BICUBIC))
    picture[:] = enlarged
    return replace(source.layer, seconds=seconds, tiles=result.tiles)


@contextlib.contextmanager
def _store(count: int, height: int, width: int) -> Iterator[list[Pixels]]:
    """Room for `count` pictures; on disk if they are large, since a camera's full size times a few fills a memory."""
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
    """A file whose bytes are really there: a disk that fills up under a mapped file would end the process."""
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: no room for {size:,} bytes of intermediate pictures ({error.strerror}); "
            "use --crop, or set TMPDIR to a larger disk"
        ) from error


def _nearest(pixels: Pixels, spot: Spot, scale: int) -> Pixels:
    """A spot of the photograph, each pixel repeated."""
    rows = np.arange(spot.top, spot.top + spot.side) // scale
    columns = np.arange(spot.left, spot.left + spot.side) // scale
    return pixels[rows[:, None], columns[None, :]]


def _cropped(pixels: Pixels, crop: tuple[int, int, int, int] | None) -> Pixels:
    if crop is None:
        return pixels
    left, top, width, height = crop
    if min(left, top) < 0 or min(width, height) < 1 or top >= pixels.shape[0] or left >= pixels.shape[1]:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UsageError(f"--crop {left},{top},{width},{height} lies outside of the photograph, which is {size}")
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _check_outputs(output: Path, png: Path | None, overwrite: bool) -> None:
    """Before minutes of work: may the outputs be written at all?"""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output}: the page is HTML; choose a name that ends in .html")
    if png is not None and png.suffix.lower() != ".png":
        raise UsageError(f"{png}: the sheet is a PNG picture; choose a name that ends in .png")
    for target in (output, png):
        if target is None:
            continue
        if target.exists() and not overwrite:
            raise OutputError(f"{target}: already exists; choose another name or pass --overwrite")
        if not target.parent.is_dir():
            raise OutputError(f"{target}: cannot be written: the folder {target.parent} does not exist")


def _page(
    photo: Path,
    pixels: Pixels,
    pictures: Sequence[Pixels],
    layers: Sequence[Layer],
    found: Sequence[Spot],
    crops: Sequence[Sequence[Pixels]],
    scale: int,
    options: CompareOptions,
    report: Report,
) -> tuple[bytes, page.Pyramid]:
    """The page's bytes, and its tiles."""
    spot_records: list[dict[str, Any]] = [
        {
            "left": spot.left,
            "top": spot.top,
            "side": spot.side,
            "difference": round(spot.difference, 1),
            "crops": [page.data_url(crop) for crop in row],
        }
        for spot, row in zip(found, crops, strict=True)
    ]
    used = _PAGE_OVERHEAD + sum(len(url) for record in spot_records for url in record["crops"])
    shown = [pixels, *pictures]
    pyramid = page.build(
        shown, max(0, options.max_bytes - used), lambda done, total: report(CompareEvent("writing", done, total))
    )
    height, width = pictures[0].shape[:2]
    record = {
        "version": __version__,
        "photo": {"name": photo.name, "width": pixels.shape[1], "height": pixels.shape[0], "crop": options.crop},
        "width": width,
        "height": height,
        "scale": scale,
        "tile": page.TILE,
        "margin": page.MARGIN,
        "format": pyramid.format,
        "quality": pyramid.quality,
        "coverage": round(pyramid.coverage, 4),
        "layers": [
            {**vars(layer), "levels": [level.record() for level in picture]}
            for layer, picture in zip(layers, pyramid.pictures, strict=True)
        ],
        "spots": spot_records,
    }
    return page.render(f"{photo.name}: {len(layers) - 2} models compared", record).encode("utf-8"), pyramid
