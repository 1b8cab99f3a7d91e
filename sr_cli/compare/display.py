"""A photo as a browser shows it: 8 bits of sRGB, without transparency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import images


def for_display(photo: images.Photo) -> NDArray[np.uint8]:
    """Return (H, W, 3). Other RGB colour spaces are converted to sRGB; transparent parts are laid on white."""
    pixels = images.to_8_bits(photo.pixels)
    if photo.is_gray:
        pixels = np.repeat(pixels, 3, axis=2)
    elif photo.icc_profile is not None:
        pixels = np.asarray(images.to_srgb(Image.fromarray(pixels), photo.icc_profile)[0])
    if photo.alpha is not None:
        pixels = images.on_white(pixels, images.to_8_bits(photo.alpha))
    return pixels.astype(np.uint8, copy=False)
