"""The training loop: one loop, and a step per stage."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_cli import models
from sr_cli.errors import DivergedError
from sr_cli.training import checkpoint, losses
from sr_cli.training.config import OptimiserConfig, TrainConfig, to_dict
from sr_cli.training.data import CachedImage, PatchDataset

Event = dict[str, Any]


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of a stage of `steps`."""
    rate = config.lr
    if config.schedule == "cosine":
        rate *= 0.5 + 0.5 * math.cos(math.pi * step / steps)
    elif config.schedule == "halve":
        rate *= 0.5 ** sum(step >= at for at in config.halve_at)
    return rate * min(1.0, (step + 1) / config.warmup) if config.warmup else rate


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What the convolutions compute in, or None for fp32 throughout.

    `auto` is bf16 where the device multiplies it natively: on CPU that halves the time of a step on
    processors with AVX512-BF16 or AMX, and slows it down on the others.
    """
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if native and device.type in ("cpu", "cuda") else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


class Stage(Protocol):
    """What the loop needs of a stage."""

    def step(self, step: int, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """One optimisation step on float batches in 0..1; returns its losses, `loss` among them."""

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` gave."""


class Ema:
    """Exponential moving average of a generator, buffers copied; decay ramps up over the first steps."""

    def __init__(self, model: models.Generator, decay: float) -> None:
        self.model = models.create(model.config).to(next(model.parameters()).device).eval().requires_grad_(False)
        self.model.load_state_dict(model.state_dict())
        self.decay = decay

    @torch.no_grad()
    def update(self, model: models.Generator, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


class PixelStage:
    """Stage 1: content loss alone."""

    def __init__(self, config: TrainConfig, model: models.Generator, device: torch.device) -> None:
        self.config = config.pixel
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.ema = Ema(model, config.ema_decay)
        self.dtype = autocast_dtype(config.precision, device)
        self.device = device
        self.optimiser = torch.optim.Adam(self.model.parameters(), self.config.generator.lr, fused=True)

    def step(self, step: int, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        settings = self.config.generator
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, self.config.steps)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.model(lr)
        loss = losses.content(self.config.loss, output.float(), hr)
        if not torch.isfinite(loss):
            return {"loss": loss.detach()}
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimiser.step()
        self.ema.update(self.model, step)
        return {"loss": loss.detach()}

    def tensors(self) -> dict[str, Tensor]:
        return {
            **{f"generator.{k}": v for k, v in self.model.state_dict().items()},
            **{f"ema.{k}": v for k, v in self.ema.model.state_dict().items()},
            **{f"adam.{k}": v for k, v in checkpoint.optimiser_tensors(self.optimiser).items()},
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("generator."))
        self.ema.model.load_state_dict(part("ema."))
        checkpoint.restore_optimiser(self.optimiser, part("adam."))


@dataclass(frozen=True)
class ValidationCrop:
    """One held-out picture: `lr` (H, W, 3) and `hr` (4H, 4W, 3), uint8."""

    name: str
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


def validation_crops(images: Sequence[CachedImage], side: int = 512) -> list[ValidationCrop]:
    """The middle of each image, at most `side` high-resolution pixels a side."""
    crops = []
    for image in images:
        height, width = (min(side, n) // 4 for n in image.hr.shape[:2])
        top, left = (image.lr.shape[0] - height) // 2, (image.lr.shape[1] - width) // 2
        lr = np.array(image.lr[top : top + height, left : left + width])
        hr = np.array(image.hr[4 * top : 4 * (top + height), 4 * left : 4 * (left + width)])
        crops.append(ValidationCrop(image.name, lr, hr))
    return crops


_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)


@torch.inference_mode()
def validate(model: models.Generator, crops: Sequence[ValidationCrop]) -> float:
    """Mean PSNR on luma, in dB, four border pixels left out, output rounded to 8 bits."""
    device = next(model.parameters()).device
    folded = model.fold()
    weights = torch.tensor(_LUMA, dtype=torch.float64).view(3, 1, 1)
    total = 0.0
    for crop in crops:
        lr = torch.from_numpy(crop.lr).to(device).permute(2, 0, 1)[None].float() / 255
        output = folded(lr)[0].mul(255).round().clamp(0, 255).double().cpu()
        difference = ((output - torch.from_numpy(crop.hr).permute(2, 0, 1)) * weights).sum(0)[4:-4, 4:-4]
        total += 10 * math.log10(255**2 / difference.square().mean().item())
    return total / len(crops)


def _batches(dataset: PatchDataset, start: int, stop: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(
        torch.utils.data.DataLoader(
            dataset, batch_size=None, sampler=range(start, stop), num_workers=workers, prefetch_factor=4
        )
    )


def run(
    stage: PixelStage,
    config: TrainConfig,
    steps: int,
    dataset: PatchDataset,
    crops: Sequence[ValidationCrop],
    folder: Path,
    name: str,
    report: Callable[[Event], None],
    should_stop: Callable[[], bool] = lambda: False,
    workers: int = 1,
) -> bool:
    """Trains `stage` up to `steps`, continuing from the folder's checkpoint if there is one.

    Writes `{name}.last.safetensors` (all state), `{name}.best.safetensors` (the averaged weights with
    the best validation PSNR) and `log.jsonl`. Returns whether the stage is complete.
    Raises DivergedError after too many non-finite losses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, best = folder / f"{name}.last.safetensors", folder / f"{name}.best.safetensors"
    info: dict[str, Any] = {"step": 0, "best": -math.inf, "bad_steps": 0, "seconds": 0.0}
    if last.exists():
        tensors, info = checkpoint.load_state(last)
        stage.restore(tensors)
    started, waited, seconds_before, done_before = time.monotonic(), 0.0, info["seconds"], info["step"]

    def save() -> None:
        info["seconds"] = seconds_before + time.monotonic() - started
        checkpoint.save_state(last, stage.tensors(), info)

    batches = _batches(dataset, info["step"], steps, workers)
    while info["step"] < steps:
        step = info["step"]
        asked = time.monotonic()
        lr, hr = (
            batch.to(stage.device, non_blocking=True).float().div_(255).contiguous(memory_format=torch.channels_last)
            for batch in next(batches)
        )
        waited += time.monotonic() - asked
        result = {key: value.item() for key, value in stage.step(step, lr, hr).items()}
        info["step"] = step + 1
        if not math.isfinite(result["loss"]):
            info["bad_steps"] += 1
            if info["bad_steps"] > config.max_bad_steps:
                raise DivergedError(f"{info['bad_steps']} steps gave no finite loss; lower the learning rate")
        stopping = should_stop()
        if (step + 1) % config.validate_every == 0 or step + 1 == steps:
            result["val_psnr_y"] = validate(stage.ema.model, crops)
            if result["val_psnr_y"] > info["best"]:
                info["best"] = result["val_psnr_y"]
                checkpoint.save_state(best, dict(stage.ema.model.state_dict()), {"step": step + 1, **to_dict(config)})
            save()
        elif stopping:
            save()
        if stopping or "val_psnr_y" in result or (step + 1) % 50 == 0:
            elapsed = time.monotonic() - started
            event = {
                "stage": name,
                "step": step + 1,
                "steps": steps,
                **result,
                "images_per_second": config.batch * (step + 1 - done_before) / elapsed,
                "waiting": waited / elapsed,
                "seconds": seconds_before + elapsed,
            }
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(event) + "\n")
            report(event)
        if stopping:
            return step + 1 == steps
    return True
