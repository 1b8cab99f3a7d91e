"""The training loop: one loop for every stage."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_cli.errors import DivergedError
from sr_cli.training import checkpoint, data, parallel, validation
from sr_cli.training.config import TrainConfig
from sr_cli.training.events import OnEvent, StageProgress, StageResult
from sr_cli.training.run import Run
from sr_cli.training.stages import Stage
from sr_cli.training.state import BAD_STEPS_WINDOW, TrainState
from sr_cli.training.validation import ValidationCrop

LOG_EVERY = 50  #: Steps between lines of the log.
REPORT_SECONDS = 1.0  #: Time between two events for the caller.


@dataclass(frozen=True)
class TrainingData:
    """Training and validation data of a run."""

    patches: data.PatchDataset  #: Batches by step number: this process's share.
    crops: Sequence[ValidationCrop]  #: Held-out pictures.
    workers: int = 1  #: Processes that draw patches ahead.


class Trainer:
    """Trains stages of one run, each from its checkpoint if there is one."""

    def __init__(self, config: TrainConfig, data: TrainingData, run: Run, on_event: OnEvent) -> None:
        self.config = config
        self.data = data
        self.run = run
        self.on_event = on_event
        self.bicubic_psnr_y = validation.mean_psnr_y(validation.interpolate(data.crops), data.crops)

    def train(
        self, stage: Stage, should_stop: Callable[[], bool] = lambda: False, parent: str | None = None
    ) -> StageResult:
        """Train `stage` to its last step, or until `should_stop` says so.

        `parent` is the sha256 of the weights that a new stage starts from. Raises DivergedError after too
        many steps without a finite loss, and OutputError when the disk is full; the last checkpoint stays.
        """
        state = self._resume(stage) or TrainState(parent_sha256=parent)
        clock = _Clock(state, self.config.batch)
        losses = _LossSums()
        batches = data.batches(self.data.patches, state.step, stage.steps, self.data.workers, stage.device)
        stopping = False
        while state.step < stage.steps and not stopping:
            with clock.waiting():
                patches = data.Patches(*(_to_device(part, stage.device) for part in next(batches) if part is not None))
            losses.add(stage.step(state.step, patches))
            state.step += 1

            stopping = parallel.agree(should_stop, state.step)
            validating = state.step % self.config.validate_every == 0 or state.step == stage.steps
            logging = stopping or validating or state.step % LOG_EVERY == 0
            if not logging and not clock.report_due():
                continue
            event = clock.progress(stage, losses, state)
            self._check_finite(stage, state)
            if parallel.rank() != 0:
                continue
            if validating:
                event = self._validate(event, stage, state)
            if validating or stopping:
                checkpoint.save_state(self.run.checkpoint(stage.name), stage.tensors(), state.to_dict())
            if logging:
                self.run.log(event)
            self.on_event(event)
        best = self.run.best(stage.name)
        return StageResult(
            stage=stage.name,
            step=state.step,
            steps=stage.steps,
            val_psnr_y=state.best_psnr_y,
            weights=best if best.exists() else None,
            seconds=state.seconds,
            bad_steps=state.bad_steps,
        )

    def _resume(self, stage: Stage) -> TrainState | None:
        path = self.run.checkpoint(stage.name)
        if not path.exists():
            return None
        tensors, known = checkpoint.load_state(path)
        stage.restore(tensors)
        state = TrainState.from_dict(known)
        if parallel.rank() == 0:
            self.run.forget_after(stage.name, state.step)
        return state

    def _check_finite(self, stage: Stage, state: TrainState) -> None:
        recent = state.bad_in_window
        if recent > self.config.max_bad_steps:
            raise DivergedError(
                f"{recent} of the last {min(state.step, BAD_STEPS_WINDOW)} steps had no finite loss or gradient: try a "
                f"smaller --lr or --precision fp32; the last checkpoint is {self.run.checkpoint(stage.name)}"
            )

    def _validate(self, event: StageProgress, stage: Stage, state: TrainState) -> StageProgress:
        """Measure the averaged weights, keep them if they are the best, and add both to `event`.

        Where PSNR falls by design the newest weights count as the best, and snapshots are kept, to choose from
        by other measures and by looking.
        """
        outputs = validation.enlarge(stage.ema.model, self.data.crops)
        psnr = validation.mean_psnr_y(outputs, self.data.crops)
        origin = self.run.origin(stage.name, self.config, state, psnr)
        if not stage.judged_by_psnr or state.best_psnr_y is None or psnr > state.best_psnr_y:
            state.best_psnr_y = psnr
            self.run.save_weights(self.run.best(stage.name), stage.ema.model, origin)
        samples = None
        if event.step % self.config.sample_every == 0 or event.step == event.steps:
            samples = self.run.samples(stage.name, event.step)
            validation.save_samples(samples, outputs, self.data.crops)
            if not stage.judged_by_psnr:
                self.run.save_weights(self.run.snapshot(stage.name, event.step), stage.ema.model, origin)
        return dataclasses.replace(event, val_psnr_y=psnr, bicubic_psnr_y=self.bicubic_psnr_y, samples=samples)


class _LossSums:
    """Sums of what steps returned, kept on the device: reading them waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.double() if value.device.type != "mps" else value.float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> tuple[dict[str, float], int]:
        """Give the means of the losses and the number of bad steps since the last call."""
        sums = {name: value.item() for name, value in self.sums.items()}
        bad = int(sums.pop("bad", 0.0))
        means = {name: value / self.counts[name] for name, value in sums.items()}
        self.sums, self.counts = {}, {}
        return means, bad


class _Clock:
    """Where the time of a stage goes."""

    def __init__(self, state: TrainState, batch: int) -> None:
        self.first = state.step
        self.seconds_before = state.seconds
        self.batch = batch
        self.started = self.reported = time.monotonic()
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of what waits for data."""
        asked = time.monotonic()
        yield
        self.waited += time.monotonic() - asked

    def report_due(self) -> bool:
        return time.monotonic() - self.reported >= REPORT_SECONDS

    def progress(self, stage: Stage, losses: _LossSums, state: TrainState) -> StageProgress:
        """Take losses, bad steps and time into `state`, and say how the stage stands."""
        means, bad = losses.take()
        state.count_bad(bad)
        self.reported = time.monotonic()
        elapsed = max(self.reported - self.started, 1e-9)
        state.seconds = self.seconds_before + elapsed
        return StageProgress(
            stage=stage.name,
            step=state.step,
            steps=stage.steps,
            losses=means,
            images_per_second=self.batch * (state.step - self.first) / elapsed,
            waiting=self.waited / elapsed,
            seconds=state.seconds,
            bad_steps=state.bad_steps,
        )


def _to_device(batch: Tensor, device: torch.device) -> Tensor:
    """Move uint8 0..255 to the device as float 0..1, channels-last."""
    moved = batch.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    return moved.float().div_(255)
