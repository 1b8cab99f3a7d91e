"""A static sheet of the places where the models differ most: a row for each place, a column for each model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_ZOOM = 2
_GAP, _MARGIN, _TITLE, _HEADER = 12, 32, 64, 40
_PAPER, _INK, _FAINT = (250, 250, 251), (24, 24, 27), (82, 82, 91)


def draw(title: str, labels: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return (H, W, 3): `rows` of crops of one size, one crop for each of `labels`, each pixel shown as 2x2."""
    side = rows[0][0].shape[0] * _ZOOM if rows else 128 * _ZOOM
    width = 2 * _MARGIN + len(labels) * side + (len(labels) - 1) * _GAP
    height = _MARGIN + _TITLE + _HEADER + len(rows) * (side + _GAP) + _MARGIN - _GAP
    image = Image.new("RGB", (width, height), _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.text((_MARGIN, _MARGIN), _fitting(title, 28, width - 2 * _MARGIN), _INK, ImageFont.load_default(28))
    for column, label in enumerate(labels):
        left = _MARGIN + column * (side + _GAP)
        text = _fitting(label, 18, side)
        canvas.text((left, _MARGIN + _TITLE), text, _FAINT, ImageFont.load_default(18))
        for row, crops in enumerate(rows):
            enlarged = crops[column].repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
            image.paste(Image.fromarray(enlarged), (left, _MARGIN + _TITLE + _HEADER + row * (side + _GAP)))
    return np.asarray(image)


def _fitting(text: str, size: int, width: int) -> str:
    """Return `text`, cut to what fits into `width` pixels; letters that the font lacks are left to it."""
    font = ImageFont.load_default(size)
    text = text.replace("\n", " ")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
