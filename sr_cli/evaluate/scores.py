"""What is measured, and under which convention: the metrics' names, the two protocols, the scores of one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sr_cli import datasets
from sr_cli.evaluate.learned import LearnedMetrics
from sr_cli.inference import Pixels
from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.psnr import psnr, psnr_poster
from sr_cli.metrics.rmse import rmse
from sr_cli.metrics.ssim import ssim, ssim_global


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    title: str
    """Column heading, with the unit where there is one."""
    digits: int
    """Decimals in tables."""
    more_is_better: bool
    """Direction of quality."""


METRICS: Mapping[str, Metric] = {
    "psnr_y": Metric("PSNR Y, dB", 2, True),
    "ssim_y": Metric("SSIM Y", 4, True),
    "psnr_rgb": Metric("PSNR RGB, dB", 2, True),
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


@dataclass(frozen=True)
class Protocol:
    """A convention of measurement."""

    name: str
    """What `--protocol` calls it."""
    description: str
    """One line for tables, JSON and reports."""
    reduce: Callable[[NDArray[np.uint8]], Pixels]
    """Makes LR from HR."""
    uses_shipped_lr: bool
    """Whether LR files that a data set ships are used."""
    left_out: Mapping[str, str]
    """Metrics that are not part of it, with the reason."""


_NO_LUMA = "the poster protocol measures PSNR and SSIM on RGB alone"

PROTOCOLS: Mapping[str, Protocol] = {
    "standard": Protocol(
        "standard",
        "LR as shipped, else by Pillow's antialiased bicubic; output rounded to 8 bits; a border of 4 pixels left out "
        "of PSNR, SSIM and RMSE; Y is BT.601 studio range; SSIM 11x11 Gaussian; RMSE on RGB; NIQE and NRQM on the "
        "whole image as their authors do, PI as PIRM 2018 does",
        datasets.reduce_image,
        True,
        {},
    ),
    "poster": Protocol(
        "poster",
        "As the poster's code: LR by bicubic without antialiasing; PSNR on RGB without a border crop, at most 60 dB; "
        "SSIM from each channel's global statistics; RMSE on RGB; PI as PIRM 2018 does",
        datasets.reduce_aliased,
        False,
        {"psnr_y": _NO_LUMA, "ssim_y": _NO_LUMA},
    ),
}

BORDER = datasets.SCALE
"""Pixels at each side that the standard protocol leaves out."""


def to_bytes(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels as uint8 (0..255), float ones (0..1) rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _standard(output: Pixels, hr: NDArray[np.uint8]) -> dict[str, Callable[[], float]]:
    rounded = to_bytes(output)

    def inner(measure: Callable[[Pixels, Pixels], float], convert: Callable[[Pixels], Pixels] | None = None) -> float:
        pair = [crop_border(image, BORDER) for image in (rounded, hr)]
        return measure(*(convert(image) for image in pair)) if convert else measure(*pair)

    return {
        "psnr_y": lambda: inner(psnr, luma),
        "ssim_y": lambda: inner(ssim, luma),
        "psnr_rgb": lambda: inner(psnr),
        "ssim_rgb": lambda: inner(ssim),
        "rmse": lambda: inner(rmse),
    }


def _poster(output: Pixels, hr: NDArray[np.uint8]) -> dict[str, Callable[[], float]]:
    exact = output.astype(np.float64) * 255 if output.dtype != np.uint8 else output
    return {
        "psnr_rgb": lambda: psnr_poster(exact, hr),
        "ssim_rgb": lambda: ssim_global(exact, hr),
        "rmse": lambda: rmse(to_bytes(output), hr),
    }


def score(
    output: Pixels, hr: NDArray[np.uint8], protocol: Protocol, wanted: Sequence[str], learned: LearnedMetrics
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Scores of one output (4H, 4W, 3), uint8 or float32 in 0..1, against its HR of the same size.

    Returns the value of each wanted metric, None where it cannot be had, and for each None the reason.
    """
    measures = (_standard if protocol.name == "standard" else _poster)(output, hr)
    rounded = to_bytes(output)
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
