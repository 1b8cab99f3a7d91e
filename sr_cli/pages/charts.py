"""Charts: bars of several series, curves over steps, points of quality against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sr_cli.pages.drawing import FAINT, Dot, Drawing, Line, Rectangle, Shape, Text

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
"""Six of Okabe and Ito's colours, which colour-blind people tell apart as well, then brown and grey."""


def colour(index: int) -> str:
    """Return the colour of a chart's series."""
    return PALETTE[index % len(PALETTE)]


@dataclass(frozen=True)
class Axis:
    """A range of values and the ticks to show on it."""

    low: float  #: Value at its start.
    high: float  #: Value at its end.
    ticks: tuple[float, ...]  #: Round values, ascending.
    logarithmic: bool = False  #: Equal ratios are equally far apart.

    def place(self, value: float) -> float:
        """Return where a value is: 0 at `low`, 1 at `high`."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def labels(self) -> list[str]:
        """The ticks as text, different for each."""
        step = min((after - before for before, after in zip(self.ticks, self.ticks[1:], strict=False)), default=1.0)
        if self.logarithmic and step <= 0.5 * self.ticks[0]:
            return [f"{tick:.6g}" for tick in self.ticks]
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [f"{tick:.{decimals}f}" if decimals < 6 else f"{tick:.6g}" for tick in self.ticks]


def linear_axis(low: float, high: float, *, whole: bool = False) -> Axis:
    """Return an axis from one round tick to another around a range, also where it is a single value.

    With `whole`, ticks are whole numbers.
    """
    span = max(high - low, abs(high) * 0.02, 1e-3)
    low, high = min(low, (low + high - span) / 2), max(high, (low + high + span) / 2)
    step = _round_step(span)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(i * step for i in range(first, max(last, first + 1) + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def logarithmic_axis(low: float, high: float) -> Axis:
    """Return an axis over positive values with a little room at both ends and two to eight ticks."""
    low, high = low / 1.15, high * 1.15
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = _decade_ticks(low, high, factors)
        if len(found) <= 8:
            break
    if len(found) < 2:
        step = _round_step(high - low)
        found = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    while len(found) > 8:
        found = found[::2]
    return Axis(low, high, tuple(found), logarithmic=True)


def _decade_ticks(low: float, high: float, factors: Sequence[int]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _round_step(span: float) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that goes at most five times into a span."""
    power = 10 ** math.floor(math.log10(span))
    return next(power * factor for factor in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (power * factor) <= 5)


@dataclass(frozen=True)
class _Plot:
    """A rectangle with a horizontal and a vertical axis."""

    left: float
    top: float
    width: float
    height: float
    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        return self.left + self.width * self.across.place(value)

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - self.up.place(value))

    def frame(self, title: str = "") -> list[Shape]:
        """Return grid lines, numbers along both axes, and the horizontal axis's title."""
        shapes: list[Shape] = []
        bottom, right = self.top + self.height, self.left + self.width
        for tick, label in zip(self.up.ticks, self.up.labels, strict=True):
            at = self.y(tick)
            shapes += [Line([(self.left, at), (right, at)]), Text(self.left - 7, at + 4, label, 12, "end", FAINT)]
        for tick, label in zip(self.across.ticks, self.across.labels, strict=True):
            at = self.x(tick)
            shapes += [Line([(at, self.top), (at, bottom)]), Text(at, bottom + 17, label, 12, "middle", FAINT)]
        if title:
            shapes.append(Text(self.left + self.width / 2, bottom + 35, title, 12, "middle", FAINT))
        return shapes


# --- bars ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BarPanel:
    """Groups of bars, one bar of each series in each group."""

    title: str  #: Above the bars.
    groups: Sequence[str]  #: Labels along the horizontal axis.
    values: Sequence[Sequence[float | None]]  #: values[series][group], positive; None leaves a gap.


_BARS_WIDTH, _BARS_HEIGHT, _BARS_LEFT, _BARS_TOP, _BARS_GAP = 380, 220, 56, 76, 56


def bars(title: str, unit: str, series: Sequence[str], panels: Sequence[BarPanel]) -> Drawing:
    """Draw panels of bars, two side by side, over one logarithmic scale."""
    columns, rows = min(2, len(panels)), -(-len(panels) // 2)
    width = _BARS_LEFT + columns * (_BARS_WIDTH + _BARS_GAP)
    height = _BARS_TOP + rows * (_BARS_HEIGHT + _BARS_GAP)
    known = [value for panel in panels for row in panel.values for value in row if value]
    low = math.floor(math.log10(min(known, default=1.0)))
    high = max(math.ceil(math.log10(max(known, default=10.0))), low + 1)
    axis = Axis(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1)), logarithmic=True)
    shapes: list[Shape] = [Text(_BARS_LEFT, 26, title, 16)]
    x = float(_BARS_LEFT)
    for index, name in enumerate(series):
        shapes += [Rectangle(x, 38, 12, 12, colour(index)), Text(x + 17, 49, name)]
        x += 40 + 7.2 * len(name)
    for index, panel in enumerate(panels):
        left = _BARS_LEFT + (index % 2) * (_BARS_WIDTH + _BARS_GAP)
        top = _BARS_TOP + (index // 2) * (_BARS_HEIGHT + _BARS_GAP)
        shapes += [Text(left, top + 12, f"{panel.title}, {unit}", 13), *_bar_panel(left, top + 22, panel, axis)]
    return Drawing(title, width, height, shapes)


def _bar_panel(left: float, top: float, panel: BarPanel, axis: Axis) -> list[Shape]:
    slots = max(1, len(panel.groups))
    plot = _Plot(left, top, _BARS_WIDTH, _BARS_HEIGHT - 44, Axis(0, slots, ()), axis)
    floor = plot.top + plot.height
    shapes = plot.frame()
    width = 0.8 * _BARS_WIDTH / slots / max(1, len(panel.values))
    for group, name in enumerate(panel.groups):
        shapes.append(Text(plot.x(group + 0.5), floor + 16, name, 11, "middle"))
        for index, row in enumerate(panel.values):
            if (value := row[group]) is None:
                continue
            x, y = plot.x(group + 0.1) + index * width, plot.y(value)
            shapes.append(Rectangle(x, y, 0.9 * width, floor - y, colour(index)))
            if width >= 24:
                shapes.append(Text(x + 0.45 * width, y - 4, f"{value:.3g}", 10, "middle"))
    return shapes


# --- curves ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CurvePanel:
    """Curves over one horizontal axis."""

    title: str  #: Above the curves.
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """Points (x, y) of each by its name, in order; a curve may be a single point."""
    logarithmic: bool = False  #: Of the vertical axis; values that are not positive are then left out.


_CURVES_WIDTH, _CURVES_HEIGHT, _CURVES_LEFT, _CURVES_RIGHT, _CURVES_TOP, _CURVES_BOTTOM = 860, 280, 70, 170, 36, 52


def curves(title: str, across: str, panels: Sequence[CurvePanel]) -> Drawing:
    """Draw panels of curves below each other; `across` names their horizontal axis, which shows whole numbers.

    Panels without a point are left out.
    """
    shapes: list[Shape] = []
    count = 0
    for panel in panels:
        shown = {
            name: [point for point in points if point[1] > 0 or not panel.logarithmic]
            for name, points in panel.curves.items()
        }
        if any(shown.values()):
            shapes += _curve_panel(count * _CURVES_HEIGHT, panel, shown, across)
            count += 1
    return Drawing(title, _CURVES_WIDTH, max(1, count) * _CURVES_HEIGHT, shapes)


def _curve_panel(
    top: float, panel: CurvePanel, shown: Mapping[str, Sequence[tuple[float, float]]], across: str
) -> list[Shape]:
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    plot = _Plot(
        _CURVES_LEFT,
        top + _CURVES_TOP,
        _CURVES_WIDTH - _CURVES_LEFT - _CURVES_RIGHT,
        _CURVES_HEIGHT - _CURVES_TOP - _CURVES_BOTTOM,
        linear_axis(min(0, *xs), max(xs), whole=True),
        (logarithmic_axis if panel.logarithmic else linear_axis)(min(ys), max(ys)),
    )
    shapes = [Text(_CURVES_LEFT, top + 22, panel.title, 13, bold=True), *plot.frame(across)]
    for index, (name, points) in enumerate(shown.items()):
        places = [(plot.x(x), plot.y(y)) for x, y in points]
        if len(places) > 1:
            shapes.append(Line(places, colour(index), 1.5))
        else:  # a line through one point cannot be seen
            shapes += [Dot(x, y, 3.5, colour(index)) for x, y in places]
        beside = plot.left + plot.width + 12
        shapes.append(Text(beside, plot.top + 10 + 17 * index, name, 12, colour=colour(index)))
    return shapes


# --- points ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Something that has a cost and a value."""

    name: str  #: Written next to it, cut where it is long.
    cost: float  #: Positive; its place on the logarithmic horizontal axis.
    value: float  #: Its place on the vertical axis.
    label: str  #: What a browser shows under the pointer.
    colour: str  #: #rrggbb.


_POINTS_WIDTH, _POINTS_HEIGHT, _POINTS_LEFT, _POINTS_RIGHT, _POINTS_TOP, _POINTS_BOTTOM = 430, 290, 46, 112, 12, 46


def points(title: str, across: str, shown: Sequence[Point]) -> Drawing:
    """Draw at least one point; `across` names the horizontal axis."""
    costs, values = [point.cost for point in shown], [point.value for point in shown]
    plot = _Plot(
        _POINTS_LEFT,
        _POINTS_TOP,
        _POINTS_WIDTH - _POINTS_LEFT - _POINTS_RIGHT,
        _POINTS_HEIGHT - _POINTS_TOP - _POINTS_BOTTOM,
        logarithmic_axis(min(costs), max(costs)),
        linear_axis(min(values), max(values)),
    )
    shapes = plot.frame(across)
    heights = spread([plot.y(point.value) for point in shown], plot.top + 8, plot.top + plot.height)
    for point, height in zip(shown, heights, strict=True):
        x = plot.x(point.cost)
        shapes += [
            Dot(x, plot.y(point.value), 6, point.colour, point.label),
            Text(x + 11, height + 4, _cut(point.name)),
        ]
    return Drawing(title, _POINTS_WIDTH, _POINTS_HEIGHT, shapes)


def _cut(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def spread(positions: Sequence[float], low: float, high: float, gap: float = 15) -> list[float]:
    """Return positions moved apart by at least `gap`, none far above `high`, so that labels do not cover each other."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = list(positions)
    earlier = low - gap
    for index in order:
        placed[index] = earlier = max(positions[index], earlier + gap)
    later = high + gap
    for index in reversed(order):
        placed[index] = later = min(placed[index], later - gap)
    return placed
