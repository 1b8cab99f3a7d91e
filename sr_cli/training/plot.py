"""A picture of a run: losses and validation PSNR over the steps, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 260, 70, 150, 30, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Okabe and Ito's, told apart by colour-blind people as well."""

Curve = tuple[str, list[tuple[float, float]]]
_NOT_LOSSES = {"stage", "step", "steps", "images_per_second", "waiting", "seconds", "bad_steps", "val_psnr_y"}


def svg(records: Sequence[dict[str, Any]]) -> str:
    """The lines of a run's log as one SVG document: a panel of losses and one of PSNR for each stage."""
    panels: list[str] = []
    for stage in dict.fromkeys(record["stage"] for record in records):
        rows = [record for record in records if record["stage"] == stage]
        names = sorted({key for row in rows for key, value in row.items() if _is_loss(key, value)})
        curves = [(name, _points(rows, name)) for name in names]
        for title, chosen, logarithmic in (
            (f"{stage}: losses", curves, True),
            (f"{stage}: validation PSNR-Y, dB", [("EMA weights", _points(rows, "val_psnr_y"))], False),
        ):
            if any(points for _, points in chosen):
                panels.append(_panel(title, chosen, logarithmic, len(panels) * HEIGHT))
    height = max(1, len(panels)) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _is_loss(key: str, value: Any) -> bool:
    return key not in _NOT_LOSSES and isinstance(value, int | float)


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])]


def _panel(title: str, curves: Sequence[Curve], logarithmic: bool, top: int) -> str:
    everything = [point for _, points in curves for point in points if not logarithmic or point[1] > 0]
    if not everything:
        return ""
    right = max(x for x, _ in everything)

    def level(value: float) -> float:
        return math.log10(value) if logarithmic else value

    low, high = min(level(y) for _, y in everything), max(level(y) for _, y in everything)
    margin = 0.05 * (high - low) or 0.1
    low, high = low - margin, high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / right
        return across, top + HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="{top + 18}" font-weight="bold">{escape(title)}</text>']
    for i in range(5):
        value = low + (high - low) * i / 4
        _, y = place(0, value)
        x, _ = place(right * i / 4, low)
        number = 10**value if logarithmic else value
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{top + HEIGHT - 20}" text-anchor="middle">{right * i / 4:.0f}</text>')
    for index, (name, points) in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        places = [place(x, level(y)) for x, y in points if not logarithmic or y > 0]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        label = top + TOP + 12 + 18 * index
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{label}" fill="{colour}">{escape(name)}</text>')
    return "".join(parts)
