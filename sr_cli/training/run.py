"""A run's folder: configuration, log, checkpoints, samples, plot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_cli.errors import InputError
from sr_cli.training import checkpoint
from sr_cli.training.config import TrainConfig, dump_toml, to_dict
from sr_cli.training.events import Progress
from sr_cli.training.stages import Stage


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class Run:
    """The files of one run. All of them are readable at any moment: they are replaced whole, or appended to."""

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = dict(about or {})
        """What every weights file of this run says of its origin: parent, data, git commit."""

    @property
    def config(self) -> Path:
        """The resolved configuration, TOML."""
        return self.folder / "config.toml"

    def checkpoint(self, stage: str) -> Path:
        """All state of a stage, to continue from."""
        return self.folder / f"{stage}.last.safetensors"

    def best(self, stage: str) -> Path:
        """The averaged generator weights to use."""
        return self.folder / f"{stage}.best.safetensors"

    def samples(self, stage: str, step: int) -> Path:
        """Validation crops at a step."""
        return self.folder / "samples" / f"{stage}-{step:06d}.png"

    def write_config(self, config: TrainConfig) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(self.config, dump_toml(to_dict(config)).encode())

    def save_best(self, stage: str, weights: Stage, config: TrainConfig, state: Mapping[str, Any]) -> None:
        model = weights.ema.model
        info = {
            "stage": "photo" if stage == "pixel" and config.degrade == "photo" else stage,
            "generator": model.config.to_dict(),
            "step": state["step"],
            "seconds": round(state["seconds"], 1),
            "val_psnr_y": round(state["best"], 4),
            "config": to_dict(config),
            **self.about,
        }
        checkpoint.save_state(self.best(stage), dict(model.state_dict()), info)

    def log(self, event: Progress) -> None:
        """Appends one JSON line to `log.jsonl`."""
        plain = event.to_dict()
        del plain["event"]
        if event.samples:
            plain["samples"] = event.samples.relative_to(self.folder).as_posix()
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
