"""Bar charts as SVG (written by hand) or PNG (drawn by Pillow), from one list of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from sr_cli.errors import OutputError, UsageError

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab0ac")
_INK = "#333333"
_GRID = "#dddddd"
_SHARPNESS = 2
"""Pixels per unit of length in a PNG."""


@dataclass(frozen=True)
class Panel:
    """One set of axes: groups of bars, one bar of each series in each group."""

    title: str
    """Above the axes."""
    groups: Sequence[str]
    """Labels along the horizontal axis."""
    values: Sequence[Sequence[float | None]]
    """values[series][group], positive; None leaves a gap."""


@dataclass(frozen=True)
class _Rectangle:
    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    text: str
    size: int
    anchor: str = "start"


_Shape = _Rectangle | _Text


def save(path: Path, title: str, unit: str, series: Sequence[str], panels: Sequence[Panel]) -> None:
    """Draws the panels, two beside each other, over one logarithmic scale.

    Raises UsageError for a suffix other than .svg and .png, OutputError where the file cannot be written.
    """
    check_suffix(path)
    width, height, shapes = _layout(title, unit, series, panels)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(_svg(width, height, shapes), encoding="utf-8")
        else:
            _png(path, width, height, shapes)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def check_suffix(path: Path) -> None:
    """Raises UsageError for a file that `save` cannot write."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"a plot is written as .svg or .png, not {path.suffix or 'without a suffix'!r}; rename {path}")


_PANEL_WIDTH, _PANEL_HEIGHT, _LEFT, _TOP, _GAP = 380, 220, 56, 76, 56


def _layout(title: str, unit: str, series: Sequence[str], panels: Sequence[Panel]) -> tuple[int, int, list[_Shape]]:
    """The size of the picture and what is on it."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // 2)
    width = _LEFT + columns * (_PANEL_WIDTH + _GAP)
    height = _TOP + rows * (_PANEL_HEIGHT + _GAP)
    known = [value for panel in panels for row in panel.values for value in row if value]
    low = math.floor(math.log10(min(known, default=1.0)))
    high = max(math.ceil(math.log10(max(known, default=10.0))), low + 1)
    shapes: list[_Shape] = [_Text(_LEFT, 26, title, 16)]
    x = float(_LEFT)
    for colour, name in zip(COLOURS, series, strict=False):
        shapes += [_Rectangle(x, 38, 12, 12, colour), _Text(x + 17, 49, name, 12)]
        x += 40 + 7.2 * len(name)
    for index, panel in enumerate(panels):
        left = _LEFT + (index % 2) * (_PANEL_WIDTH + _GAP)
        top = _TOP + (index // 2) * (_PANEL_HEIGHT + _GAP)
        shapes += _panel(left, top, panel, unit, low, high)
    return width, height, shapes


def _panel(left: float, top: float, panel: Panel, unit: str, low: int, high: int) -> list[_Shape]:
    inner_top, inner_height = top + 22, _PANEL_HEIGHT - 44

    def y(value: float) -> float:
        return inner_top + inner_height * (high - math.log10(value)) / (high - low)

    shapes: list[_Shape] = [_Text(left, top + 12, f"{panel.title}, {unit}", 13)]
    for power in range(low, high + 1):
        line = y(10.0**power)
        shapes += [
            _Rectangle(left, line, _PANEL_WIDTH, 1, _GRID),
            _Text(left - 6, line + 4, f"{10.0**power:g}", 11, "end"),
        ]
    slot = _PANEL_WIDTH / max(1, len(panel.groups))
    bar = 0.8 * slot / max(1, len(panel.values))
    for group, name in enumerate(panel.groups):
        start = left + slot * (group + 0.1)
        shapes.append(_Text(start + 0.4 * slot, inner_top + inner_height + 16, name, 11, "middle"))
        for index, row in enumerate(panel.values):
            value = row[group]
            if value is None:
                continue
            box = _Rectangle(
                start + index * bar, y(value), 0.9 * bar, y(10.0**low) - y(value), COLOURS[index % len(COLOURS)]
            )
            shapes.append(box)
            if bar >= 24:
                shapes.append(_Text(box.x + box.width / 2, box.y - 4, f"{value:.3g}", 10, "middle"))
    return shapes


def _svg(width: int, height: int, shapes: Sequence[_Shape]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for shape in shapes:
        if isinstance(shape, _Rectangle):
            lines.append(
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" '
                f'fill="{shape.colour}"/>'
            )
        else:
            lines.append(
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}" fill="{_INK}" '
                f'text-anchor="{shape.anchor}">{escape(shape.text)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])


def _png(path: Path, width: int, height: int, shapes: Sequence[_Shape]) -> None:
    from PIL import Image, ImageDraw, ImageFont

    k = _SHARPNESS
    image = Image.new("RGB", (width * k, height * k), "#ffffff")
    draw = ImageDraw.Draw(image)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for shape in shapes:
        if isinstance(shape, _Rectangle):
            right, bottom = shape.x + shape.width, shape.y + shape.height
            draw.rectangle((shape.x * k, shape.y * k, right * k - 1, bottom * k - 1), fill=shape.colour)
        else:
            font = ImageFont.load_default(shape.size * k)
            draw.text((shape.x * k, shape.y * k), shape.text, fill=_INK, font=font, anchor=anchors[shape.anchor])
    image.save(path)
