"""Batches for tests of workers: photos to enlarge, what came out, and a job that is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sr_cli.upscale.events import ImageResult


def noise_photos(folder: Path, count: int, digits: int = 3) -> Path:
    """Fill a new folder with `count` photos of noise, 16x12, named by their numbers; gives the folder."""
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:0{digits}}.png")
    return folder


def pictures(folder: Path) -> dict[str, bytes]:
    """Read the outputs, without what a killed process left unfinished, which the next run removes."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.png")}


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
