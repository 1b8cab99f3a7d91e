"""Pairs of images to measure on: which files of a folder belong together, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_cli import images
from sr_cli.datasets.reduction import SCALE, crop_to_scale
from sr_cli.errors import InputError
from sr_cli.images.encode import to_8_bits

SUFFIXES = images.READABLE_SUFFIXES  #: What counts as an image in a folder, in lower case.


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image file as upright 8-bit RGB (H, W, 3), without its transparency. Raises InputError."""
    pixels = to_8_bits(images.read(path).pixels)
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels


@dataclass(frozen=True)
class Pair:
    """One image to measure on, not yet read."""

    name: str  #: What reports call it: the HR file's name, or the LR file's where there is no HR.
    hr: Path | None  #: The high-resolution file.
    lr: Path | None  #: The LR file that the set ships, or None where LR is made from HR.
    problem: str | None = None  #: Why this pair cannot be measured, where the folder's listing already shows it.


@dataclass(frozen=True)
class Dataset:
    """A set of images to measure on."""

    name: str  #: What reports call it.
    pairs: tuple[Pair, ...]  #: Its images in the order of their names; never empty.
    lr: str  #: `shipped` with the set or `made` from HR.


def files_in(folder: Path) -> list[Path]:
    """List the images of a folder itself, hidden ones left out; sorted."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return sorted(p for p in files if p.is_file())


def _key(path: Path) -> str:
    """Return what an HR file and its LR partner have in common: the stem without `_HR`, `_LR` or `x4`."""
    return re.sub(r"(_HR|_LR|_?x4)+$", "", path.stem, flags=re.IGNORECASE)


NO_LR = "no LR image of this name"


def match(high: Sequence[Path], low: Sequence[Path]) -> tuple[Pair, ...]:
    """Pair HR and LR files by name; a file without a partner becomes a pair with a problem."""
    partners = {_key(path): path for path in low}
    pairs = []
    for path in high:
        partner = partners.pop(_key(path), None)
        pairs.append(Pair(path.name, path, partner, None if partner else NO_LR))
    pairs += [Pair(path.name, None, path, "no HR image of this name") for path in partners.values()]
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def _subfolder(folder: Path, name: str) -> Path | None:
    return next((p for p in folder.iterdir() if p.is_dir() and p.name.lower() == name), None)


def from_folder(folder: Path) -> Dataset:
    """Find the images of a folder: `HR/` and `LR/` in it, or files `*_HR.*` and `*_LR.*`, or HR images alone.

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
        return match(files_in(high), files_in(low)), "shipped"
    files = files_in(high or folder)
    named_high = [p for p in files if p.stem.upper().endswith("_HR")]
    named_low = [p for p in files if p.stem.upper().endswith("_LR")]
    if named_high and named_low:
        others = sorted(set(files) - set(named_high) - set(named_low))
        strays = tuple(Pair(p.name, p, None, "named neither *_HR nor *_LR, as the others are") for p in others)
        return match(named_high, named_low) + strays, "shipped"
    return tuple(Pair(p.name, p, None) for p in files), "made"


def load(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Load HR (4H, 4W, 3), cropped to multiples of 4, and the shipped LR (H, W, 3) or None.

    Raises InputError, one line, for a file that cannot be decoded and for sizes that do not match.
    """
    if pair.problem or pair.hr is None:
        raise InputError(f"{pair.name}: {pair.problem or 'no HR image'}")
    hr = read_rgb(pair.hr)
    if min(hr.shape[:2]) < SCALE:
        raise InputError(f"{pair.name}: smaller than {SCALE} pixels a side")
    hr = crop_to_scale(hr)
    if pair.lr is None:
        return hr, None
    lr = read_rgb(pair.lr)
    if any(large != SCALE * small for large, small in zip(hr.shape[:2], lr.shape[:2], strict=True)):
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (lr, hr)]
        raise InputError(f"{pair.name}: LR of {sizes[0]} does not fit HR of {sizes[1]}: not a factor of {SCALE}")
    return hr, lr
