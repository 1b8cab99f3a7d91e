"""Draw what training brought: validation PSNR-Y of the pixel stages against the hours of one core.

    python tools/make_curves.py docs/training-curves.json docs/images/training-curves.svg

The file lists the parts of each stage in their order, each from the best weights of the previous one. A part has its
machine, its hours of one core, and its curve: pairs of step and dB. Where two runs shared a core, the hours are shares.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sr_cli.pages import charts

BICUBIC = 27.95  #: Validation PSNR-Y of bicubic interpolation, dB.


def curves(parts: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Join the parts of each stage: points of (hours so far, dB) by the stage's name."""
    joined: dict[str, list[tuple[float, float]]] = {}
    ends: dict[str, float] = {}
    for part in parts:
        stage, begin = part["stage"], ends.get(part["stage"], 0.0)
        last = part["curve"][-1][0]
        joined.setdefault(stage, []).extend(
            (begin + part["core_hours"] * step / last, decibels) for step, decibels in part["curve"]
        )
        ends[stage] = begin + part["core_hours"]
    return joined


def main() -> None:
    """Read the parts and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    found = curves(json.loads(options.parts.read_text("utf-8")))
    panel = charts.CurvePanel(f"validation PSNR-Y, dB (bicubic {BICUBIC})", found)
    charts.curves("Validation PSNR-Y against hours of one core", "hours of one core", [panel]).save(options.output)


if __name__ == "__main__":
    main()
