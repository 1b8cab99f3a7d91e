"""Training patches: photos decoded once into memory-mapped files, patches drawn by step number.

A patch depends on nothing but (seed, step, position in the batch), so a resumed run, or one spread over
several processes, sees the same patches as one that ran through.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sr_cli import storage
from sr_cli.datasets import SCALE, SUFFIXES, crop_to_scale, degradation, read_rgb, reduce_image
from sr_cli.errors import InputError, reason_of

_REDRAWS = 4
_MARGIN = 12
"""LR pixels that a degraded patch is drawn larger by, then cropped: filters reach over borders, and the
crop's offset of 2 to 9 puts JPEG's blocks of 8 anywhere."""


@dataclass(frozen=True)
class CachedImage:
    """One photo whose pixels are in memory-mapped files."""

    name: str  #: File name, for messages.
    hr_path: Path  #: (H, W, 3) uint8, .npy.
    lr_path: Path  #: The reduction, clean or degraded: (H/4, W/4, 3) uint8, .npy.
    taught_path: Path | None = None  #: Output of a teacher for `lr`, (H, W, 3) uint8, .npy; None without a teacher.

    @property
    def stem(self) -> str:
        """What the names of the files that belong to `lr` begin with: its content's key, its size, its damage."""
        return self.lr_path.name.removesuffix(".lr.npy")

    @cached_property
    def hr(self) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        pixels: NDArray[np.uint8] = np.load(self.hr_path, mmap_mode="r")
        return pixels

    @cached_property
    def lr(self) -> NDArray[np.uint8]:
        """(H/4, W/4, 3)."""
        pixels: NDArray[np.uint8] = np.load(self.lr_path, mmap_mode="r")
        return pixels

    @cached_property
    def taught(self) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        assert self.taught_path is not None
        pixels: NDArray[np.uint8] = np.load(self.taught_path, mmap_mode="r")
        return pixels

    def planes(self) -> list[NDArray[np.uint8]]:
        """Give LR, HR and, with a teacher, its picture."""
        return [self.lr, self.hr, *([self.taught] if self.taught_path else [])]

    def __reduce__(self) -> tuple[type[CachedImage], tuple[str, Path, Path, Path | None]]:
        """Pickle by paths: worker processes open the files themselves; an array would be copied to each of them."""
        return CachedImage, (self.name, self.hr_path, self.lr_path, self.taught_path)


def find_images(roots: Sequence[Path]) -> list[Path]:
    """Find all image files in folders, recursively, without hidden ones; sorted. Files stand for themselves.

    Raises InputError when a root is missing or nothing is found.
    """
    found: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise InputError(f"no such folder: {root}")
        for path in [root] if root.is_file() else root.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
                found.add(path)
    if not found:
        raise InputError(f"no images in {', '.join(map(str, roots))}")
    return sorted(found)


def hold_out(paths: Sequence[Path], most: int = 8) -> tuple[list[Path], list[Path]]:
    """Split files into (training, validation): one in twenty, at least one, evenly spread.

    Raises InputError when there is only one file.
    """
    if len(paths) < 2:
        raise InputError("one image is too few: one more is needed for validation, or name a folder with --val")
    count = max(1, min(most, len(paths) // 20))
    chosen = {(2 * i + 1) * len(paths) // (2 * count) for i in range(count)}
    return [p for i, p in enumerate(paths) if i not in chosen], [p for i, p in enumerate(paths) if i in chosen]


def save_array(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array so that it is there whole or not at all. Raises OutputError."""
    with storage.atomic_output(path, overwrite=True) as file:
        np.save(file, array)


def cache_image(path: Path, cache: Path, size: float = 1.0) -> CachedImage:
    """Give the memory-mapped form of an image file reduced to `size`, made at first use, keyed by the file's content.

    Raises InputError when it is not a readable image, OSError when the file cannot be read, OutputError
    when the cache cannot be written.
    """
    key = storage.sha256_of_file(path)[:32] + ("" if size == 1.0 else f"-{size:g}")
    hr_path, lr_path = cache / f"{key}.hr.npy", cache / f"{key}.lr.npy"
    if not (hr_path.exists() and lr_path.exists()):
        rgb = crop_to_scale(_reduced(read_rgb(path), size))
        lr = reduce_image(rgb)
        cache.mkdir(parents=True, exist_ok=True)
        save_array(lr_path, lr)
        save_array(hr_path, rgb)
    return CachedImage(path.name, hr_path, lr_path)


def degraded_images(images: Iterable[CachedImage], number: int, seed: int) -> Iterator[CachedImage]:
    """Give each image `number` times, each time with a reduction that is degraded in another way.

    A reduction is made once, when its turn comes. Raises OutputError when the cache cannot be written.
    """
    for image in images:
        for copy in range(number):
            path = image.lr_path.with_name(f"{image.stem}.photo-{seed}-{copy}.lr.npy")
            if not path.exists():
                rng = np.random.default_rng([seed, copy, *image.stem.encode()])
                save_array(path, degradation.cells(np.asarray(image.hr), rng))
            yield replace(image, lr_path=path)


def _reduced(rgb: NDArray[np.uint8], size: float) -> NDArray[np.uint8]:
    """Reduce (H, W, 3) to (size H, size W, 3) by the antialiased bicubic filter."""
    if size == 1.0:
        return rgb
    height, width = (max(1, round(size * side)) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def load_images(
    paths: Sequence[Path], cache: Path, patch: int, report: Callable[[str], None], sizes: Sequence[float] = (1.0,)
) -> tuple[list[CachedImage], int]:
    """Load all images that can be read and hold a patch, at each of `sizes`.

    Also gives the number of files skipped, each reported. Raises InputError when nothing is left.
    """
    images: list[CachedImage] = []
    skipped = 0
    for path in paths:
        try:
            found = [cache_image(path, cache, size) for size in sizes]
        except (InputError, OSError, ValueError) as error:
            report(f"skipped {error}" if isinstance(error, InputError) else f"skipped {path}: {reason_of(error)}")
            skipped += 1
            continue
        large = [image for image in found if min(image.hr.shape[:2]) >= patch]
        if not large:
            report(f"skipped {path}: smaller than a patch of {patch} pixels")
            skipped += 1
        images += large
    if not images:
        raise InputError(f"no usable image among {len(paths)} files of at least {patch} pixels a side")
    return images, skipped


@dataclass(frozen=True)
class Place:
    """Where a patch is in the data, and how it is turned."""

    image: int  #: Index of the image.
    top: int  #: First row, in LR pixels.
    left: int  #: First column, in LR pixels.
    turns: int  #: Quarter turns.
    flip: bool  #: Whether it is mirrored before turning.


class Patches(NamedTuple):
    """A batch of patches, channels first; uint8 as they are drawn, float in 0..1 as a stage takes them."""

    lr: Tensor  #: (batch, 3, patch/4, patch/4).
    hr: Tensor  #: (batch, 3, patch, patch): the photos themselves.
    taught: Tensor | None = None
    """(batch, 3, patch, patch): the teacher's enlargement of the reduction; None without a teacher."""


@dataclass(frozen=True)
class PatchDrawing:
    """How patches are drawn."""

    seed: int  #: Decides, with the step and the position in the batch, on every patch.
    batch: int  #: Patches of a step, over all processes.
    patch: int  #: Side of a patch in HR pixels.
    min_detail: float = 0.0  #: Patches whose luma deviates less (0..255) are drawn again, at most four times.
    degrade: str = "none"  #: `none` or `photo`.


class PatchDataset(torch.utils.data.Dataset[Patches]):
    """Batches of uint8 patches by step number.

    `rank` and `world` select this process's share of each batch.
    """

    def __init__(self, images: Sequence[CachedImage], drawing: PatchDrawing, rank: int = 0, world: int = 1) -> None:
        assert drawing.batch % world == 0 and drawing.patch % SCALE == 0
        self.images = images
        self.drawing = drawing
        self.positions = range(rank, drawing.batch, world)
        self.side = drawing.patch // SCALE

    def __getitem__(self, step: int) -> Patches:
        drawn = [self._draw(np.random.default_rng([self.drawing.seed, step, i])) for i in self.positions]
        return Patches(*(torch.from_numpy(np.stack(patches)) for patches in zip(*drawn, strict=True)))

    def place(self, rng: np.random.Generator) -> Place:
        """Draw the position of a patch; it takes the same numbers from `rng` for every way of cutting it out."""
        for _ in range(_REDRAWS + 1):
            index = int(rng.integers(len(self.images)))
            lr = self.images[index].lr
            top = int(rng.integers(lr.shape[0] - self.side + 1))
            left = int(rng.integers(lr.shape[1] - self.side + 1))
            detail = (
                lr[top : top + self.side, left : left + self.side].mean(axis=2).std()
                if self.drawing.min_detail
                else 0.0
            )
            if detail >= self.drawing.min_detail:
                break
        return Place(index, top, left, turns=int(rng.integers(4)), flip=bool(rng.integers(2)))

    def _draw(self, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        """Draw one patch: LR, HR and, with a teacher, what it makes of it."""
        place = self.place(rng)
        image, top, left, side = self.images[place.image], place.top, place.left, self.side
        large = slice(SCALE * top, SCALE * (top + side)), slice(SCALE * left, SCALE * (left + side))
        if self.drawing.degrade == "photo":
            lr = self._degraded(image.hr, top, left, rng)
        else:
            lr = image.lr[top : top + side, left : left + side]
        patches = [lr, image.hr[large]]
        if image.taught_path:
            patches.append(image.taught[large])
        return [_augment(patch, place) for patch in patches]

    def _degraded(self, hr: NDArray[np.uint8], top: int, left: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Degrade the patch (side, side, 3) at LR position (top, left) together with what surrounds it."""
        offsets = rng.integers(2, _MARGIN - 2, size=2)
        sides = [min(self.side + _MARGIN, n // SCALE) for n in hr.shape[:2]]
        starts = [
            int(np.clip(at - offset, 0, n // SCALE - side))
            for at, offset, n, side in zip((top, left), offsets, hr.shape, sides, strict=False)
        ]
        y, x = SCALE * starts[0], SCALE * starts[1]
        lr = degradation.photo(np.asarray(hr[y : y + SCALE * sides[0], x : x + SCALE * sides[1]]), rng)
        y, x = top - starts[0], left - starts[1]
        return lr[y : y + self.side, x : x + self.side]


def _augment(patch: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """Turn (H, W, 3) into (3, H, W), mirrored, then turned."""
    turned = np.rot90(patch[:, ::-1] if place.flip else patch, place.turns)
    return np.ascontiguousarray(turned.transpose(2, 0, 1))


class ResidentPatches:
    """The same batches as a `PatchDataset` without degradation, cut out of images on the device."""

    def __init__(self, dataset: PatchDataset, device: torch.device) -> None:
        assert dataset.drawing.degrade == "none"
        self.dataset = dataset
        self.images = [
            tuple(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(device) for pixels in image.planes())
            for image in dataset.images
        ]

    def __getitem__(self, step: int) -> Patches:
        seed, side = self.dataset.drawing.seed, self.dataset.side
        places = [self.dataset.place(np.random.default_rng([seed, step, i])) for i in self.dataset.positions]
        return Patches(
            *(
                torch.stack([self._cut(self.images[place.image][which], place, scale, side) for place in places])
                for which, scale in zip(range(len(self.images[0])), (1, SCALE, SCALE), strict=False)
            )
        )

    @staticmethod
    def _cut(pixels: Tensor, place: Place, scale: int, side: int) -> Tensor:
        top, left, side = scale * place.top, scale * place.left, scale * side
        patch = pixels[:, top : top + side, left : left + side]
        return torch.rot90(patch.flip(2) if place.flip else patch, place.turns, (1, 2))


def fits_on(device: torch.device, dataset: PatchDataset) -> bool:
    """Tell whether all images may be on a GPU: without degradation, in at most half of its free memory."""
    if device.type != "cuda" or dataset.drawing.degrade != "none":
        return False
    needed = sum(pixels.nbytes for image in dataset.images for pixels in image.planes())
    return needed <= torch.cuda.mem_get_info(device)[0] // 2


def _leave_signals_to_the_main_process(_worker: int) -> None:
    """Ignore what ends a run, in a worker: it often reaches all processes, but only the main one decides what to do.

    A worker that died of it would end the run before it is saved. It ends when the main process does, or wants it to.
    """
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)


def batches(dataset: PatchDataset, start: int, stop: int, workers: int, device: torch.device) -> Iterator[Patches]:
    """Yield the batches of steps `start` to `stop` - 1, cut out on a GPU if it holds all images.

    Else `workers` processes draw them ahead; with 0, this process does.
    """
    if fits_on(device, dataset):
        resident = ResidentPatches(dataset, device)
        return (resident[step] for step in range(start, stop))
    return iter(
        torch.utils.data.DataLoader(
            dataset,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_main_process,
        )
    )
