"""Maps positions in a stored image to those in the upright, enlarged image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Move:
    """A stored image becomes another one: turned as its EXIF orientation says, then scaled.

    Places are distances from the left and the upper edge, in pixels or as shares (0..1) of width and height.
    """

    before: tuple[int, int]  #: Width and height as stored.
    after: tuple[int, int]  #: Width and height of the upright, scaled image.
    orientation: int = 1  #: EXIF orientation 1..8 that is applied (CIPA DC-008, 4.6.5.1.6).

    @property
    def swaps(self) -> bool:
        """Whether width and height change places."""
        return self.orientation >= 5

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the turned image before it is scaled."""
        return (self.before[1], self.before[0]) if self.swaps else self.before

    @property
    def scale(self) -> tuple[float, float]:
        """Factors of the upright image's width and height."""
        width, height = self.upright
        return self.after[0] / width, self.after[1] / height

    def turned_size(self, size: tuple[float, float]) -> tuple[float, float]:
        """Return the width and height of a turned area, not scaled."""
        return (size[1], size[0]) if self.swaps else size

    def scaled_size(self, size: tuple[float, float]) -> tuple[float, float]:
        """Return the width and height in pixels of an area, turned and scaled."""
        width, height = self.turned_size(size)
        return width * self.scale[0], height * self.scale[1]

    def share(self, x: float, y: float) -> tuple[float, float]:
        """Turn a point given as shares of width and height."""
        if self.swaps:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = 1 - x
        if self.orientation in (3, 4, 7, 8):
            y = 1 - y
        return x, y

    def point(self, x: float, y: float, within: tuple[float, float] | None = None) -> tuple[float, float]:
        """Turn and scale a point in pixels. within: the area's size, if it is not the image's."""
        width, height = within or self.before
        x, y = self.share(x / width, y / height)
        new_width, new_height = self.scaled_size((width, height))
        return x * new_width, y * new_height

    def box_share(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Turn a rectangle (left, top, width, height) given as shares."""
        x, y = self.share(left + width / 2, top + height / 2)
        width, height = self.turned_size((width, height))
        return x - width / 2, y - height / 2, width, height

    def box(
        self, area: tuple[float, float, float, float], within: tuple[float, float] | None = None
    ) -> tuple[float, float, float, float]:
        """Turn and scale a rectangle (left, top, width, height) in pixels. within: as in `point`."""
        left, top, width, height = area
        x, y = self.point(left + width / 2, top + height / 2, within)
        width, height = self.scaled_size((width, height))
        return x - width / 2, y - height / 2, width, height
