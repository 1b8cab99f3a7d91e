"""Plain interpolation by Pillow: what networks are compared with."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sr_cli.inference import tiling
from sr_cli.inference.enlarger import EngineResult, OnRows, OnTiles
from sr_cli.inference.pixels import AnyPixels, full_intensity
from sr_cli.inference.setup import Setup
from sr_cli.weights import INTERPOLATIONS

_FILTERS = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
_PILLOW_BYTES = 4  #: Pixel types of Pillow.


class Interpolation:
    """Enlarges by 4 with Pillow's BICUBIC (cubic, a = -0.5) or LANCZOS (a = 3); see `Enlarger`."""

    scale = 4
    setup = Setup(device="cpu", precision="fp32", backend="pillow", tile=0, overlap=0)

    def __init__(self, name: str) -> None:
        self.name = name

    def enlarge(
        self, pixels: AnyPixels, output: AnyPixels, progress: OnTiles | None, on_rows: OnRows | None
    ) -> EngineResult:
        """See `Enlarger`; `progress` is not called, since there are no tiles."""
        interpolate_into(output, pixels, self.name)
        if on_rows:
            on_rows(output)
        return EngineResult(output, 0, 0, 0, 0, self.setup)

    def plan(self, height: int, width: int) -> tiling.Plan:
        """Return the whole image as one tile."""
        return tiling.plan(height, width, 0, 0)

    def working_bytes(self, height: int, width: int) -> int:
        """Count Pillow's copy of the output."""
        return height * width * self.scale**2 * _PILLOW_BYTES


def interpolate(pixels: AnyPixels, scale: int, name: str) -> AnyPixels:
    """Enlarge pixels by `scale`, clamped to their type's range."""
    output = np.empty((pixels.shape[0] * scale, pixels.shape[1] * scale, pixels.shape[2]), pixels.dtype)
    interpolate_into(output, pixels, name)
    return output


def interpolate_into(output: AnyPixels, pixels: AnyPixels, name: str) -> None:
    """Fill `output` (H', W', C) with `pixels` (H, W, C) of the same type, resized by `bicubic` or `lanczos`."""
    size = (output.shape[1], output.shape[0])
    channels = pixels.shape[2]
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).resize(size, _FILTERS[name])
        output[...] = np.asarray(image).reshape(output.shape)
        return
    for channel in range(channels):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32)).resize(size, _FILTERS[name])
        values = np.clip(np.asarray(plane), 0.0, full_intensity(pixels.dtype))
        output[:, :, channel] = np.rint(values) if pixels.dtype == np.uint16 else values
