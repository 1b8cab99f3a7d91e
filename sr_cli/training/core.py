"""The training loop: one loop for every stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sr_cli.errors import DivergedError
from sr_cli.training import checkpoint, data, parallel, validation
from sr_cli.training.config import TrainConfig
from sr_cli.training.events import Progress, Report, StageResult
from sr_cli.training.run import Run
from sr_cli.training.stages import Stage
from sr_cli.training.validation import ValidationCrop

LOG_EVERY = 50
"""Steps between lines of the log."""
REPORT_SECONDS = 1.0
"""Time between two reports to the caller."""


class Losses:
    """Sums of what steps returned, kept on the device: reading them waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.double() if value.device.type != "mps" else value.float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1

    def take(self) -> tuple[dict[str, float], int]:
        """The means of the losses and the number of bad steps since the last call."""
        sums = {name: value.item() for name, value in self.sums.items()}
        bad = int(sums.pop("bad", 0.0))
        means = {name: value / self.steps for name, value in sums.items()}
        self.sums, self.steps = {}, 0
        return means, bad


@dataclass(frozen=True)
class Material:
    """What a stage trains and validates on."""

    patches: data.PatchDataset
    """Batches by step number: this process's share."""
    crops: Sequence[ValidationCrop]
    """Held-out pictures."""
    workers: int = 1
    """Processes that draw patches ahead."""


def train(
    name: str,
    stage: Stage,
    config: TrainConfig,
    steps: int,
    material: Material,
    run: Run,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    best_is_last: bool = False,
) -> StageResult:
    """Trains `stage` up to `steps`, continuing from the run's checkpoint if there is one.

    `best_is_last` says that the newest weights count as the best, instead of those with the highest
    validation PSNR. Raises DivergedError after too many steps without a finite loss, and leaves the
    last good checkpoint.
    """
    state: dict[str, Any] = {"step": 0, "best": -math.inf, "bad_steps": 0, "seconds": 0.0}
    last = run.checkpoint(name)
    if last.exists():
        tensors, known = checkpoint.load_state(last)
        stage.restore(tensors)
        state |= known
    first, seconds_before, losses = state["step"], state["seconds"], Losses()
    batches = data.batches(material.patches, first, steps, material.workers, stage.device.type == "cuda")
    started = reported = time.monotonic()
    waited = 0.0

    while state["step"] < steps:
        step = state["step"]
        asked = time.monotonic()
        lr, hr = (_to_device(batch, stage.device) for batch in next(batches))
        waited += time.monotonic() - asked
        losses.add(stage.step(step, lr, hr))
        state["step"] = done = step + 1

        stopping = parallel.agree(should_stop, done)
        validating = done % config.validate_every == 0 or done == steps
        logging = stopping or validating or done % LOG_EVERY == 0
        if not logging and time.monotonic() - reported < REPORT_SECONDS:
            continue
        means, bad = losses.take()
        state["bad_steps"] += bad
        if state["bad_steps"] > config.max_bad_steps:
            raise DivergedError(
                f"{state['bad_steps']} of {done} steps had no finite loss or gradient; lower the learning rate "
                f"(--lr) or use --precision fp32; the last checkpoint is {last}"
            )
        reported = time.monotonic()
        elapsed = reported - started
        state["seconds"] = seconds_before + elapsed
        psnr = samples = None
        if validating and parallel.rank() == 0:
            outputs = validation.enlarge(stage.ema.model, material.crops)
            psnr = validation.mean_psnr_y(outputs, material.crops)
            if done % config.sample_every == 0 or done == steps:
                samples = run.samples(name, done)
                validation.save_samples(samples, outputs, material.crops)
            if best_is_last or psnr > state["best"]:
                state["best"] = psnr
                run.save_best(name, stage, config, state)
        if (validating or stopping) and parallel.rank() == 0:
            checkpoint.save_state(last, stage.tensors(), state)
        event = Progress(
            stage=name,
            step=done,
            steps=steps,
            losses=means,
            images_per_second=config.batch * (done - first) / elapsed,
            waiting=waited / elapsed,
            seconds=state["seconds"],
            bad_steps=state["bad_steps"],
            val_psnr_y=psnr,
            samples=samples,
        )
        if parallel.rank() == 0:
            if logging:
                run.log(event)
            report(event)
        if stopping:
            break
    return StageResult(name, state["step"], steps, state["best"], run.best(name), state["seconds"], state["bad_steps"])


def _to_device(batch: Tensor, device: torch.device) -> Tensor:
    """uint8 0..255 to float 0..1 on the device, channels-last."""
    moved = batch.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    return moved.float().div_(255)
