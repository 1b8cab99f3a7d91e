"""The crop of an image that a report shows: where the models differ most."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.metrics.colour import luma

SIDE = 128
"""Pixels a side of a crop."""
_CELL = 16

HR = "HR"
"""The name of the reference among a crop's pictures."""


@dataclass(frozen=True)
class Crop:
    """One place of an image, as the reference and each model show it."""

    left: int
    """Column of the crop's first pixel in HR."""
    top: int
    """Row of the crop's first pixel in HR."""
    width: int
    """Columns."""
    height: int
    """Rows."""
    difference: float
    """How far the models' errors there lie apart: levels of root mean square."""
    pictures: Mapping[str, str]
    """PNG in base64: `HR`, then each model by its name."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "pictures": dict(self.pictures)}


def _cells(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means over cells of 16x16; the remainder at the right and bottom is left out."""
    rows, columns = (max(side // _CELL, 1) for side in values.shape)
    height, width = min(rows * _CELL, values.shape[0]), min(columns * _CELL, values.shape[1])
    grid = values[:height, :width].reshape(rows, height // rows, columns, width // columns)
    return np.asarray(grid.mean((1, 3)))


def _window_means(cells: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    total = np.pad(cells, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    return np.asarray(sums / (rows * columns))


def choose(hr: NDArray[np.uint8], outputs: Mapping[str, NDArray[np.uint8]], side: int = SIDE) -> Crop:
    """Return the crop where the models' errors on luma differ most; with one model, where its error is.

    `hr` and all outputs are (H, W, 3) of one size.
    """
    reference = luma(hr)
    errors = np.stack([_cells((luma(output) - reference) ** 2) for output in outputs.values()])
    window = [min(side // _CELL, cells) for cells in errors.shape[1:]]
    levels = np.sqrt(np.stack([_window_means(cells, *window) for cells in errors]))
    spread = levels.max(0) - levels.min(0) if len(levels) > 1 else levels[0]
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    height, width = min(side, hr.shape[0]), min(side, hr.shape[1])
    top = min(int(row) * _CELL, hr.shape[0] - height)
    left = min(int(column) * _CELL, hr.shape[1] - width)
    pictures = {
        name: _png(image[top : top + height, left : left + width]) for name, image in {HR: hr, **outputs}.items()
    }
    return Crop(left, top, width, height, float(spread[row, column]), pictures)


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
