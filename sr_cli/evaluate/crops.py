"""The crop of an image that a report shows: where the models differ most."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.metrics import differences

HR = "HR"  #: The name of the reference among a crop's images.


@dataclass(frozen=True)
class Crop:
    """One place of an image, as the reference and each model show it."""

    left: int  #: Column of the crop's first pixel in HR.
    top: int  #: Row of the crop's first pixel in HR.
    width: int  #: Columns.
    height: int  #: Rows.
    difference: float  #: Mean over its pixels of the highest minus the lowest luma, 0..255.
    pictures: Mapping[str, str]  #: PNG in base64: `HR`, then each model by its name.


def choose(hr: NDArray[np.uint8], outputs: Mapping[str, NDArray[np.uint8]]) -> Crop:
    """Return the crop where the models differ most; with one model, where it differs most from the reference.

    `hr` and all outputs are (H, W, 3) of one size.
    """
    compared = [*outputs.values()] if len(outputs) > 1 else [hr, *outputs.values()]
    spot = differences.find(compared, 1)[0]
    height, width = (min(differences.SIDE, side) for side in hr.shape[:2])
    top, left = min(spot.top, hr.shape[0] - height), min(spot.left, hr.shape[1] - width)
    pictures = {
        name: _png(image[top : top + height, left : left + width]) for name, image in {HR: hr, **outputs}.items()
    }
    return Crop(left, top, width, height, spot.difference, pictures)


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
