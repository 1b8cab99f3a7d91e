"""Teachers: what a strong network makes of the training photos, computed once and kept next to them.

A photo shows details that cannot be derived from its reduction; a teacher's output does not, and it is the same at
every step. What a teacher makes of a degraded reduction can be derived from that one. The enlargements are keyed by
the photo's content, its size, its damage and the teacher's weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from sr_cli.datasets import SCALE
from sr_cli.errors import UsageError
from sr_cli.inference import Upscaler
from sr_cli.training.data import CachedImage, save_array

Done = Callable[[int], None]  #: Called with the number of images that are taught.


def load_teacher(spec: str, device: str = "auto", offline: bool = False) -> Upscaler:
    """Open a network to learn from: anything that `-m` opens.

    Raises WeightsError where it cannot be had, UsageError where it does not enlarge by 4 or has no weights.
    """
    teacher = Upscaler(spec, device=device, offline=offline)
    if teacher.weights_sha256 is None:
        raise UsageError(f"--teacher {spec} is plain interpolation; name weights to learn from")
    if teacher.scale != SCALE:
        raise UsageError(f"--teacher {spec} enlarges by {teacher.scale}, training is for {SCALE}")
    return teacher


def taught_path(image: CachedImage, sha256: str) -> Path:
    """Name the file of what the teacher with these weights makes of an image."""
    return image.lr_path.with_name(f"{image.stem}.taught-{sha256[:16]}.npy")


def teach(
    images: Iterable[CachedImage], teacher: Upscaler, progress: Done, should_stop: Callable[[], bool] = lambda: False
) -> list[CachedImage] | None:
    """Enlarge the reduction of each image once, and give the images with their enlargements.

    What a run that was killed or stopped has made is kept. None if `should_stop` said so. Raises OutputError when
    the cache cannot be written.
    """
    assert teacher.weights_sha256 is not None
    taught: list[CachedImage] = []
    for image in images:
        progress(len(taught))
        path = taught_path(image, teacher.weights_sha256)
        if not path.exists():
            if should_stop():
                return None
            save_array(path, teacher.upscale(image.lr).pixels)
        taught.append(dataclasses.replace(image, taught_path=path))
    progress(len(taught))
    return taught
