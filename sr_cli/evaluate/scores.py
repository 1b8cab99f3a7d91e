"""Names of the metrics, and the scores of one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sr_cli.evaluate.learned import LearnedMetrics
from sr_cli.evaluate.protocols import Protocol
from sr_cli.inference import AnyPixels
from sr_cli.metrics.colour import to_bytes


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    title: str  #: Column heading.
    digits: int  #: Decimals in tables.
    more_is_better: bool  #: Direction of quality.
    unit: str = ""  #: Empty for a plain number.

    @property
    def heading(self) -> str:
        """Title with the unit where there is one."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


METRICS: Mapping[str, Metric] = {
    "psnr_y": Metric("PSNR Y", 2, True, "dB"),
    "ssim_y": Metric("SSIM Y", 4, True),
    "psnr_rgb": Metric("PSNR RGB", 2, True, "dB"),
    "ssim_rgb": Metric("SSIM RGB", 4, True),
    "rmse": Metric("RMSE", 2, False),
    "niqe": Metric("NIQE", 3, False),
    "nrqm": Metric("NRQM", 3, True),
    "pi": Metric("PI", 3, False),
    "features": Metric("Features", 3, False),
    "lpips": Metric("LPIPS", 3, False),
    "dists": Metric("DISTS", 3, False),
}
"""All metrics by the name that `--metrics` and the JSON use."""


def score(
    output: AnyPixels, hr: NDArray[np.uint8], protocol: Protocol, wanted: Sequence[str], learned: LearnedMetrics
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Score one output (4H, 4W, 3), uint8 or float32 in 0..1, against its HR of the same size.

    Returns the value of each wanted metric, None if it is not available, and for each None the reason.
    """
    rounded = to_bytes(output)
    measures = dict(protocol.measures(output, hr))
    measures |= {name: partial(measure, rounded, hr) for name, measure in learned.measures.items()}
    reasons = {**learned.reasons, **protocol.left_out}
    values: dict[str, float | None] = {}
    why: dict[str, str] = {}
    for name in wanted:
        values[name] = None
        if name not in measures:
            why[name] = reasons.get(name, "not available")
            continue
        try:
            value = measures[name]()
        except ValueError as error:
            why[name] = str(error)
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            why[name] = "infinite: output and HR are equal" if value > 0 else "not a number"
    return values, why
