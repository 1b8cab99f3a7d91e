"""The upscale job: photographs in, enlarged photographs out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sr_cli import engine, images
from sr_cli.errors import InputError, OutputError, SrupError, UsageError


@dataclass(frozen=True)
class UpscaleOptions:
    """What to do with each photograph.

    Raises UsageError where two options contradict each other.
    """

    model: str = "mesrgan"
    """Model name, `name:stage`, a path to weights, `bicubic` or `lanczos`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`."""
    tile: int | Literal["auto"] = "auto"
    """Side of a tile's core in input pixels; 0: the whole picture in one pass."""
    overlap: int | Literal["auto", "full"] = "auto"
    """Input pixels that a tile sees beyond its core."""
    format: str | None = None
    """Output format; None: by the output's suffix."""
    quality: int | None = None
    """1 to 100 for JPEG and WebP; None: 95."""
    overwrite: bool = False
    """Replace an output that exists."""
    skip_existing: bool = False
    """Leave an output that exists as it is, and count the input as done."""
    strip: bool = False
    """Write no metadata but the colour profile."""
    fidelity: float | None = None
    """0 (the GAN stage) to 1 (the stage it was fine-tuned from); None: the model as it is."""
    ensemble: bool = False
    """Average the results of the eight flips and rotations."""
    offline: bool = False
    """Never touch the network."""

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing contradict each other; give one of them")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must be between 1 and 100, not {self.quality}")


@dataclass(frozen=True)
class ImageResult:
    """What became of one input."""

    input: Path
    """The photograph."""
    output: Path
    """Where the enlarged one is, or would have been."""
    status: Literal["done", "skipped", "failed"]
    """`skipped`: the output existed already."""
    width: int = 0
    """Columns of the output."""
    height: int = 0
    """Rows of the output."""
    tiles: int = 0
    """Tiles computed; 0 for interpolation."""
    redone: int = 0
    """Tiles computed again because half precision overflowed."""
    seconds: float = 0.0
    """From opening the input to renaming the output."""
    error: str | None = None
    """Why it failed."""
    exit_code: int = 0
    """The exit code that this failure alone would have."""


@dataclass(frozen=True)
class UpscaleEvent:
    """Something happened to an input: `started`, `progress`, `done`, `skipped` or `failed`."""

    kind: Literal["started", "progress", "done", "skipped", "failed"]
    """What happened."""
    input: Path
    """To which input."""
    index: int
    """The input's position, from 0."""
    count: int
    """How many inputs there are."""
    done: int = 0
    """Tiles done (`progress`)."""
    total: int = 0
    """Tiles of this input (`progress`)."""
    result: ImageResult | None = None
    """The outcome (`done`, `skipped`, `failed`)."""


Report = Callable[[UpscaleEvent], None]


def default_output(source: Path, model: str, scale: int) -> Path:
    """`{stem}_{model}_x{scale}` beside the input, with its suffix where we can write that, else PNG."""
    label = Path(model).stem if model.endswith(".safetensors") else model.replace(":", "-")
    suffix = source.suffix if images.by_suffix(source) else ".png"
    return source.with_name(f"{source.stem}_{label}_x{scale}{suffix}")


def upscale_photo(
    upscaler: engine.Upscaler, photo: images.Photo, progress: engine.Progress | None = None
) -> tuple[images.Photo, engine.EngineResult]:
    """One photograph through the engine, its transparency with it.

    Colours hidden under transparency are first replaced by the visible ones around them, so that the
    network does not draw them into the edge as a halo; the transparency itself goes through the same
    network as a grey picture, so that both have the same edges.
    """
    if photo.alpha is None:
        result = upscaler.upscale(photo.pixels, progress)
        return images.with_pixels(photo, result.pixels, None), result
    result = upscaler.upscale(images.bleed(photo.pixels, photo.alpha), progress)
    if np.all(photo.alpha == photo.alpha.flat[0]):
        shape = (photo.alpha.shape[0] * upscaler.scale, photo.alpha.shape[1] * upscaler.scale)
        alpha = np.full(shape, photo.alpha.flat[0])
    else:
        alpha = upscaler.upscale(photo.alpha[:, :, None]).pixels[:, :, 0]
    return images.with_pixels(photo, result.pixels, alpha), result


def run(inputs: Sequence[Path], output: Path | None, options: UpscaleOptions, report: Report) -> list[ImageResult]:
    """Upscales each input; a failure is reported and does not stop the others.

    `output` is a file for a single input, an existing folder, or None for names beside the inputs.
    Raises UsageError where the request makes no sense, WeightsError where the model cannot be had: both
    before any photograph is touched.
    """
    outputs = [_output_for(source, output, options, len(inputs)) for source in inputs]
    for source, target in zip(inputs, outputs, strict=True):
        images.for_target(target, options.format)
        if target.exists() and target.resolve() == source.resolve():
            raise UsageError(f"the output {target} is the input itself; choose another name")
    upscaler: engine.Upscaler | None = None
    results = []
    for index, (source, target) in enumerate(zip(inputs, outputs, strict=True)):
        report(UpscaleEvent("started", source, index, len(inputs)))

        def progress(done: int, total: int, source: Path = source, index: int = index) -> None:
            report(UpscaleEvent("progress", source, index, len(inputs), done, total))

        try:
            if target.exists() and options.skip_existing:
                result = ImageResult(source, target, "skipped")
            else:
                # Cheap refusals come before the model is loaded.
                _check_paths(source, target, options)
                started = time.monotonic()
                photo = images.read(source)
                upscaler = upscaler or make_upscaler(options)
                enlarged, outcome = upscale_photo(upscaler, photo, progress)
                images.write(
                    enlarged,
                    target,
                    format=options.format,
                    quality=options.quality,
                    overwrite=options.overwrite,
                    strip=options.strip,
                )
                height, width = enlarged.pixels.shape[:2]
                seconds = time.monotonic() - started
                result = ImageResult(source, target, "done", width, height, outcome.tiles, outcome.redone, seconds)
        except SrupError as error:
            if isinstance(error, UsageError) or error.exit_code == 4:
                raise
            result = ImageResult(source, target, "failed", error=str(error), exit_code=error.exit_code)
        results.append(result)
        report(UpscaleEvent(result.status, source, index, len(inputs), result=result))
    return results


def make_upscaler(options: UpscaleOptions) -> engine.Upscaler:
    """The engine as the options ask for it."""
    return engine.Upscaler(
        options.model,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        fidelity=options.fidelity,
        ensemble=options.ensemble,
        offline=options.offline,
    )


def exit_code(results: Sequence[ImageResult]) -> int:
    """0 if all went well; the failures' common code if all failed alike; else 1."""
    failures = {result.exit_code for result in results if result.status == "failed"}
    if not failures:
        return 0
    if len(failures) == 1 and all(result.status == "failed" for result in results):
        return failures.pop()
    return 1


def _output_for(source: Path, output: Path | None, options: UpscaleOptions, count: int) -> Path:
    name = default_output(source, options.model, 4)
    if options.format:
        name = name.with_suffix(images.by_name(options.format).suffixes[0])
    if output is None:
        return name
    if output.is_dir():
        return output / name.name
    if count > 1:
        raise UsageError(f"{count} inputs cannot go into one file {output}; give an existing folder with -o")
    return output


def _check_paths(source: Path, target: Path, options: UpscaleOptions) -> None:
    if not source.exists():
        raise InputError(f"{source} does not exist; check the name")
    if target.exists() and not options.overwrite:
        raise OutputError(f"{target} exists; use --overwrite to replace it or --skip-existing to keep it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist; create it first")
