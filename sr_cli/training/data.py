"""Training patches: photographs decoded once into memory-mapped files, patches drawn by step number.

A patch depends on nothing but (seed, step, position in the batch), so a resumed run, or one spread over
several processes, sees the same patches as one that ran through.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.datasets import SCALE, crop_to_scale, read_rgb, reduce_image
from sr_cli.errors import InputError

_REDRAWS = 4


@dataclass(frozen=True)
class CachedImage:
    """One photograph, memory-mapped: `hr` (H, W, 3) and `lr` (H/4, W/4, 3), uint8."""

    name: str
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]


def _save_array(path: Path, array: NDArray[np.uint8]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)


def cache_image(path: Path, cache: Path) -> CachedImage:
    """The memory-mapped form of an image file, made at first use, keyed by the file's content."""
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    hr_path, lr_path = cache / f"{key}.hr.npy", cache / f"{key}.lr.npy"
    if not (hr_path.exists() and lr_path.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        rgb = crop_to_scale(read_rgb(path))
        _save_array(lr_path, reduce_image(rgb))
        _save_array(hr_path, rgb)
    return CachedImage(path.name, np.load(hr_path, mmap_mode="r"), np.load(lr_path, mmap_mode="r"))


def load_images(paths: Sequence[Path], cache: Path, patch: int, report: Callable[[str], None]) -> list[CachedImage]:
    """All images that can be read and hold a patch. What is left out is reported, one line each.

    Raises InputError when nothing is left.
    """
    images = []
    for path in paths:
        try:
            image = cache_image(path, cache)
        except (OSError, ValueError, SyntaxError) as error:
            report(f"skipped {path}: {error}")
            continue
        if min(image.hr.shape[:2]) < patch:
            report(f"skipped {path}: smaller than a patch of {patch} pixels")
            continue
        images.append(image)
    if not images:
        raise InputError(f"no usable training image among {len(paths)} files")
    return images


class PatchDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Batches by step number: (LR, HR) as uint8 (batch, 3, patch/4, patch/4) and (batch, 3, patch, patch).

    `rank` and `world` select this process's share of each batch.
    """

    def __init__(
        self,
        images: Sequence[CachedImage],
        seed: int,
        batch: int,
        patch: int,
        min_detail: float = 0.0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert batch % world == 0 and patch % SCALE == 0
        self.images = images
        self.seed = seed
        self.positions = range(rank, batch, world)
        self.side = patch // SCALE
        self.min_detail = min_detail

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        pairs = [self._draw(np.random.default_rng([self.seed, step, i])) for i in self.positions]
        return (
            torch.from_numpy(np.stack([lr for lr, _ in pairs])),
            torch.from_numpy(np.stack([hr for _, hr in pairs])),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        for _ in range(_REDRAWS + 1):
            image = self.images[int(rng.integers(len(self.images)))]
            top = rng.integers(image.lr.shape[0] - self.side + 1)
            left = rng.integers(image.lr.shape[1] - self.side + 1)
            lr = image.lr[top : top + self.side, left : left + self.side]
            if self.min_detail == 0.0 or lr.mean(axis=2).std() >= self.min_detail:
                break
        hr = image.hr[
            SCALE * top : SCALE * (top + self.side),
            SCALE * left : SCALE * (left + self.side),
        ]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        return _augment(lr, turns, flip), _augment(hr, turns, flip)


def _augment(patch: NDArray[np.uint8], turns: int, flip: bool) -> NDArray[np.uint8]:
    """(H, W, 3) to (3, H, W), turned by 90 degrees `turns` times and mirrored."""
    turned = np.rot90(patch[:, ::-1] if flip else patch, turns)
    return np.ascontiguousarray(turned.transpose(2, 0, 1))
