"""Conventions of measurement: how LR is made, what a metric is computed on, and published results under each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_cli import datasets
from sr_cli.inference import AnyPixels
from sr_cli.metrics.colour import crop_border, luma, to_bytes
from sr_cli.metrics.psnr import psnr, psnr_damped, rmse
from sr_cli.metrics.ssim import ssim, ssim_global

Measures = Mapping[str, Callable[[], float]]
"""By a metric's name, what computes it; raises ValueError where it is not defined."""

BORDER = datasets.SCALE  #: Border in pixels that the standard protocol crops before measuring.


@dataclass(frozen=True)
class PublishedTable:
    """Results that others published."""

    title: str  #: Its name in tables.
    source: str  #: Where they were published.
    dataset: str  #: Images that they were measured on.
    scores: Mapping[str, Mapping[str, float]]  #: By model and metric.
    digits: int  #: Decimals that the table gives.
    caveats: Sequence[str]  #: Sentences on what may be compared with it.

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the JSON document."""
        return {
            "source": self.source,
            "dataset": self.dataset,
            "results": [{"model": name, "metrics": dict(scores)} for name, scores in self.scores.items()],
            "caveats": list(self.caveats),
        }


@dataclass(frozen=True)
class Protocol:
    """A convention of measurement."""

    name: str  #: Its name for `--protocol`.
    description: str  #: One line for tables, JSON and reports.
    reduce: Callable[[NDArray[np.uint8]], AnyPixels]  #: Makes LR from HR.
    measures: Callable[[AnyPixels, NDArray[np.uint8]], Measures]
    """The metrics that compare an output (4H, 4W, 3), uint8 or float32 in 0..1, with its HR of the same size."""
    fixed_input: bool = False
    """Whether LR is always made by `reduce`: files that a data set ships are not used, and nothing may change it."""
    left_out: Mapping[str, str] = field(default_factory=dict)  #: Metrics that are not part of it, with the reason.
    published: PublishedTable | None = None  #: Results measured under it, which `--against` shows.


def _standard(output: AnyPixels, hr: NDArray[np.uint8]) -> Measures:
    rounded = to_bytes(output)

    def inner() -> tuple[AnyPixels, AnyPixels]:
        return crop_border(rounded, BORDER), crop_border(hr, BORDER)

    def y() -> tuple[AnyPixels, AnyPixels]:
        mine, theirs = inner()
        return luma(mine), luma(theirs)

    return {
        "psnr_y": lambda: psnr(*y()),
        "ssim_y": lambda: ssim(*y()),
        "psnr_rgb": lambda: psnr(*inner()),
        "ssim_rgb": lambda: ssim(*inner()),
        "rmse": lambda: rmse(*inner()),
    }


def _poster(output: AnyPixels, hr: NDArray[np.uint8]) -> Measures:
    exact = output.astype(np.float64) * 255 if output.dtype != np.uint8 else output
    return {
        "psnr_rgb": lambda: psnr_damped(exact, hr),
        "ssim_rgb": lambda: ssim_global(exact, hr),
        "rmse": lambda: rmse(to_bytes(output), hr),
    }


STANDARD = Protocol(
    "standard",
    "inputs of the data set, else originals reduced by Pillow's antialiased bicubic; output rounded to 8 bits; PSNR, "
    "SSIM and RMSE without a border of 4 pixels; Y is BT.601 studio range; SSIM 11x11 Gaussian; RMSE on RGB; "
    "NIQE and NRQM on the whole image as their authors do, PI as PIRM 2018 does",
    datasets.reduce_image,
    _standard,
)

_NO_LUMA = "the poster protocol measures PSNR and SSIM on RGB alone"

_TABLE_1 = PublishedTable(
    "the poster's Table 1",
    'Eriksson and Löf, "Lightweight Super-Resolution", Table 1',
    "DIV2K-90",
    {
        "SRGAN": {"psnr_rgb": 25.40, "ssim_rgb": 0.96, "pi": 3.57, "rmse": 13.61},
        "ESRGAN": {"psnr_rgb": 24.52, "ssim_rgb": 0.95, "pi": 3.11, "rmse": 15.82},
        "MESRGAN": {"psnr_rgb": 24.39, "ssim_rgb": 0.95, "pi": 3.13, "rmse": 15.86},
    },
    2,
    (
        "Comparable: PSNR and SSIM, computed here by the poster's formulas on LR made its way (bicubic without "
        "antialiasing), and PI, from the same public definition; on DIV2K validation images only.",
        "Networks that were trained on antialiased reductions, as ours were, sharpen the aliasing of such LR, and can "
        "fall below bicubic on it.",
        "Not comparable: scores on any other images; the poster's 90 images are not named. Its networks ran with "
        "BatchNorm in training mode, and for its RMSE (which fits luma without a border as well as RGB) it names no "
        "convention. Its global SSIM is close to 1 for any output and is no windowed SSIM.",
    ),
)

POSTER = Protocol(
    "poster",
    "As the poster's code: LR by bicubic without antialiasing; PSNR on RGB without a border crop, at most 60 dB; "
    "SSIM from each channel's global statistics; RMSE on RGB; PI as PIRM 2018 does",
    datasets.reduce_aliased,
    _poster,
    fixed_input=True,
    left_out={"psnr_y": _NO_LUMA, "ssim_y": _NO_LUMA},
    published=_TABLE_1,
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (STANDARD, POSTER)}
"""By the name that `--protocol` takes; `--against` takes those that have published results."""
