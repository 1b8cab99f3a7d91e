"""How low-resolution images are made of high-resolution ones: reduction by 4, with and without antialiasing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCALE = 4  #: Factor between low and high resolution.


def crop_to_scale(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return a view of (H, W, ...) whose sides are the largest multiples of 4."""
    height, width = (side // SCALE * SCALE for side in rgb.shape[:2])
    return rgb[:height, :width]


def reduce_image(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce (H, W, 3), sides divisible by 4, by 4 with an antialiased cubic filter: Pillow's BICUBIC.

    It agrees with the LR files published for Set5 and Set14, which MATLAB's imresize made, at 47 to 56 dB.
    """
    height, width = rgb.shape[:2]
    reduced = Image.fromarray(rgb).resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC)
    return np.asarray(reduced)


_CUBIC_MIDWAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375])


def reduce_aliased(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce by 4 with a cubic filter without antialiasing, as Eriksson and Löf do: float32 in 0..1, not rounded.

    A sample lies midway between the middle two of four pixels, so its weights are those of Keys' kernel
    with a = -0.75 at half a pixel: what torch's `interpolate` computes with align_corners=False.
    Overshoot is cut off at 0 and 1. (H, W, 3), sides divisible by 4.
    """
    height, width, channels = rgb.shape
    blocks = rgb.reshape(height // SCALE, SCALE, width // SCALE, SCALE, channels)
    reduced = np.einsum("hiwjc,i,j->hwc", blocks, _CUBIC_MIDWAY, _CUBIC_MIDWAY, optimize=True) / 255
    return np.asarray(reduced.clip(0, 1), np.float32)
