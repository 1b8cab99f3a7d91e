"""The page: everything that it shows, put into one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_cli import __version__, pages
from sr_cli.compare import tiles
from sr_cli.compare.methods import Layer
from sr_cli.metrics.differences import Spot

_OVERHEAD = 2**17  #: Bytes of the page that are no photos: the template and the figures.


@dataclass(frozen=True)
class Content:
    """What a page shows."""

    name: str  #: The photo's file name.
    original: NDArray[np.uint8]  #: The photo (H, W, 3), or the part of it that is compared.
    crop: tuple[int, int, int, int] | None  #: Left, top, width and height of that part; None for the whole photo.
    layers: Sequence[Layer]  #: Ways of enlarging; the first is the original.
    pictures: Sequence[NDArray[np.uint8]]  #: The enlargements of the others, all of one size.
    spots: Sequence[Spot]  #: Where they differ most.
    scale: int  #: How much larger the photos are than the original.

    def crops(self) -> list[list[NDArray[np.uint8]]]:
        """Return for each spot what each layer shows there, the original with its pixels repeated."""
        return [[self._nearest(spot), *(spot.of(picture) for picture in self.pictures)] for spot in self.spots]

    def _nearest(self, spot: Spot) -> NDArray[np.uint8]:
        rows = np.arange(spot.top, spot.top + spot.side) // self.scale
        columns = np.arange(spot.left, spot.left + spot.side) // self.scale
        return self.original[rows[:, None], columns[None, :]]


def build(content: Content, max_bytes: int, on_tile: tiles.OnTile) -> tuple[str, tiles.Pyramid]:
    """Return the HTML text and the tiles in it, in at most `max_bytes`.

    Raises UsageError where not even reduced photos fit.
    """
    spots: list[dict[str, Any]] = [
        {
            "left": spot.left,
            "top": spot.top,
            "side": spot.side,
            "difference": round(spot.difference, 1),
            "crops": [_data_url(crop) for crop in row],
        }
        for spot, row in zip(content.spots, content.crops(), strict=True)
    ]
    used = _OVERHEAD + sum(len(url) for spot in spots for url in spot["crops"])
    pyramid = tiles.build([content.original, *content.pictures], max(0, max_bytes - used), on_tile)
    return render(content.name, len(content.layers) - 2, {**_record(content, pyramid), "spots": spots}), pyramid


def _record(content: Content, pyramid: tiles.Pyramid) -> dict[str, Any]:
    """Return what the page's script reads, without the spots."""
    height, width = content.pictures[0].shape[:2]
    rows, columns = content.original.shape[:2]
    return {
        "version": __version__,
        "photo": {"name": content.name, "width": columns, "height": rows, "crop": content.crop},
        "width": width,
        "height": height,
        "scale": content.scale,
        "tile": tiles.TILE,
        "margin": tiles.MARGIN,
        "format": pyramid.format,
        "quality": pyramid.quality,
        "coverage": round(pyramid.coverage, 4),
        "layers": [
            {**vars(layer), "levels": [level.record() for level in picture]}
            for layer, picture in zip(content.layers, pyramid.pictures, strict=True)
        ],
    }


def render(name: str, models: int, record: dict[str, Any]) -> str:
    """Return the HTML file. Whatever is in `name` and `record` is shown as text."""
    return pages.render("compare.html", title=f"{name}: {models} models compared", record=record)


def _data_url(pixels: NDArray[np.uint8]) -> str:
    """Return a lossless photo as a data URL."""
    return "data:image/webp;base64," + base64.b64encode(tiles.encode(pixels, tiles.LOSSLESS)).decode("ascii")
