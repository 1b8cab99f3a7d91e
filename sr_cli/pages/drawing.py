"""Drawings: lists of shapes, written as SVG by a template or as PNG by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sr_cli.errors import OutputError, UsageError, reason_of
from sr_cli.pages import render

INK = "#333333"
FAINT = "#666666"
GRID = "#dddddd"
_SHARPNESS = 2  #: Pixels per unit of length in a PNG.


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle."""

    x: float  #: Left side.
    y: float  #: Upper side.
    width: float  #: To the right.
    height: float  #: Downwards.
    colour: str  #: #rrggbb.


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[tuple[float, float]]  #: (x, y) of each.
    colour: str = GRID  #: #rrggbb.
    width: float = 1  #: Thickness.


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float  #: Of its centre.
    y: float  #: Of its centre.
    radius: float  #: Half its width.
    colour: str  #: #rrggbb.
    label: str = ""  #: What a browser shows under the pointer.


@dataclass(frozen=True)
class Text:
    """A line of text."""

    x: float  #: Where its anchor is.
    y: float  #: Its base line.
    text: str  #: Any text.
    size: int = 12  #: Height of the letters.
    anchor: str = "start"  #: `start`, `middle` or `end` of the text is at `x`.
    colour: str = INK  #: #rrggbb.
    bold: bool = False  #: Only in SVG: Pillow's font has one weight.


Shape = Rectangle | Line | Dot | Text


@dataclass(frozen=True)
class Drawing:
    """Shapes on a white sheet; y grows downwards."""

    title: str  #: What a screen reader says.
    width: int  #: Of the sheet.
    height: int  #: Of the sheet.
    shapes: Sequence[Shape]  #: Later ones cover earlier ones.

    def svg(self, *, standalone: bool = True) -> Markup:
        """Return an SVG document, or, not `standalone`, one without size and background for an HTML page.

        In a page, CSS may set other colours for `text`, `.faint` and `.grid`.
        """
        shapes = [(type(shape).__name__, shape) for shape in self.shapes]
        values = {"title": self.title, "width": self.width, "height": self.height, "shapes": shapes}
        return Markup(render("chart.svg", **values, standalone=standalone, grid=GRID, faint=FAINT))

    def save(self, path: Path) -> None:
        """Write .svg or .png. Raises UsageError for another suffix, OutputError where it cannot be written."""
        check_suffix(path)
        try:
            if path.suffix.lower() == ".svg":
                path.write_text(self.svg(), encoding="utf-8")
            else:
                self._save_png(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason_of(error)}") from None

    def _save_png(self, path: Path) -> None:
        from PIL import Image, ImageDraw, ImageFont

        k = _SHARPNESS
        image = Image.new("RGB", (self.width * k, self.height * k), "#ffffff")
        draw = ImageDraw.Draw(image)
        anchors = {"start": "ls", "middle": "ms", "end": "rs"}
        for shape in self.shapes:
            match shape:
                case Rectangle(x, y, width, height, colour):
                    draw.rectangle((x * k, y * k, (x + width) * k - 1, (y + height) * k - 1), fill=colour)
                case Line(points, colour, width):
                    draw.line([(x * k, y * k) for x, y in points], fill=colour, width=round(width * k), joint="curve")
                case Dot(x, y, radius, colour):
                    draw.circle((x * k, y * k), radius * k, fill=colour)
                case Text(x, y, text, size, anchor, colour):
                    font = ImageFont.load_default(size * k)
                    draw.text((x * k, y * k), text, fill=colour, font=font, anchor=anchors[anchor])
        image.save(path)


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file that `Drawing.save` cannot write."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"a plot is written as .svg or .png, not {path.suffix or 'without a suffix'!r}; rename {path}")
