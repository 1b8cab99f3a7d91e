"""The configuration of a training run: frozen, documented per field, saved with the run."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_cli.errors import UsageError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam and its learning rate over a stage."""

    lr: float = 1e-3
    """Peak learning rate."""
    schedule: str = "cosine"
    """`cosine`: from `lr` to 0 over the stage; `halve`: halved at each of `halve_at`; `constant`."""
    halve_at: tuple[int, ...] = ()
    """Steps at which `halve` halves the rate."""
    warmup: int = 20
    """Steps over which the rate rises linearly from 0."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"lr must be positive, not {self.lr}")
        _require(self.schedule in ("cosine", "halve", "constant"), f"unknown schedule {self.schedule!r}")
        _require(self.warmup >= 0, f"warmup must not be negative, not {self.warmup}")
        _require(self.clip_norm >= 0, f"clip_norm must not be negative, not {self.clip_norm}")


@dataclass(frozen=True)
class PixelConfig:
    """Stage 1: the generator alone, against the high-resolution pixels."""

    steps: int = 10_000
    """Steps of the whole stage."""
    loss: str = "l1"
    """`l1`, `l2` or `charbonnier`."""
    spectral_weight: float = 0.0
    """Weight of the loss on local amplitude spectra."""
    generator: OptimiserConfig = field(default_factory=OptimiserConfig)
    """The generator's optimiser."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"pixel.steps must be at least 1, not {self.steps}")
        _require(self.loss in ("l1", "l2", "charbonnier"), f"unknown loss {self.loss!r}")
        _require(self.spectral_weight >= 0, f"pixel.spectral_weight must not be negative, not {self.spectral_weight}")


@dataclass(frozen=True)
class GanConfig:
    """Stage 2: feature loss, adversarial loss and content loss, from a stage-1 model."""

    steps: int = 5_000
    """Steps of the whole stage."""
    content: str = "l1"
    """Content loss: `l1`, `l2` or `charbonnier`."""
    content_weight: float = 1.0
    """Weight of the content loss."""
    grid_weight: float = 4.0
    """Weight of the loss against patterns on the upsampler's grid."""
    flat_weight: float = 10.0
    """Weight of the content loss of flat places, which keeps them flat."""
    spectral_weight: float = 0.0
    """Weight of the loss on local amplitude spectra."""
    feature_weight: float = 0.05
    """Weight of the feature loss. With these three weights, and relative features of SqueezeNet, the gradients
    that reach a pixel-stage generator's output have norms of about 1 (content) : 4 : 0.5 (adversarial)."""
    feature_relative: bool = True
    """Divides each map's distance by the mean magnitude of the photograph's map, so that the feature
    network's scale does not matter; the poster and ESRGAN take the distance as it is."""
    feature_loss: str = "l1"
    """Distance between features: `l1` (ESRGAN) or `l2` (the poster)."""
    feature_net: str = "vgg19"
    """`vgg19` (conv5_4 before activation), `squeezenet1_1`, or `none` for no feature loss."""
    adversarial_weight: float = 2.5e-3
    """Weight of the generator's adversarial loss."""
    adversarial_start: int = 0
    """Step from which the adversarial loss counts; the discriminator learns from the first."""
    adversarial: str = "auto"
    """`vanilla`, `relativistic` or `auto`: relativistic average with the VGG-style discriminator except for SRGAN,
    else vanilla."""
    real: str = "originals"
    """What the discriminator takes for real: `originals`, `teacher`, or `both` by turns."""
    discriminator_kind: str = "vgg"
    """`vgg` (Ledig et al. 2017) or `unet` with spectral normalisation (Wang et al. 2021)."""
    discriminator_features: int = 64
    """Channels of the discriminator's first layer."""
    discriminator_shift: bool = True
    """Shows the discriminator another window of the patches at each step, 16 pixels smaller a side. Its strides see
    some pixels more often than others; standing still, they print their grid into the generator's output."""
    generator: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(lr=1e-4))
    """The generator's optimiser."""
    discriminator: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(lr=1.5e-4))
    """The discriminator's optimiser; faster than the generator's (Heusel et al. 2017): in a short stage it would
    otherwise still be guessing when the generator's rate is down."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"gan.steps must be at least 1, not {self.steps}")
        _require(self.content in ("l1", "l2", "charbonnier"), f"unknown content loss {self.content!r}")
        for name in (
            "content_weight",
            "grid_weight",
            "flat_weight",
            "spectral_weight",
            "feature_weight",
            "adversarial_weight",
        ):
            _require(getattr(self, name) >= 0, f"gan.{name} must not be negative, not {getattr(self, name)}")
        _require(self.adversarial_start >= 0, "gan.adversarial_start must not be negative")
        _require(self.real in ("originals", "teacher", "both"), f"gan.real: unknown {self.real!r}")
        _require(self.discriminator_kind in ("vgg", "unet"), f"unknown discriminator {self.discriminator_kind!r}")
        _require(self.discriminator_features >= 1, "gan.discriminator_features must be at least 1")
        _require(self.feature_loss in ("l1", "l2"), f"unknown feature loss {self.feature_loss!r}")
        _require(self.feature_net in ("vgg19", "squeezenet1_1", "none"), f"unknown feature net {self.feature_net!r}")
        _require(
            self.adversarial in ("auto", "vanilla", "relativistic"), f"unknown adversarial loss {self.adversarial!r}"
        )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes.

    Two runs with equal configuration and data give equal weights on the same CPU machine.
    """

    model: str = "mesrgan"
    """Preset to train."""
    seed: int = 0
    """Seeds initial weights and, with the step and position, every patch."""
    batch: int = 16
    """Patches per step, over all processes."""
    patch: int = 128
    """Side of a high-resolution patch, in pixels; a multiple of 16."""
    degrade: str = "none"
    """`none`: bicubic reduction; `photo`: blur, noise and JPEG as well."""
    sizes: tuple[float, ...] = (1.0,)
    """Sizes at which each photo is used, as shares of its sides; photos at full size are soft at the pixel."""
    teacher_weight: float = 1.0
    """Share of the teacher's picture in the target, where there is a teacher; the rest is the original."""
    min_detail: float = 0.0
    """Patches whose luma deviates less than this (0..255) are drawn again, at most four times."""
    precision: str = "auto"
    """`fp32`, `bf16`, `fp16` or `auto`: bf16 where the device computes in it, else fp32."""
    ema_decay: float = 0.999
    """Decay per step of the averaged weights, which are the ones validated and exported."""
    validate_every: int = 500
    """Steps between validations and checkpoints."""
    sample_every: int = 1000
    """Steps between pictures of the validation crops (and a GAN stage's snapshots), among those validated."""
    compile: bool = False
    """Whether the generator goes through torch.compile: slow to start, faster on large GPUs."""
    max_bad_steps: int = 50
    """Steps with a non-finite loss after which the run gives up."""
    pixel: PixelConfig = field(default_factory=PixelConfig)
    """Stage 1."""
    gan: GanConfig = field(default_factory=GanConfig)
    """Stage 2."""

    def __post_init__(self) -> None:
        _require(self.batch >= 1, f"batch must be at least 1, not {self.batch}")
        _require(
            self.patch >= 16 and self.patch % 16 == 0, f"patch must be a positive multiple of 16, not {self.patch}"
        )
        _require(self.degrade in ("none", "photo"), f"degrade must be none or photo, not {self.degrade!r}")
        _require(
            len(self.sizes) > 0 and all(0 < size <= 1 for size in self.sizes),
            f"sizes must be in (0, 1], not {self.sizes}",
        )
        _require(0 <= self.teacher_weight <= 1, f"teacher_weight must be in [0, 1], not {self.teacher_weight}")
        _require(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), not {self.ema_decay}")
        _require(self.validate_every >= 1, f"validate_every must be at least 1, not {self.validate_every}")
        _require(self.sample_every >= 1, f"sample_every must be at least 1, not {self.sample_every}")
        _require(self.precision in ("auto", "fp32", "bf16", "fp16"), f"unknown precision {self.precision!r}")


POSTER = TrainConfig(
    precision="fp32",
    ema_decay=0.0,
    pixel=PixelConfig(
        steps=300_000,
        generator=OptimiserConfig(lr=2e-4, schedule="halve", halve_at=(100_000, 200_000), warmup=0, clip_norm=0.0),
    ),
    gan=GanConfig(
        steps=200_000,
        content_weight=1e-2,
        grid_weight=0.0,
        flat_weight=0.0,
        feature_weight=1.0,
        adversarial_weight=5e-3,
        feature_relative=False,
        feature_loss="l2",
        discriminator_shift=False,
        generator=OptimiserConfig(
            lr=1e-4, schedule="halve", halve_at=(50_000, 100_000, 150_000), warmup=0, clip_norm=0.0
        ),
        discriminator=OptimiserConfig(
            lr=1e-4, schedule="halve", halve_at=(50_000, 100_000, 150_000), warmup=0, clip_norm=0.0
        ),
    ),
)
"""The experiment's recipe (Eriksson and Löf, section "Training")."""

RECIPES = {"ours": TrainConfig(), "poster": POSTER}


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as nested plain values."""
    return dataclasses.asdict(config)


def override(config: Any, values: dict[str, Any], where: str = "") -> Any:
    """A copy of a configuration with `values` (nested) put over it.

    Raises UsageError naming the field for an unknown name, a wrong type or a value out of range.
    """
    known = {f.name: f for f in dataclasses.fields(config)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}{key}"
        if key not in known:
            raise UsageError(f"unknown setting {path!r}; known here: {', '.join(known)}")
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UsageError(f"setting {path!r} is a table, not {value!r}")
            changes[key] = override(current, value, f"{path}.")
        elif isinstance(current, tuple):
            changes[key] = tuple(value)
        elif isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
            changes[key] = float(value)
        elif type(value) is not type(current):
            raise UsageError(f"setting {path!r} must be {type(current).__name__}, not {value!r}")
        else:
            changes[key] = value
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise UsageError(f"{where}{error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file's values. Raises UsageError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the configuration {path}: {error}") from None


def dump_toml(values: dict[str, Any]) -> str:
    """Nested plain values as TOML that `read_toml` gives back: scalars first, then the tables."""
    lines: list[str] = []

    def write(table: dict[str, Any], where: str) -> None:
        for key, value in table.items():
            if not isinstance(value, dict):
                # JSON's strings, numbers, booleans and lists of numbers are also TOML's.
                lines.append(f"{key} = {json.dumps(value)}")
        for key, value in table.items():
            if isinstance(value, dict):
                lines.append(f"\n[{where}{key}]")
                write(value, f"{where}{key}.")

    write(values, "")
    return "\n".join(lines) + "\n"
