"""Measures two values of a weights file's manifest entry: the overlap of tiles, and what bf16 changes.

    python tools/measure_weights.py WEIGHTS PHOTO... [--side 256] [--overlap] [--bf16]

The photos are reduced to a quarter (low resolution); their centre is used, `--side` pixels square. Both values
are measured unless an option selects one:

- `overlap`: each photo is enlarged whole and in tiles of 48 pixels, far smaller than those that are ever chosen, so
  that every part of it is at the edge of some tile. The result is the smallest multiple of 4 at which no value
  anywhere differs by more than 0.9 of 255 levels before rounding, hence by at most 1 after it.
- `bf16_share`: the share of values, rounded to 8 bits, that differ by at most 1 level between bf16 and fp32. From 0.999
  on `--precision auto` takes bf16 on processors that compute it fast. Where the processor has no bf16, torch
  computes the same products of rounded factors, only slowly; sums are in fp32 either way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import Upscaler

TILE = 48
TOLERANCE = 0.9


def low_resolution(path: Path, side: int) -> NDArray[np.uint8]:
    """Cut out (side, side, 3): the middle of a photo reduced to a quarter; less where it is smaller."""
    with Image.open(path) as photo:
        reduced = photo.convert("RGB").reduce(4)
    left, top = (max(0, length - side) // 2 for length in reduced.size)
    return np.asarray(reduced.crop((left, top, min(left + side, reduced.width), min(top + side, reduced.height))))


def largest_difference(weights: str, overlap: int, photos: list[NDArray[np.uint8]]) -> float:
    """Measure the largest difference between tiled and whole, in levels of 255 before rounding."""
    tiled = Upscaler(weights, device="cpu", backend="eager", precision="fp32", tile=TILE, overlap=overlap)
    whole = Upscaler(weights, device="cpu", backend="eager", precision="fp32", tile=0, overlap=overlap)
    floats = [photo.astype(np.float32) / 255 for photo in photos]
    return max(float(np.abs(tiled.upscale(p).pixels - whole.upscale(p).pixels).max()) * 255 for p in floats)


def smallest_overlap(weights: str, photos: list[NDArray[np.uint8]]) -> int:
    """Find the smallest overlap at which tiles do not show. Raises SystemExit if none up to 64 does."""
    for overlap in range(4, 65, 4):
        difference = largest_difference(weights, overlap, photos)
        print(f"overlap {overlap:3d}: {difference:.3f} of 255", flush=True)
        if difference <= TOLERANCE:
            return overlap
    raise SystemExit("tiles show with every overlap up to 64")


def bf16_share(weights: str, photos: list[NDArray[np.uint8]]) -> float:
    """Measure the share of values that bf16 keeps within 1 of 255 levels of fp32."""
    upscalers = [
        Upscaler(weights, device="cpu", backend="eager", precision=precision, tile=0) for precision in ("bf16", "fp32")
    ]
    within = total = 0
    for photo in photos:
        rounded, exact = (upscaler.upscale(photo).pixels.astype(np.int16) for upscaler in upscalers)
        apart = np.abs(rounded - exact)
        within, total = within + int((apart <= 1).sum()), total + apart.size
        print(f"bf16: mean {apart.mean():.4f}, at most {apart.max()} of 255", flush=True)
    return within / total


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="as `srup upscale -m` takes them")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--overlap", action="store_true", help="only the overlap")
    parser.add_argument("--bf16", action="store_true", help="only bf16")
    given = parser.parse_args()
    photos = [low_resolution(path, given.side) for path in given.photos]
    if given.overlap or not given.bf16:
        print(f'"overlap": {smallest_overlap(given.weights, photos)}')
    if given.bf16 or not given.overlap:
        print(f'"bf16_share": {bf16_share(given.weights, photos):.6f}')


if __name__ == "__main__":
    main()
