"""Luma as the super-resolution literature measures it, and what else is done to pixels before they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BT601 = np.array([65.481, 128.553, 24.966]) / 255


def luma(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the luma of (H, W, 3) in 0..255, as (H, W) in 16..235, not rounded.

    BT.601 studio range with the constants of MATLAB's rgb2ycbcr (ITU-R BT.601-5, section 3.5).
    """
    return rgb @ _BT601 + 16.0


def to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels as uint8 (0..255), float ones (0..1) rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def crop_border(image: NDArray[Any], border: int) -> NDArray[Any]:
    """Give a view of (H, W, ...) without `border` pixels at each side. Raises ValueError when nothing is left."""
    if min(image.shape[:2]) <= 2 * border:
        raise ValueError(f"smaller than {2 * border + 1} pixels a side, nothing is left inside the border")
    return image[border : image.shape[0] - border, border : image.shape[1] - border]
