"""Enlarges one photo with its transparency to the requested size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from sr_cli import __version__, images, inference
from sr_cli.upscale.resample import resample

Begin: TypeAlias = Callable[[images.Photo], Callable[[int], None]]
"""Takes an enlarged photo before its pixels are computed, and gives what is told how many rows are final."""


@dataclass
class Counts:
    """Tiles over all passes and frames of one file."""

    tiles: int = 0  #: Tiles computed.
    redone: int = 0  #: Tiles computed again in a wider format.


def passes_for(scale: int, width: int, height: int, size: tuple[int, int]) -> int:
    """Count how often a model of factor `scale` has to run before its result is at least `size` (width, height)."""
    passes = 0
    while width * scale**passes < size[0] or height * scale**passes < size[1]:
        passes += 1
    return passes


def enlarge(
    upscaler: inference.Upscaler,
    photo: images.Photo,
    size: tuple[int, int],
    counts: Counts,
    progress: inference.OnTiles | None = None,
    begin: Begin | None = None,
) -> images.Photo:
    """Enlarge `photo` to `size` (width, height) and add its tiles to `counts`.

    Colours hidden under transparency are first replaced by the visible ones around them, so that the
    network does not draw them into the edge as a halo; the transparency itself goes through the same
    network as a grey image, so that both have the same edges. The model runs as often as needed, and
    a result that is too large is reduced; a size up to the photo's own needs no pass. Where nothing
    has to be reduced, `begin` is called before the last pass.
    """
    photo = replace(photo, made_by=f"{images.MARK} {__version__}")
    pixels, alpha = images.bleed(photo.pixels, photo.alpha), photo.alpha
    passes = passes_for(upscaler.scale, photo.width, photo.height, size)
    for index in range(passes):
        once = _ModelRun(upscaler, counts, progress)
        # First, so that whoever writes the colours row by row has it already.
        alpha = None if alpha is None else once.alpha(alpha)
        last = index == passes - 1 and size == (pixels.shape[1] * upscaler.scale, pixels.shape[0] * upscaler.scale)
        if last and begin is not None:
            return once.into(photo, pixels, alpha, begin)
        pixels = once.pixels(pixels)
    pixels, alpha = resample(pixels, alpha, *size)
    return images.with_pixels(photo, pixels, alpha)


@dataclass(frozen=True)
class _ModelRun:
    """One run of the model over a photo."""

    upscaler: inference.Upscaler
    counts: Counts
    progress: inference.OnTiles | None

    def pixels(
        self, pixels: images.Pixels, on_rows: inference.OnRows | None = None, out: images.Pixels | None = None
    ) -> images.Pixels:
        """Enlarge (H, W, C)."""
        before = self.counts.tiles

        def onward(done: int, total: int) -> None:
            if self.progress:
                self.progress(before + done, before + total)

        result = self.upscaler.upscale(pixels, onward, on_rows, out)
        self.counts.tiles += result.tiles
        self.counts.redone += result.redone
        return result.pixels

    def alpha(self, alpha: images.Pixels) -> images.Pixels:
        """Enlarge (H, W)."""
        if bool((alpha == alpha.flat[0]).all()):
            scale = self.upscaler.scale
            return np.full((alpha.shape[0] * scale, alpha.shape[1] * scale), alpha.flat[0])
        return self.pixels(alpha[:, :, None])[:, :, 0]

    def into(
        self, photo: images.Photo, pixels: images.Pixels, alpha: images.Pixels | None, begin: Begin
    ) -> images.Photo:
        """Return the enlarged photo, which `begin` has had before."""
        scale = self.upscaler.scale
        height, width, channels = pixels.shape
        out = np.empty((height * scale, width * scale, channels), pixels.dtype)
        enlarged = images.with_pixels(photo, out, alpha)
        tell = begin(enlarged)
        rows = 0

        def final(part: images.Pixels) -> None:
            nonlocal rows
            rows += len(part)
            tell(rows)

        self.pixels(pixels, final, out)
        return enlarged
