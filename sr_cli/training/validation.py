"""Validation inside training: the same crops of held-out photographs, measured and shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_cli import models
from sr_cli.datasets import SCALE
from sr_cli.training import degrade
from sr_cli.training.data import CachedImage

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class ValidationCrop:
    """One held-out picture: `lr` (H, W, 3) and `hr` (4H, 4W, 3), uint8."""

    name: str
    lr: Rgb
    hr: Rgb


def validation_crops(images: Sequence[CachedImage], side: int = 512, degradation: str = "none") -> list[ValidationCrop]:
    """The middle of each image, at most `side` high-resolution pixels a side; degraded as training is,
    but the same way each time."""
    crops = []
    for index, image in enumerate(images):
        height, width = (min(side, n) // SCALE for n in image.hr.shape[:2])
        top, left = (image.lr.shape[0] - height) // 2, (image.lr.shape[1] - width) // 2
        lr = np.array(image.lr[top : top + height, left : left + width])
        hr = np.array(image.hr[SCALE * top : SCALE * (top + height), SCALE * left : SCALE * (left + width)])
        if degradation == "photo":
            lr = degrade.photo(hr, np.random.default_rng(index))
        crops.append(ValidationCrop(image.name, lr, hr))
    return crops


_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)


@torch.inference_mode()
def enlarge(model: models.Generator, crops: Sequence[ValidationCrop]) -> list[Rgb]:
    """What the generator makes of each crop, (4H, 4W, 3), rounded to 8 bits."""
    device = next(model.parameters()).device
    folded = model.fold()
    outputs = []
    for crop in crops:
        lr = torch.tensor(crop.lr, device=device).permute(2, 0, 1)[None].float() / 255
        output = folded(lr)[0].mul(255).round().clamp(0, 255).to(torch.uint8)
        outputs.append(output.permute(1, 2, 0).cpu().numpy())
    return outputs


def psnr_y(output: Rgb, target: Rgb) -> float:
    """PSNR on luma (BT.601 studio range), in dB, four border pixels left out."""
    difference = ((output.astype(np.float64) - target) @ np.array(_LUMA))[SCALE:-SCALE, SCALE:-SCALE]
    return 10 * math.log10(255**2 / max(float(np.square(difference).mean()), 1e-10))


def mean_psnr_y(outputs: Sequence[Rgb], crops: Sequence[ValidationCrop]) -> float:
    """Mean of `psnr_y` over the crops."""
    return sum(psnr_y(output, crop.hr) for output, crop in zip(outputs, crops, strict=True)) / len(crops)


def save_samples(path: Path, outputs: Sequence[Rgb], crops: Sequence[ValidationCrop], most: int = 4) -> None:
    """A picture with a row per crop: input enlarged by bicubic, output, original."""
    rows = []
    for output, crop in list(zip(outputs, crops, strict=True))[:most]:
        height, width = crop.hr.shape[:2]
        bicubic = Image.fromarray(crop.lr).resize((width, height), Image.Resampling.BICUBIC)
        rows.append(np.concatenate([np.asarray(bicubic), output, crop.hr], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)).save(path)
