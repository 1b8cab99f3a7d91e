"""Transparency without halos: what the network should see where nothing is to be seen.

Where alpha is 0 the stored colour is arbitrary, usually black, and an enlarger mixes it into the edge: the
dark fringe known from naive upscalers. Here the visible colours are spread outwards under the transparent
part first, so every pixel that a network mixes has a colour that belongs to the image.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.images.photo import Pixels

Floats: TypeAlias = NDArray[np.floating[Any]]
_KEPT_FROM = 1 / 8
_TINY = np.float32(1e-12)


def bleed(pixels: Pixels, alpha: Pixels | None) -> Pixels:
    """Spread colours of `pixels` (H, W, C) from visible into transparent areas; same shape and type.

    Pixels of at least 1/8 alpha stay exactly as they are. Fainter ones, whose stored colour is coarse or
    arbitrary, move towards the alpha-weighted mean of their neighbourhood, the more the less is seen of them
    (a pull-push pyramid: Gortler et al., "The Lumigraph", 1996, section 3.4). Colours of a fully transparent
    image stay as they are.
    """
    if alpha is None:
        return pixels
    top = np.iinfo(pixels.dtype).max
    weight = np.minimum(alpha.astype(np.float32) * np.float32(1 / (_KEPT_FROM * top)), 1)[..., None]
    if not weight.any() or bool((weight == 1).all()):
        return pixels
    filled = _pull_push(pixels.astype(np.float32) * weight, weight)
    rounded = np.clip(np.rint(filled), 0, top).astype(pixels.dtype)
    result: Pixels = np.where(weight == 1, pixels, rounded)
    return result


def _pull_push(weighted: Floats, weight: Floats) -> Floats:
    """Fill premultiplied colours: each pixel keeps its own as far as `weight` goes, the rest comes from afar."""
    height, width = weight.shape[:2]
    if height == 1 and width == 1:
        return weighted / np.maximum(weight, _TINY)
    # Two by two sums; a level's weight is capped at 1, as a full neighbour is all that can be known of a colour.
    total, colours = _halve(weight), _halve(weighted)
    capped = np.minimum(total, np.float32(1))
    coarse = _pull_push(colours * (capped / np.maximum(total, _TINY)), capped)
    return weighted + (np.float32(1) - weight) * _enlarge(coarse, height, width)


def _halve(values: Floats) -> Floats:
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    summed: Floats = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return summed


def _enlarge(values: Floats, height: int, width: int) -> Floats:
    """Enlarge (h, w, C) linearly by 2, cut to (height, width)."""
    rows, columns = values.shape[:2]
    channels = [
        np.asarray(Image.fromarray(values[..., c]).resize((columns * 2, rows * 2), Image.Resampling.BILINEAR))
        for c in range(values.shape[2])
    ]
    return np.stack(channels, axis=2)[:height, :width]
