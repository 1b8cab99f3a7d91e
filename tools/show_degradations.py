"""Shows what training's degradation makes of photos: python tools/show_degradations.py [-o sheet.png] PHOTO...

A row a photo: its upper left corner first, then degradations of it, enlarged to its size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from sr_cli.datasets import degradation, read_rgb

SIDE = 176  #: Pixels a side of the corner.
GAP = 4


def sheet(hr_patches: list[degradation.Rgb], seed: int, columns: int = 8) -> Image.Image:
    """Draw a row per patch (H, W, 3): first itself, then degradations enlarged to its size."""
    side_y, side_x = (max(patch.shape[axis] for patch in hr_patches) for axis in (0, 1))
    page = Image.new("RGB", ((columns + 1) * (side_x + GAP), len(hr_patches) * (side_y + GAP)), "white")
    for row, patch in enumerate(hr_patches):
        page.paste(Image.fromarray(patch), (0, row * (side_y + GAP)))
        for column in range(columns):
            lr = degradation.photo(patch, np.random.default_rng([seed, row, column]))
            large = Image.fromarray(lr).resize(patch.shape[1::-1], Image.Resampling.NEAREST)
            page.paste(large, ((column + 1) * (side_x + GAP), row * (side_y + GAP)))
    return page


def main() -> None:
    """Parse the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    options = parser.parse_args()
    sheet([read_rgb(path)[:SIDE, :SIDE] for path in options.photos], options.seed).save(options.output)


if __name__ == "__main__":
    main()
