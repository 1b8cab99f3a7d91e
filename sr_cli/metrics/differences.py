"""Where enlargements of one photo differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pictures = Sequence[NDArray[np.uint8]]  #: Enlargements of one size, each (H, W, 3).

SIDE = 128  #: Pixels a side of a spot, in the enlarged image; less where that is smaller.
_BLOCKS = 4
# ITU-R BT.601 luma weights, in 1/256.
_LUMA = (77, 150, 29)


@dataclass(frozen=True)
class Spot:
    """A square of the enlarged image."""

    left: int  #: Its first column.
    top: int  #: Its first row.
    side: int  #: Its rows and columns.
    difference: float  #: Mean over its pixels of the highest minus the lowest luma of all images, 0..255.

    def of(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Return the spot cut out of (H, W, C)."""
        return picture[self.top : self.top + self.side, self.left : self.left + self.side]


def difference_map(pictures: Pictures, block: int) -> NDArray[np.float32]:
    """Return (H // block, W // block): the mean over each block of the highest minus the lowest luma, 0..255."""
    height, width = pictures[0].shape[:2]
    rows, columns = height // block, width // block
    differences = np.zeros((rows, columns), np.float32)
    strip = max(1, 2**20 // (block * width))
    for start in range(0, rows, strip):
        stop = min(rows, start + strip)
        area = slice(start * block, stop * block), slice(0, columns * block)
        highest = lowest = _luma(pictures[0][area])
        for picture in pictures[1:]:
            luma = _luma(picture[area])
            highest, lowest = np.maximum(highest, luma), np.minimum(lowest, luma)
        spread = (highest - lowest).reshape(stop - start, block, columns, block)
        differences[start:stop] = spread.mean(axis=(1, 3))
    return differences


def find(pictures: Pictures, count: int) -> list[Spot]:
    """Return at most `count` spots, the most different first, none overlapping and well apart on large images."""
    height, width = pictures[0].shape[:2]
    side = min(SIDE, height, width)
    block = max(1, side // _BLOCKS)
    side = block * max(1, side // block)
    window = side // block
    differences = difference_map(pictures, block)
    sums = np.lib.stride_tricks.sliding_window_view(differences, (window, window)).mean(axis=(2, 3))
    apart = max(window, min(differences.shape) // 6)
    spots: list[Spot] = []
    while len(spots) < count and np.isfinite(best := sums.max()):
        row, column = (int(i) for i in np.unravel_index(sums.argmax(), sums.shape))
        spots.append(Spot(column * block, row * block, side, float(best)))
        around = slice(max(0, row - apart + 1), row + apart), slice(max(0, column - apart + 1), column + apart)
        sums[around] = -np.inf
    return spots


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return luma (h, w) in 0..255 of (h, w, 3)."""
    red, green, blue = (pixels[:, :, c].astype(np.int32) * _LUMA[c] for c in range(3))
    return ((red + green + blue) >> 8).astype(np.int16)
