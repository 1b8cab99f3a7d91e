"""One photograph through the engine, its transparency with it, to the size that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sr_cli import images, inference
from sr_cli.upscale.resample import resample


@dataclass
class Counts:
    """Tiles over all passes and frames of one file."""

    tiles: int = 0
    """Tiles computed."""
    redone: int = 0
    """Tiles computed again in a wider format."""


def passes_for(scale: int, width: int, height: int, size: tuple[int, int]) -> int:
    """How often a model of factor `scale` has to run before its result is at least `size` (width, height)."""
    passes = 0
    while width * scale**passes < size[0] or height * scale**passes < size[1]:
        passes += 1
    return passes


def enlarge(
    upscaler: inference.Upscaler,
    photo: images.Photo,
    size: tuple[int, int],
    counts: Counts,
    progress: inference.Progress | None = None,
) -> images.Photo:
    """`photo` as a picture of `size` (width, height); its tiles are added to `counts`.

    Colours hidden under transparency are first replaced by the visible ones around them, so that the
    network does not draw them into the edge as a halo; the transparency itself goes through the same
    network as a grey picture, so that both have the same edges. The model runs as often as it takes, and
    what is too large then is reduced; a size up to the photograph's own takes no pass at all.
    """
    pixels, alpha = images.bleed(photo.pixels, photo.alpha), photo.alpha
    for _ in range(passes_for(upscaler.scale, photo.width, photo.height, size)):
        pixels = _once(upscaler, pixels, counts, progress)
        alpha = None if alpha is None else _alpha_once(upscaler, alpha, counts, progress)
    pixels, alpha = resample(pixels, alpha, *size)
    return images.with_pixels(photo, pixels, alpha)


def _once(
    upscaler: inference.Upscaler, pixels: images.Pixels, counts: Counts, progress: inference.Progress | None
) -> images.Pixels:
    before = counts.tiles

    def onward(done: int, total: int) -> None:
        if progress:
            progress(before + done, before + total)

    result = upscaler.upscale(pixels, onward)
    counts.tiles += result.tiles
    counts.redone += result.redone
    return result.pixels


def _alpha_once(
    upscaler: inference.Upscaler, alpha: images.Pixels, counts: Counts, progress: inference.Progress | None
) -> images.Pixels:
    if bool((alpha == alpha.flat[0]).all()):
        return np.full((alpha.shape[0] * upscaler.scale, alpha.shape[1] * upscaler.scale), alpha.flat[0])
    return _once(upscaler, alpha[:, :, None], counts, progress)[:, :, 0]
