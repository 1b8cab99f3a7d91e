"""Pairs of images to measure on: folders, how LR and HR belong together, and how LR is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sr_cli.errors import InputError

SCALE = 4
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"})
"""What counts as an image in a folder, in lower case."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image file as upright 8-bit RGB (H, W, 3). Raises OSError, ValueError or SyntaxError."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def crop_to_scale(rgb: NDArray[Any]) -> NDArray[Any]:
    """A view of (H, W, ...) whose sides are the largest multiples of 4."""
    height, width = (side // SCALE * SCALE for side in rgb.shape[:2])
    return rgb[:height, :width]


def reduce_image(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Antialiased bicubic reduction by 4 of (H, W, 3), sides divisible by 4: Pillow's BICUBIC.

    It agrees with the LR files published for Set5 and Set14, which MATLAB's imresize made, at 47 to 56 dB.
    """
    height, width = rgb.shape[:2]
    reduced = Image.fromarray(rgb).resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC)
    return np.asarray(reduced)


_CUBIC_MIDWAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375])


def reduce_aliased(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bicubic reduction by 4 without antialiasing, as in the poster: float32 in 0..1, not rounded.

    A sample lies midway between the middle two of four pixels, so its weights are those of Keys' kernel
    with a = -0.75 at half a pixel: what torch's `interpolate` computes with align_corners=False.
    Overshoot is cut off at 0 and 1. (H, W, 3), sides divisible by 4.
    """
    height, width, channels = rgb.shape
    blocks = rgb.reshape(height // SCALE, SCALE, width // SCALE, SCALE, channels)
    reduced = np.einsum("hiwjc,i,j->hwc", blocks, _CUBIC_MIDWAY, _CUBIC_MIDWAY, optimize=True) / 255
    return np.asarray(reduced.clip(0, 1), np.float32)


@dataclass(frozen=True)
class Pair:
    """One image to measure on, not yet read."""

    name: str
    """What reports call it: the HR file's name, or the LR file's where there is no HR."""
    hr: Path | None
    """The high-resolution file."""
    lr: Path | None
    """The LR file that the set ships, or None where LR is made from HR."""
    problem: str | None = None
    """Why this pair cannot be measured, where the folder's listing already shows it."""


@dataclass(frozen=True)
class Dataset:
    """A set of images to measure on."""

    name: str
    """What reports call it."""
    pairs: tuple[Pair, ...]
    """Its images in the order of their names; never empty."""
    lr: str
    """`shipped` with the set or `made` from HR."""


def _images(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return sorted(p for p in files if p.is_file())


def _key(path: Path) -> str:
    """What an HR file and its LR partner have in common: the stem without `_HR`, `_LR` or `x4`."""
    return re.sub(r"(_HR|_LR|_?x4)+$", "", path.stem, flags=re.IGNORECASE)


def match(high: Sequence[Path], low: Sequence[Path]) -> tuple[Pair, ...]:
    """Pairs of HR and LR files by name; a file without a partner becomes a pair with a problem."""
    partners = {_key(path): path for path in low}
    pairs = []
    for path in high:
        partner = partners.pop(_key(path), None)
        pairs.append(Pair(path.name, path, partner, None if partner else "no LR image of this name"))
    pairs += [Pair(path.name, None, path, "no HR image of this name") for path in partners.values()]
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def _subfolder(folder: Path, name: str) -> Path | None:
    return next((p for p in folder.iterdir() if p.is_dir() and p.name.lower() == name), None)


def from_folder(folder: Path) -> Dataset:
    """The images of a folder: `HR/` and `LR/` in it, or files `*_HR.*` and `*_LR.*`, or HR images alone.

    Raises InputError when there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data takes a folder of images")
    pairs, lr = _list_pairs(folder)
    if not pairs:
        raise InputError(f"{folder}: no image in it ({', '.join(sorted(SUFFIXES))})")
    return Dataset(folder.resolve().name, pairs, lr)


def _list_pairs(folder: Path) -> tuple[tuple[Pair, ...], str]:
    high, low = _subfolder(folder, "hr"), _subfolder(folder, "lr")
    if high and low:
        return match(_images(high), _images(low)), "shipped"
    files = _images(high or folder)
    named_high = [p for p in files if p.stem.upper().endswith("_HR")]
    named_low = [p for p in files if p.stem.upper().endswith("_LR")]
    if named_high and named_low:
        others = sorted(set(files) - set(named_high) - set(named_low))
        strays = tuple(Pair(p.name, p, None, "named neither *_HR nor *_LR, as the others are") for p in others)
        return match(named_high, named_low) + strays, "shipped"
    return tuple(Pair(p.name, p, None) for p in files), "made"


def load(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """HR (4H, 4W, 3), cropped to multiples of 4, and the shipped LR (H, W, 3) or None.

    Raises InputError, one line, for a file that cannot be decoded and for sizes that do not match.
    """
    if pair.problem or pair.hr is None:
        raise InputError(f"{pair.name}: {pair.problem or 'no HR image'}")
    hr = _decode(pair.hr)
    if min(hr.shape[:2]) < SCALE:
        raise InputError(f"{pair.name}: smaller than {SCALE} pixels a side")
    hr = crop_to_scale(hr)
    if pair.lr is None:
        return hr, None
    lr = _decode(pair.lr)
    if any(large != SCALE * small for large, small in zip(hr.shape[:2], lr.shape[:2], strict=True)):
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (lr, hr)]
        raise InputError(f"{pair.name}: LR of {sizes[0]} does not fit HR of {sizes[1]}: not a factor of {SCALE}")
    return hr, lr


def _decode(path: Path) -> NDArray[np.uint8]:
    try:
        return read_rgb(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as an image: {error}") from None
