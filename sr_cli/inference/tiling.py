"""How an image is cut into tiles: integer geometry only, no pixels and no torch.

All tiles of a plan have cores of one size, so that they can share a batch and a compiled graph. What the
network sees of a tile (its window) is the core with `overlap` pixels more on each side; where a window
reaches beyond the image, the caller pads it by replicating the image's border.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """One core, in low-resolution pixels: rows `top` to `top + height`, columns `left` to `left + width`."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Plan:
    """The tiles of an image, row by row from the top left, all of one size."""

    height: int  #: Rows of the image.
    width: int  #: Columns of the image.
    overlap: int  #: Pixels around a core that the network sees as well.
    tiles: tuple[Tile, ...]  #: Cores that cover the image; neighbours may share a few rows or columns.

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what the network sees of each tile."""
        return self.tiles[0].height + 2 * self.overlap, self.tiles[0].width + 2 * self.overlap


def _starts(length: int, tile: int, align: int) -> tuple[int, list[int]]:
    """Return the core size and start of each core along one axis: as few as possible, as equal as possible."""
    # Counted in units of `align`; what is left over belongs to every core, so that the last one ends with the image.
    units, rest = divmod(length, align)
    if length <= tile or units == 0:
        return length, [0]
    count = -(-units // max(1, (tile - rest) // align))
    size = -(-units // count)
    return size * align + rest, [min(i * size, units - size) * align for i in range(count)]


def plan(height: int, width: int, tile: int, overlap: int, align: int = 1) -> Plan:
    """Cut an image of `height` x `width` into cores of at most `tile` a side; 0 makes a single tile.

    All cores start at multiples of `align`, and are that large even where `tile` is less. Raises
    ValueError for an empty image or negative numbers.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width}x{height} pixels has nothing to tile")
    if tile < 0 or overlap < 0:
        raise ValueError(f"tile and overlap must not be negative, not {tile} and {overlap}")
    core_height, tops = _starts(height, tile or height, align)
    core_width, lefts = _starts(width, tile or width, align)
    tiles = tuple(Tile(top, left, core_height, core_width) for top in tops for left in lefts)
    return Plan(height, width, overlap, tiles)


def rows(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Yield the tiles of each row of a plan."""
    return (list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.top))
