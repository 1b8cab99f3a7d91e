"""A picture of a run: losses and validation PSNR over the steps, as SVG."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sr_cli.pages import charts
from sr_cli.training.events import StageProgress

_NOT_LOSSES = {field.name for field in dataclasses.fields(StageProgress)}


def svg(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of a run's log as one SVG document: a panel of losses and one of PSNR for each stage."""
    panels = []
    for stage in dict.fromkeys(record["stage"] for record in records):
        rows = [record for record in records if record["stage"] == stage]
        numbers = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
        names = sorted(numbers - _NOT_LOSSES)
        losses = {name: _points(rows, name) for name in names}
        quality = {"EMA weights": _points(rows, "val_psnr_y"), "bicubic": _points(rows, "bicubic_psnr_y")}
        quality = {name: points for name, points in quality.items() if points}
        panels.append(charts.CurvePanel(f"{stage}: losses", losses, logarithmic=True))
        panels.append(charts.CurvePanel(f"{stage}: validation PSNR-Y, dB", quality))
    return str(charts.curves("Losses and validation PSNR", "step", panels).svg())


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
