"""A run's folder: configuration, log, checkpoints, samples, plot."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sr_cli import storage
from sr_cli.errors import OutputError, reason_of
from sr_cli.models import Generator
from sr_cli.training import checkpoint, events, plot
from sr_cli.training.config import TrainConfig, dump_toml, to_dict
from sr_cli.training.events import StageProgress
from sr_cli.training.state import TrainState


class Run:
    """The files of one run. They are readable at any moment: each is replaced whole, or appended to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = {}
        """Origin that every weights file of this run records: data, versions, git commit."""

    @cached_property
    def _board(self) -> Any:
        """A TensorBoard writer where the optional `tensorboard` package is installed, else None."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(self.folder / "tensorboard"))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing to this run meanwhile.

        Raises OutputError if one does, or if nothing can be written here.
        """
        with contextlib.ExitStack() as held:
            try:
                # Not within `checkpoint.writing`: a TimeoutError is an OSError.
                held.enter_context(storage.locked(self.folder / ".lock", timeout_s=0))
            except TimeoutError:
                raise OutputError(
                    f"another `srup train` is writing to {self.folder}; wait for it or choose another --out"
                ) from None
            except OSError as error:
                raise OutputError(f"cannot write {self.folder}: {reason_of(error)}") from error
            yield

    @property
    def config(self) -> Path:
        """The resolved configuration, TOML."""
        return self.folder / "config.toml"

    @property
    def sources(self) -> Path:
        """Where data and weights came from on this machine, JSON: what `--resume` need not be told again."""
        return self.folder / "sources.json"

    def checkpoint(self, stage: str) -> Path:
        """Return the path of all state of a stage, to continue from."""
        return self.folder / f"{stage}.last.safetensors"

    def best(self, stage: str) -> Path:
        """Return the path of the averaged generator weights to use."""
        return self.folder / f"{stage}.best.safetensors"

    def samples(self, stage: str, step: int) -> Path:
        """Return the path of the validation crops at a step."""
        return self.folder / "samples" / f"{stage}-{step:06d}.png"

    def snapshot(self, stage: str, step: int) -> Path:
        """Return the path of the averaged weights at a step of a stage whose best ones PSNR cannot tell."""
        return self.folder / "snapshots" / f"{stage}-{step:06d}.safetensors"

    def write_config(self, config: TrainConfig) -> None:
        storage.write_file(self.config, dump_toml(config).encode())

    def origin(self, stage: str, config: TrainConfig, state: TrainState, psnr: float) -> dict[str, Any]:
        """Give what is known of the origin of a stage's weights."""
        return {
            "stage": "photo" if stage == "pixel" and config.degrade == "photo" else stage,
            "step": state.step,
            "seconds": round(state.seconds, 1),
            "val_psnr_y": round(psnr, 4),
            "parent_sha256": state.parent_sha256,
            "config": to_dict(config),
            **self.about,
        }

    def save_weights(self, path: Path, model: Generator, origin: dict[str, Any]) -> None:
        """Write a generator as a plain state dict, with its configuration and origin as metadata."""
        info = {**origin, "generator": model.config.to_dict()}
        with checkpoint.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save_state(path, dict(model.state_dict()), info)

    @property
    def _log(self) -> storage.JsonLines:
        return storage.JsonLines(self.folder / "log.jsonl")

    def records(self) -> list[dict[str, Any]]:
        """Read the log's lines; one that a killed process left unfinished does not count. Raises OSError."""
        path = self._log.path
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [record for line in lines if (record := storage.parse_line(line)) is not None]

    def forget_after(self, stage: str, step: int) -> None:
        """Take out of the log what came after the checkpoint that a stage continues from."""
        kept = [r for r in self.records() if r.get("stage") != stage or r.get("step", 0) <= step]
        storage.write_file(self._log.path, "".join(json.dumps(r) + "\n" for r in kept).encode())

    def log(self, event: StageProgress) -> None:
        """Append one JSON line to `log.jsonl`; after a validation draws `curves.svg` anew."""
        plain = events.to_dict(event)
        del plain["event"]
        if event.samples:
            plain["samples"] = event.samples.relative_to(self.folder).as_posix()
        with checkpoint.writing(self._log.path):
            self._log.append(plain)
        if event.val_psnr_y is not None:
            storage.write_file(self.folder / "curves.svg", plot.svg(self.records()).encode())
        if self._board:
            scalars = {**event.losses, "val_psnr_y": event.val_psnr_y, "images_per_second": event.images_per_second}
            for name, value in scalars.items():
                if value is not None:
                    self._board.add_scalar(f"{event.stage}/{name}", value, event.step)
            self._board.flush()
