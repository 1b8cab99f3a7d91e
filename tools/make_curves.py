"""Draw what training brought, against the hours of one core.

    python tools/make_curves.py docs/training-curves.json docs/images/training-curves.svg

The file lists the parts of each stage in their order, each from the best weights of the previous one. A part has its
machine, its hours of one core, and its curves, pairs of step and value, by measure: `psnr_y` in validation, `features`
and `niqe` on the validation crops as JPEG 60, 75 and 90. Where two runs shared a core, the hours are shares.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sr_cli.pages import charts

PANELS = {
    "psnr_y": "validation PSNR-Y, dB (bicubic 27.95)",
    "features": "feature distance on JPEG crops (bicubic 0.521, Real-ESRGAN x4plus 0.435)",
    "niqe": "NIQE on JPEG crops (bicubic 8.14, Real-ESRGAN x4plus 5.65)",
}
"""Titles of the panels, by measure."""


def curves(parts: Iterable[Mapping[str, Any]], measure: str) -> dict[str, list[tuple[float, float]]]:
    """Join the parts of each stage that have a measure: points of (hours so far, value) by the stage's name."""
    joined: dict[str, list[tuple[float, float]]] = {}
    ends: dict[str, float] = {}
    for part in parts:
        if measure not in part:
            continue
        stage, begin = part["stage"], ends.get(part["stage"], 0.0)
        last = part[measure][-1][0]
        joined.setdefault(stage, []).extend(
            (begin + part["core_hours"] * step / last, value) for step, value in part[measure]
        )
        ends[stage] = begin + part["core_hours"]
    return joined


def main() -> None:
    """Read the parts and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    parts = json.loads(options.parts.read_text("utf-8"))
    panels = [charts.CurvePanel(title, curves(parts, measure)) for measure, title in PANELS.items()]
    charts.curves("Quality against hours of one core", "hours of one core", panels).save(options.output)


if __name__ == "__main__":
    main()
