"""Validation inside training: the same crops of held-out photos, measured and shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import models, storage
from sr_cli.datasets import SCALE, degradation
from sr_cli.inference import Upscaler
from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.psnr import psnr
from sr_cli.training import checkpoint
from sr_cli.training.data import CachedImage
from sr_cli.weights import LoadedModel

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class ValidationCrop:
    """One held-out picture: `lr` (H, W, 3) and `hr` (4H, 4W, 3), uint8."""

    name: str
    lr: Rgb
    hr: Rgb


def validation_crops(images: Sequence[CachedImage], side: int = 512, degrade: str = "none") -> list[ValidationCrop]:
    """Cut out the middle of each image, at most `side` high-resolution pixels a side.

    They are degraded as training is, but the same way each time.
    """
    crops = []
    for index, image in enumerate(images):
        height, width = (min(side, n) // SCALE for n in image.hr.shape[:2])
        top, left = (image.lr.shape[0] - height) // 2, (image.lr.shape[1] - width) // 2
        lr = np.array(image.lr[top : top + height, left : left + width])
        hr = np.array(image.hr[SCALE * top : SCALE * (top + height), SCALE * left : SCALE * (left + width)])
        if degrade == "photo":
            lr = degradation.photo(hr, np.random.default_rng(index))
        crops.append(ValidationCrop(image.name, lr, hr))
    return crops


def enlarge(model: models.Generator, crops: Sequence[ValidationCrop]) -> list[Rgb]:
    """Enlarge each crop by the generator, to (4H, 4W, 3): by the engine, whole and in fp32."""
    loaded = LoadedModel("", None, model, None, "", Path(), None)
    upscaler = Upscaler(loaded, device=str(next(model.parameters()).device), precision="fp32", backend="eager", tile=0)
    return [upscaler.upscale(crop.lr).pixels for crop in crops]


def interpolate(crops: Sequence[ValidationCrop]) -> list[Rgb]:
    """Enlarge each crop by bicubic interpolation, (4H, 4W, 3)."""
    bicubic = Upscaler("bicubic")
    return [bicubic.upscale(crop.lr).pixels for crop in crops]


def mean_psnr_y(outputs: Sequence[Rgb], crops: Sequence[ValidationCrop]) -> float:
    """Compute the mean PSNR on luma, in dB, without four border pixels, as `srup eval` does."""
    scores = [
        psnr(crop_border(luma(output), SCALE), crop_border(luma(crop.hr), SCALE))
        for output, crop in zip(outputs, crops, strict=True)
    ]
    return sum(scores) / len(scores)


def save_samples(path: Path, outputs: Sequence[Rgb], crops: Sequence[ValidationCrop], most: int = 4) -> None:
    """Save a picture with a row per crop: input enlarged by bicubic, output, original."""
    shown = list(zip(interpolate(crops[:most]), outputs[:most], crops[:most], strict=True))
    rows = [np.concatenate([bicubic, output, crop.hr], axis=1) for bicubic, output, crop in shown]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(padded)).save(buffer, "png")
    with checkpoint.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_file(path, buffer.getvalue())
