"""The poster's Table 1, and what may be compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE = 'Eriksson and Löf, "Lightweight Super-Resolution", Table 1'
DATASET = "DIV2K-90"
SCORES: Mapping[str, Mapping[str, float]] = {
    "SRGAN": {"psnr_rgb": 25.40, "ssim_rgb": 0.96, "pi": 3.57, "rmse": 13.61},
    "ESRGAN": {"psnr_rgb": 24.52, "ssim_rgb": 0.95, "pi": 3.11, "rmse": 15.82},
    "MESRGAN": {"psnr_rgb": 24.39, "ssim_rgb": 0.95, "pi": 3.13, "rmse": 15.86},
}
DIGITS = 2
"""Decimals that the table gives."""
CAVEATS = (
    "Comparable: PSNR and SSIM, computed here by the poster's formulas on LR made its way (bicubic without "
    "antialiasing), and PI, from the same public definition; on DIV2K validation images only.",
    "Networks that were trained on antialiased reductions, as ours were, sharpen the aliasing of such LR, and can fall "
    "below bicubic on it.",
    "Not comparable: scores on any other images; the poster's 90 images are not named. Its networks ran with "
    "BatchNorm in training mode, and for its RMSE (which fits luma without a border as well as RGB) it names no "
    "convention. Its global SSIM is close to 1 for any output and is no windowed SSIM.",
)


def to_dict() -> dict[str, Any]:
    """For the JSON document."""
    return {
        "source": SOURCE,
        "dataset": DATASET,
        "results": [{"model": name, "metrics": dict(scores)} for name, scores in SCORES.items()],
        "caveats": list(CAVEATS),
    }
