"""The training loop: one loop for every stage."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class _Losses:
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
    parent: str | None = None,
) -> StageResult:
    """Trains `stage` up to `steps`, continuing from the run's checkpoint if there is one.

    `parent` is the sha256 of the weights that a new stage starts from. Raises DivergedError after too
    many steps without a finite loss, and OutputError when the disk is full; the last checkpoint stays.
    """
    state: dict[str, Any] = {"step": 0, "best": -math.inf, "bad_steps": 0, "seconds": 0.0, "parent_sha256": parent}
    first_process = parallel.rank() == 0
    if run.checkpoint(name).exists():
        tensors, known = checkpoint.load_state(run.checkpoint(name))
        stage.restore(tensors)
        state |= known
        if first_process:
            run.forget_after(name, state["step"])
    clock = _Clock(state["step"], state["seconds"], config.batch)
    losses = _Losses()
    batches = data.batches(material.patches, state["step"], steps, material.workers, stage.device)
    stopping = False
    while state["step"] < steps and not stopping:
        with clock.waiting():
            patches = data.Patches(*(_to_device(part, stage.device) for part in next(batches) if part is not None))
        losses.add(stage.step(state["step"], patches))
        state["step"] = done = state["step"] + 1

        stopping = parallel.agree(should_stop, done)
        validating = done % config.validate_every == 0 or done == steps
        logging = stopping or validating or done % LOG_EVERY == 0
        if not logging and not clock.report_due():
            continue
        means, bad = losses.take()
        state["bad_steps"] += bad
        state["seconds"] = clock.seconds()
        if state["bad_steps"] > config.max_bad_steps:
            raise DivergedError(
                f"{state['bad_steps']} of {done} steps had no finite loss or gradient: try a smaller --lr or "
                f"--precision fp32; the last checkpoint is {run.checkpoint(name)}"
            )
        if not first_process:
            continue
        event = clock.progress(name, done, steps, means, state["bad_steps"])
        if validating:
            event = _validate(event, stage, config, state, material.crops, run)
        if validating or stopping:
            checkpoint.save_state(run.checkpoint(name), stage.tensors(), state)
        if logging:
            run.log(event)
        report(event)
    return StageResult(name, state["step"], steps, state["best"], run.best(name), state["seconds"], state["bad_steps"])


def _validate(
    event: Progress,
    stage: Stage,
    config: TrainConfig,
    state: dict[str, Any],
    crops: Sequence[ValidationCrop],
    run: Run,
) -> Progress:
    """Measures the averaged weights, keeps them if they are the best, and adds both to `event`.

    A GAN stage's newest weights count as its best: PSNR falls by design there. Its snapshots are kept,
    to choose from by other measures and by looking.
    """
    outputs = validation.enlarge(stage.ema.model, crops)
    psnr = validation.mean_psnr_y(outputs, crops)
    if event.stage == "gan" or psnr > state["best"]:
        state["best"] = psnr
        run.save_weights(run.best(event.stage), event.stage, stage, config, state, psnr)
    samples = None
    if event.step % config.sample_every == 0 or event.step == event.steps:
        samples = run.samples(event.stage, event.step)
        validation.save_samples(samples, outputs, crops)
        if event.stage == "gan":
            run.save_weights(run.snapshot(event.stage, event.step), event.stage, stage, config, state, psnr)
    return dataclasses.replace(event, val_psnr_y=psnr, samples=samples)


class _Clock:
    """Where the time of a stage goes."""

    def __init__(self, first: int, seconds_before: float, batch: int) -> None:
        self.first = first
        self.seconds_before = seconds_before
        self.batch = batch
        self.started = self.reported = time.monotonic()
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data."""
        asked = time.monotonic()
        yield
        self.waited += time.monotonic() - asked

    def report_due(self) -> bool:
        return time.monotonic() - self.reported >= REPORT_SECONDS

    def seconds(self) -> float:
        """Of the stage, earlier processes included."""
        return self.seconds_before + time.monotonic() - self.started

    def progress(self, stage: str, step: int, steps: int, losses: dict[str, float], bad_steps: int) -> Progress:
        self.reported = time.monotonic()
        elapsed = max(self.reported - self.started, 1e-9)
        return Progress(
            stage=stage,
            step=step,
            steps=steps,
            losses=losses,
            images_per_second=self.batch * (step - self.first) / elapsed,
            waiting=self.waited / elapsed,
            seconds=self.seconds_before + elapsed,
            bad_steps=bad_steps,
        )


def _to_device(batch: Tensor, device: torch.device) -> Tensor:
    """uint8 0..255 to float 0..1 on the device, channels-last."""
    moved = batch.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    return moved.float().div_(255)
