"""Protocol that networks and interpolations have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sr_cli.inference import tiling
from sr_cli.inference.pixels import AnyPixels
from sr_cli.inference.setup import Setup

OnTiles: TypeAlias = Callable[[int, int], None]  #: Called with the tiles done and their total.
OnRows: TypeAlias = Callable[[AnyPixels], None]
"""Called with finished rows of the output, top to bottom, each row once."""


@dataclass(frozen=True)
class EngineResult:
    """Result for one image, and how it was computed."""

    pixels: AnyPixels  #: (scale * H, scale * W, C), of the input's type and channels.
    tiles: int  #: Tiles that were computed; 0 for interpolation.
    tile: int
    """Side of the largest core that was used, in input pixels; smaller than chosen after a shortage of memory."""
    overlap: int  #: Input pixels around each core.
    redone: int  #: Tiles that were computed again in a wider format because the first result was not finite.
    setup: Setup  #: How it was computed: device, precision, backend.


class Enlarger(Protocol):
    """Enlarges images by a fixed factor."""

    name: str  #: The model's name.
    scale: int  #: Factor by which it enlarges.
    setup: Setup  #: How it computes: the same for every image.

    def enlarge(
        self, pixels: AnyPixels, output: AnyPixels, progress: OnTiles | None, on_rows: OnRows | None
    ) -> EngineResult:
        """Fill `output` (scale * H, scale * W, C) with the enlargement of `pixels`, of the same type.

        Raises OutOfMemory where even the smallest tile does not fit.
        """

    def plan(self, height: int, width: int) -> tiling.Plan:
        """Cut an image of this size into tiles."""

    def working_bytes(self, height: int, width: int) -> int:
        """Estimate the memory that an image of this size needs, without input and output."""
