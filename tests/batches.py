"""Batches for tests of workers: photos to enlarge, what came out, and a job that is interrupted."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_cli import inference
from sr_cli.upscale import worker
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.inputs import Task


def noise_photos(folder: Path, count: int, digits: int = 3) -> Path:
    """Fill a new folder with `count` photos of noise, 16x12, named by their numbers; gives the folder."""
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:0{digits}}.png")
    return folder


def photos_in_two_folders(folder: Path, count: int) -> Path:
    """Fill `a` and `b` of a new folder with `count` photos of noise, 8x6, by turns; gives the folder."""
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (6, 8, 3), np.uint8)).save(path)
    return folder


def end_at_photo(number: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise `error` where the network would enlarge its n-th photo."""
    really, calls = inference.Upscaler.upscale, itertools.count(1)

    def upscale(*arguments: Any) -> Any:
        if next(calls) == number:
            raise error
        return really(*arguments)

    monkeypatch.setattr(inference.Upscaler, "upscale", upscale)


def die_of_deadly_photos() -> None:
    """Let this process kill itself when it gets a photo named `deadly`, or the first time one named `once`."""
    really = worker.check_source

    def check(task: Task) -> None:
        mark = Path(f"{task.source}.killed")
        if "deadly" in str(task.source) or ("once" in str(task.source) and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        really(task)

    worker.check_source = check


def pictures(folder: Path) -> dict[str, bytes]:
    """Read the outputs, without what a killed process left unfinished, which the next run removes."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.png")}


def pictures_below(folder: Path) -> dict[str, bytes]:
    """Read the outputs in a folder and in those inside it, by their names relative to it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def statuses(results: list[ImageResult]) -> list[str]:
    """List what became of each input."""
    return [result.status for result in results]


def interrupt(
    command: Sequence[str], folder: Path, environment: dict[str, str], sent: signal.Signals
) -> tuple[int, str, str]:
    """Run a batch with --json-lines and send it a signal when the first photo is done.

    Its children get the signal as well, as from a terminal. Gives the exit code, the rest of its lines and its errors.
    """
    process = subprocess.Popen(
        [*command, "--json-lines"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "done":
        pass
    os.killpg(process.pid, sent)
    lines, errors = process.communicate(timeout=120)
    return process.returncode, lines, errors
