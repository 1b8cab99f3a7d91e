"""How an image is cut into tiles: integer geometry only, no pixels and no torch.

All tiles of a plan have cores of one size, so that they can share a batch and a compiled graph. What the
network sees of a tile (its window) is the core with `overlap` pixels more on each side. At the border of the image
a window ends there and sees more on its other side: all have one size, and the networks do at the image's border what
they learned to do at that of a training patch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Tile:
    """A rectangle in low-resolution pixels: rows `top` to `top + height`, columns `left` to `left + width`."""

    top: int
    left: int
    height: int
    width: int

    def within(self, other: Tile) -> Tile:
        """Give this rectangle as it is seen from the top left of another."""
        return Tile(self.top - other.top, self.left - other.left, self.height, self.width)


@dataclass(frozen=True)
class Plan:
    """The tiles of an image, row by row from the top left, all of one size."""

    height: int  #: Rows of the image.
    width: int  #: Columns of the image.
    overlap: int  #: Pixels around a core that the network sees as well, at least; less at the image's border only.
    tiles: tuple[Tile, ...]  #: Cores that cover the image; neighbours may share a few rows or columns.

    @cached_property
    def window(self) -> tuple[int, int]:
        """Height and width of what the network sees of each tile: enough for the one that needs most."""
        return (
            max(self._needed(tile.top, tile.height, self.height) for tile in self.tiles),
            max(self._needed(tile.left, tile.width, self.width) for tile in self.tiles),
        )

    def _needed(self, start: int, length: int, side: int) -> int:
        """Count the pixels of a core and its overlap that are inside the image, along one axis."""
        return min(start + length + self.overlap, side) - max(start - self.overlap, 0)

    def window_of(self, tile: Tile) -> Tile:
        """Place a tile's window, inside the image."""
        height, width = self.window
        top = min(max(tile.top - self.overlap, 0), self.height - height)
        left = min(max(tile.left - self.overlap, 0), self.width - width)
        return Tile(top, left, height, width)


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

    All cores and windows start at multiples of `align`: cores are that large even where `tile` is less, and `overlap`
    is rounded up to one. Raises ValueError for an empty image or negative numbers.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width}x{height} pixels has nothing to tile")
    if tile < 0 or overlap < 0:
        raise ValueError(f"tile and overlap must not be negative, not {tile} and {overlap}")
    core_height, tops = _starts(height, tile or height, align)
    core_width, lefts = _starts(width, tile or width, align)
    tiles = tuple(Tile(top, left, core_height, core_width) for top in tops for left in lefts)
    return Plan(height, width, overlap + -overlap % align, tiles)


def rows(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Yield the tiles of each row of a plan."""
    return (list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.top))
