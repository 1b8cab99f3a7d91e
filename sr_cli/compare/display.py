"""A photo as a browser shows it: 8 bits of sRGB, without transparency."""

from __future__ import annotations

import io

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
        pixels = _to_srgb(pixels, photo.icc_profile)
    if photo.alpha is not None:
        alpha = images.to_8_bits(photo.alpha).astype(np.float32)[:, :, None] / 255
        pixels = np.rint(pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels


def _to_srgb(pixels: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8]:
    """Return colours of `profile` in sRGB; unchanged where the profile cannot be read."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(Image.fromarray(pixels), source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        return pixels
    return pixels if converted is None else np.asarray(converted)
