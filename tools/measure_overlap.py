"""The smallest overlap at which tiles do not show, for given weights and pictures.

    python tools/measure_overlap.py WEIGHTS PICTURE...

Each picture (low resolution) is enlarged whole and in tiles of 48 pixels, far smaller than the engine ever
chooses, so that every part of it comes to lie at a tile's edge. The answer is the smallest multiple of 4 at
which no value anywhere differs by more than 0.9 of 255 levels before rounding, hence by at most 1 after it.
It belongs into the weights' manifest entry.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sr_cli import inference

TILE = 48
LARGEST_SIDE = 256
TOLERANCE = 0.9


def largest_difference(weights: str, overlap: int, pictures: list[np.ndarray]) -> float:
    """Largest difference between tiled and whole, in levels of 255."""
    tiled = inference.Upscaler(weights, device="cpu", tile=TILE, overlap=overlap)
    whole = inference.Upscaler(weights, device="cpu", tile=0, overlap=overlap)
    return max(float(np.abs(tiled.upscale(p).pixels - whole.upscale(p).pixels).max()) * 255 for p in pictures)


def main() -> None:
    weights, *files = sys.argv[1:]
    pictures = []
    for file in files:
        rgb = np.asarray(Image.open(Path(file)).convert("RGB"))[:LARGEST_SIDE, :LARGEST_SIDE]
        pictures.append(inference.to_unit(rgb))
    for overlap in range(4, 65, 4):
        difference = largest_difference(weights, overlap, pictures)
        print(f"overlap {overlap:3d}: {difference:.3f} of 255", flush=True)
        if difference <= TOLERANCE:
            return


if __name__ == "__main__":
    main()
