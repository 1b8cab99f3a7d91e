"""Steps of training: the pixel stage and the GAN stage.

A stage knows its networks, losses and optimisers, and nothing of files, data or the loop around it.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterable
from operator import attrgetter

import torch
from torch import Tensor, nn

from sr_cli import models
from sr_cli.errors import UsageError
from sr_cli.inference import this_processor
from sr_cli.metrics.features import FeatureLoss
from sr_cli.models.discriminator import DISCRIMINATORS, STRIDE
from sr_cli.training import checkpoint, parallel
from sr_cli.training.config import ComparisonConfig, GanConfig, OptimiserConfig, TrainConfig
from sr_cli.training.data import Patches
from sr_cli.training.losses import adversarial, pixel
from sr_cli.training.parametrisation import even_subpixels, widen_pointwise

NEVER = 2**30  #: Steps after which a gradient scaler that need not scale may grow.


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Compute the rate of step `step` (from 0) of a stage of `steps`."""
    rate = config.lr
    if config.schedule == "cosine":
        rate *= 0.5 + 0.5 * math.cos(math.pi * step / steps)
    elif config.schedule == "halve":
        rate *= 0.5 ** sum(step >= at for at in config.halve_at)
    return rate * min(1.0, (step + 1) / config.warmup) if config.warmup else rate


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Choose what the convolutions compute in, or None for fp32 throughout.

    `auto` is bf16 where the device computes it faster than fp32.
    """
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)  # before Ampere, CUDA emulates it
        else:
            fast = device.type == "cpu" and this_processor().has_fast_bf16
        return torch.bfloat16 if fast else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class Ema:
    """Exponential moving average of a generator, buffers copied; decay ramps up over the first steps."""

    def __init__(self, model: models.Generator, decay: float) -> None:
        self.model = models.create(model.config).to(next(model.parameters()).device).eval().requires_grad_(False)
        self.model.load_state_dict({name: attrgetter(name)(model) for name in self.model.state_dict()})
        self.decay = decay

    @torch.no_grad()
    def update(self, model: models.Generator, step: int, bad: Tensor) -> None:
        """Take in the weights after a step; after a bad one, undoes what it did to BatchNorm's statistics."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, known = dict(self.model.named_parameters()), dict(model.named_parameters())
        # A weight that has a path beside it in training is no parameter, but their sum, computed when it is read.
        weights = [known[name] if name in known else attrgetter(name)(model) for name in averages]
        torch._foreach_lerp_(list(averages.values()), weights, 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(torch.where(bad, mine, theirs))
            theirs.copy_(mine)


class Optimisation:
    """Adam over one network: its schedule, gradient scaling and clipping, without waiting for the device.

    The scaler serves every precision: it scales only for fp16, but it also makes the optimiser skip
    a step whose gradients are not finite. It looks at gradients after they were averaged over all
    processes, so that all of them skip the same steps.
    """

    def __init__(
        self, config: OptimiserConfig, steps: int, parameters: Iterable[nn.Parameter], dtype: torch.dtype | None
    ) -> None:
        self.config = config
        self.steps = steps
        self.parameters = list(parameters)
        self.adam = torch.optim.Adam(self.parameters, config.lr, config.betas, fused=True)
        self.fp16 = dtype == torch.float16
        self.scaler = torch.amp.GradScaler(
            self.parameters[0].device.type,
            init_scale=2.0**14 if self.fp16 else 1.0,
            growth_interval=2000 if self.fp16 else NEVER,
        )

    def step(self, step: int, loss: Tensor) -> Tensor:
        """Descend; return whether the step was bad. fp16's occasional overflow of gradients is not."""
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.config, step, self.steps)
        self.adam.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.adam)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        self.scaler.step(self.adam)
        self.scaler.update()
        return ~torch.isfinite(loss.detach() if self.fp16 else norm)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        state = checkpoint.optimiser_tensors(self.adam)
        if self.fp16:
            scaler = self.scaler.state_dict()
            state["scaler.scale"] = torch.tensor(scaler["scale"])
            state["scaler.growth"] = torch.tensor(scaler["_growth_tracker"])
        return {f"{prefix}.{name}": value for name, value in state.items()}

    def restore(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        state = checkpoint.part(tensors, prefix)
        scale, growth = state.pop("scaler.scale", None), state.pop("scaler.growth", None)
        if self.fp16 and scale is not None and growth is not None:
            known = self.scaler.state_dict()
            self.scaler.load_state_dict({**known, "scale": scale.item(), "_growth_tracker": int(growth)})
        checkpoint.restore_optimiser(self.adam, state)


class Stage:
    """What the training loop sees of a stage, and what all have: a generator, its average, optimiser and precision."""

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        model: models.Generator,
        device: torch.device,
        features: FeatureLoss | None,
    ) -> None:
        own = config.of(name)
        self.name = name  #: `pixel`, `photo` or `gan`; names its files.
        self.steps = own.steps  #: Steps of the whole stage.
        self.comparison: ComparisonConfig = own
        self.judged_by_psnr = name != "gan" and not own.compares_features
        """Whether the best weights are those with the highest validation PSNR. Features and a discriminator cost PSNR
        by design; with them the newest weights are the best."""
        self.features = features and features.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.teacher_weight = config.teacher_weight
        self.dtype = autocast_dtype(config.precision, device)
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if config.wide_pointwise:
            widen_pointwise(self.model, torch.Generator().manual_seed(config.seed))
        if config.frozen_batchnorm:
            self.model.freeze_batchnorm()
        self.even_convs = self.model.shuffled_convs() if config.even_upsampler else []
        self._even_upsampler()
        self.ema = Ema(self.model, config.ema_decay)
        self.optimisation = Optimisation(own.generator, own.steps, self.model.parameters(), self.dtype)
        compiled = torch.compile(self.model) if config.compile else self.model
        self.forward = parallel.wrap(compiled, device)

    def step(self, step: int, patches: Patches) -> dict[str, Tensor]:
        """Take one optimisation step on float patches in 0..1.

        Returns scalars that are still on the device: the losses by name, and `bad`, which is 1 where
        the step was skipped because a loss or gradient was not finite.
        """
        raise NotImplementedError

    def target(self, patches: Patches) -> Tensor:
        """Compute what the generator should make of the patches: the originals, mixed with the teacher's picture."""
        if patches.taught is None:
            return patches.hr
        return torch.lerp(patches.hr, patches.taught, self.teacher_weight)

    def losses(self, step: int, output: Tensor, patches: Patches) -> dict[str, Tensor]:
        """Compare the generator's output with what it should be: the losses by name, those that have a weight."""
        config, target = self.comparison, self.target(patches)
        losses = {"content": pixel.content(config.content, output, target)}
        if config.grid_weight:
            losses["grid"] = pixel.grid(output, target, self.model.scale)
        if config.flat_weight:
            losses["flat"] = pixel.flat(output, target)
        if config.lattice_weight:
            losses["lattice"] = pixel.lattice(output, target, self.model.scale)
        if config.coherence_weight:
            losses["coherence"] = pixel.coherence(output, target)
        if config.spectral_weight:
            losses["spectral"] = pixel.spectral(output, target)
        if self.features:
            reference = patches.hr if config.feature_target == "original" else target
            with self.autocast():
                if config.texture_weight:
                    losses["feature"], losses["texture"] = self.features.with_texture(output, reference, step)
                else:
                    losses["feature"] = self.features(output, reference, step)
        return losses

    def descend(self, step: int, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the generator one step down the weighted sum of `losses`; gives them, `loss` and `bad`, detached."""
        loss = torch.stack([getattr(self.comparison, f"{name}_weight") * part for name, part in losses.items()]).sum()
        bad = self.optimisation.step(step, loss)
        self._even_upsampler()
        self.ema.update(self.model, step, bad)
        return {"loss": loss.detach(), **{name: part.detach() for name, part in losses.items()}, "bad": bad}

    def _even_upsampler(self) -> None:
        for conv, factor in self.even_convs:
            even_subpixels(conv, factor)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def tensors(self) -> dict[str, Tensor]:
        """Collect all state, for a checkpoint."""
        return {
            **{f"generator.{k}": v for k, v in self.model.state_dict().items()},
            **{f"ema.{k}": v for k, v in self.ema.model.state_dict().items()},
            **self.optimisation.tensors("adam"),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.model.load_state_dict(checkpoint.part(tensors, "generator"))
        self.ema.model.load_state_dict(checkpoint.part(tensors, "ema"))
        self.optimisation.restore("adam", tensors)


def shown_side(config: GanConfig, patch: int) -> int:
    """Compute the side of what the discriminator sees of a patch: all of it, or a window that has room to move."""
    return patch - STRIDE if config.discriminator_shift and patch >= 2 * STRIDE else patch


def check_patches(config: TrainConfig, names: Iterable[str], batch: int) -> None:
    """Raise UsageError where `batch` patches in a process are too small or too few for the losses of these stages."""
    for weight, side in (("lattice_weight", pixel.LATTICE_LEAST), ("coherence_weight", pixel.COHERENCE_LEAST)):
        least = -(-side // 16) * 16  # sides of patches are multiples of 16
        if config.patch < least and any(getattr(config.of(name), weight) for name in names):
            raise UsageError(f"{weight} needs --patch {least} or more, not {config.patch}")
    side = shown_side(config.gan, config.patch)
    if "gan" in names and config.gan.discriminator_kind == "vgg" and batch * (side // STRIDE) ** 2 < 2:
        raise UsageError(
            f"one patch of {config.patch} pixels in a process is too little for the GAN stage's discriminator: choose "
            "a larger --batch, or --patch 48 or more"
        )


class PixelStage(Stage):
    """The pixel and photo stages: comparisons alone."""

    def step(self, step: int, patches: Patches) -> dict[str, Tensor]:
        with self.autocast():
            output = self.forward(patches.lr).float()
        return self.descend(step, self.losses(step, output, patches))


class GanStage(Stage):
    """The GAN stage: comparisons, and a discriminator that learns at the same time."""

    def __init__(
        self, config: TrainConfig, model: models.Generator, device: torch.device, features: FeatureLoss | None
    ) -> None:
        self.config = config.gan
        super().__init__("gan", config, model, device, features)
        self.kind = self.config.adversarial
        if self.kind == "auto":
            plain = model.config.family == "srgan" or self.config.discriminator_kind != "vgg"
            self.kind = "vanilla" if plain else "relativistic"
        discriminator = DISCRIMINATORS[self.config.discriminator_kind](self.config.discriminator_features)
        discriminator.reset_parameters(torch.Generator().manual_seed(config.seed))
        self.discriminator = discriminator.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.discriminator_optimisation = Optimisation(
            self.config.discriminator, self.config.steps, self.discriminator.parameters(), self.dtype
        )
        self.discriminate = parallel.wrap(self.discriminator, device)

    def _shown(self, rgb: Tensor, step: int) -> Tensor:
        """Cut out what the discriminator sees of the patches at a step: all, or a window that moves."""
        side = shown_side(self.config, rgb.shape[-1])
        if side == rgb.shape[-1]:
            return rgb
        place = random.Random(step)
        top, left = place.randrange(STRIDE), place.randrange(STRIDE)
        return rgb[:, :, top : top + side, left : left + side]

    def step(self, step: int, patches: Patches) -> dict[str, Tensor]:
        real = self.real(patches)
        with self.autocast():
            fake = self.forward(patches.lr).float()
        losses = self.losses(step, fake, patches)
        if step >= self.config.adversarial_start:
            losses["adversarial"] = self._adversarial(step, fake, real)
        descended = self.descend(step, losses)
        loss, bad = self._discriminator_step(step, fake.detach(), real)
        return {**descended, "discriminator": loss, "bad": descended["bad"] | bad}

    def real(self, patches: Patches) -> Tensor:
        """Choose what counts as real, (N, 3, H, W): `both` takes every other patch of the teacher's."""
        if self.config.real == "originals" or patches.taught is None:
            return patches.hr
        if self.config.real == "teacher":
            return patches.taught
        odd = torch.arange(len(patches.hr), device=patches.hr.device) % 2 == 1
        return torch.where(odd.view(-1, 1, 1, 1), patches.taught, patches.hr)

    def _adversarial(self, step: int, fake: Tensor, real: Tensor) -> Tensor:
        # The unwrapped discriminator: its weights get no gradient here, there is nothing to average.
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fake_logits = self.discriminator(self._shown(fake, step)).float()
            real_logits = fake_logits.detach()
            if self.kind == "relativistic":
                with torch.no_grad():
                    real_logits = self.discriminator(self._shown(real, step)).float()
        self.discriminator.requires_grad_(True)
        return adversarial.generator(self.kind, real_logits, fake_logits)

    def _discriminator_step(self, step: int, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            real_logits = self.discriminate(self._shown(real, step)).float()
            fake_logits = self.discriminate(self._shown(fake, step)).float()
        loss = adversarial.discriminator(self.kind, real_logits, fake_logits)
        return loss.detach(), self.discriminator_optimisation.step(step, loss)

    def tensors(self) -> dict[str, Tensor]:
        return {
            **super().tensors(),
            **{f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()},
            **self.discriminator_optimisation.tensors("discriminator_adam"),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        super().restore(tensors)
        self.discriminator.load_state_dict(checkpoint.part(tensors, "discriminator"))
        self.discriminator_optimisation.restore("discriminator_adam", tensors)
