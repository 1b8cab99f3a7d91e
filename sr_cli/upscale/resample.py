"""Photos brought from the model's factor to the size that was asked for: Lanczos in linear light.

Light adds up, its sRGB encoding does not: averaging encoded values darkens fine bright detail. So samples are
decoded, resampled and encoded again. The sRGB transfer function (IEC 61966-2-1) is assumed for every photo;
a profile with another curve (Adobe RGB's 2.2, say) is close enough to it for an average of neighbours, and no
pixel's own colour is changed: what is flat stays exactly as it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.images import Pixels

Floats = NDArray[np.float32]

# Rows of the result that are computed at once times their width: bounds the memory for floats.
_BAND_PIXELS = 2**20
# Share of full opacity that keeps the colours under complete transparency defined.
_FAINT = np.float32(1e-5)
_TINY = np.float32(1e-7)


def to_linear(encoded: Floats) -> Floats:
    """Decode sRGB values in 0..1 to light in 0..1 (IEC 61966-2-1, section 5.2)."""
    return np.where(encoded <= 0.04045, encoded / np.float32(12.92), ((encoded + 0.055) / 1.055) ** 2.4)


def to_encoded(linear: Floats) -> Floats:
    """Invert `to_linear`."""
    return np.where(
        linear <= 0.0031308, linear * np.float32(12.92), np.float32(1.055) * linear ** np.float32(1 / 2.4) - 0.055
    ).astype(np.float32, copy=False)


def resample(pixels: Pixels, alpha: Pixels | None, width: int, height: int) -> tuple[Pixels, Pixels | None]:
    """Bring pixels (H, W, C) and alpha (H, W) or None, uint8 or uint16, to `width` x `height`.

    Pillow's LANCZOS (a = 3, widened for a reduction so that nothing aliases) on linear light; colours are
    weighted by alpha, so that what cannot be seen does not mix into what can. Flat colours stay exact.
    """
    if (height, width) == pixels.shape[:2]:
        return pixels, alpha
    source = _Source(pixels, alpha, width, height)
    colours = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    opacity = None if alpha is None else np.empty((height, width), pixels.dtype)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        band, band_alpha = source.band(top, bottom)
        colours[top:bottom] = band
        if opacity is not None and band_alpha is not None:
            opacity[top:bottom] = band_alpha
    return colours, opacity


class _Source:
    """The photo to resample; gives bands of the result that together equal the whole in one go."""

    def __init__(self, pixels: Pixels, alpha: Pixels | None, width: int, height: int) -> None:
        self.pixels, self.alpha = pixels, alpha
        self.width = width
        self.step = pixels.shape[0] / height
        # Lanczos reaches 3 source pixels, in a reduction as many times 3; one more against rounding.
        self.reach = int(np.ceil(3 * max(1.0, self.step))) + 1
        self.top_value = np.iinfo(pixels.dtype).max
        levels = np.arange(self.top_value + 1, dtype=np.float64) / self.top_value
        self.light = to_linear(levels.astype(np.float32)).astype(np.float32)

    def band(self, top: int, bottom: int) -> tuple[Pixels, Pixels | None]:
        """Return rows `top` to `bottom` of the result."""
        first = max(0, int(top * self.step) - self.reach)
        last = min(self.pixels.shape[0], int(np.ceil(bottom * self.step)) + self.reach)
        box = (0.0, top * self.step - first, float(self.pixels.shape[1]), bottom * self.step - first)
        size = (self.width, bottom - top)

        def resized(plane: Floats) -> Floats:
            image = Image.fromarray(np.ascontiguousarray(plane))
            return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box))

        light = self.light[self.pixels[first:last]]
        channels = range(light.shape[2])
        if self.alpha is None:
            return self._encoded(np.stack([resized(light[..., c]) for c in channels], axis=2)), None
        share = self.alpha[first:last].astype(np.float32) / np.float32(self.top_value)
        weight = share + _FAINT
        total = resized(weight)
        total = np.where(np.abs(total) < _TINY, _TINY, total)
        mixed = np.stack([resized(light[..., c] * weight) / total for c in channels], axis=2)
        return self._encoded(mixed), self._rounded(resized(share))

    def _encoded(self, light: Floats) -> Pixels:
        return self._rounded(to_encoded(np.clip(light, 0, 1)))

    def _rounded(self, values: Floats) -> Pixels:
        scaled: NDArray[Any] = np.rint(np.clip(values, 0, 1) * np.float32(self.top_value))
        return scaled.astype(self.pixels.dtype)
