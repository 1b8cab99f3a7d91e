"""Draw quality and speed of the three networks in one chart, from what is on record.

    python tools/make_chart.py BENCH.json OUTPUT.svg [--dataset Set14] [--metric psnr_y]

BENCH.json is what `srup bench --json` printed on a CPU; the scores are those of `weights_manifest.json`. The times are
for one input in plain PyTorch and fp32. It compares the pixel stages, which all three networks have.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sr_cli.bench.published import PUBLISHED_MS
from sr_cli.pages import charts
from sr_cli.weights import manifest

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Read both files and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dataset", default="Set14")
    parser.add_argument("--metric", default="psnr_y")
    options = parser.parse_args()
    models = manifest.read_file(ROOT / "weights_manifest.json", ROOT / "sr_cli" / "bundled").models
    times = {
        result["model"]: result["median_ms"]
        for result in json.loads(options.bench.read_text("utf-8"))["results"]
        if (result["precision"], result["backend"], result["batch"]) == ("fp32", "eager", 1)
    }
    points = [
        charts.Point(
            name,
            times[name],
            score := models[name].stages["pixel"].scores[options.dataset][options.metric],
            f"{name}: {times[name]:.0f} ms, {score:.2f}",
            charts.colour(index),
        )
        for index, name in enumerate(PUBLISHED_MS)
    ]
    title = f"{options.metric} on {options.dataset} against the time of a 128x128 input"
    charts.points(title, "milliseconds", points).save(options.output)


if __name__ == "__main__":
    main()
