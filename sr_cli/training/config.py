"""The configuration of a training run: frozen, documented per field, saved with the run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
import tomli_w
from msgspec import Meta

from sr_cli.errors import UsageError, reason_of
from sr_cli.storage import schemas

Weight = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Distance = Literal["l1", "l2", "charbonnier"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the configuration's parts. Values are checked where they come in, see `override`."""


class OptimiserConfig(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Adam and its learning rate over a stage."""

    lr: Annotated[float, Meta(gt=0)] = 1e-3  #: Peak learning rate.
    betas: tuple[Annotated[float, Meta(ge=0, lt=1)], Annotated[float, Meta(ge=0, lt=1)]] = (0.9, 0.999)
    """Adam's decays of the gradients' mean and square; a discriminator follows the generator faster with 0.5, 0.99."""
    schedule: Literal["cosine", "halve", "constant"] = "cosine"
    """`cosine`: from `lr` to 0 over the stage; `halve`: halved at each of `halve_at`; `constant`."""
    halve_at: tuple[int, ...] = ()  #: Steps at which `halve` halves the rate.
    warmup: Annotated[int, Meta(ge=0)] = 20  #: Steps over which the rate rises linearly from 0.
    clip_norm: Weight = 1.0  #: Gradients are scaled down to this norm; 0 leaves them alone.


class ComparisonConfig(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stage compares the generator's pictures with what they should be; a weight of 0 leaves a loss out."""

    content: Distance = "l1"  #: Content loss: `l1`, `l2` or `charbonnier`.
    content_weight: Weight = 1.0  #: Weight of the content loss.
    grid_weight: Weight = 0.0  #: Weight of the loss against patterns on the upsampler's grid.
    flat_weight: Weight = 0.0  #: Weight of the content loss of flat places, which keeps them flat.
    lattice_weight: Weight = 0.0  #: Weight of the loss against what repeats with the low-resolution pixels.
    coherence_weight: Weight = 0.0  #: Weight of the loss against lines where the target has texture.
    spectral_weight: Weight = 0.0  #: Weight of the loss on local amplitude spectra.
    feature_weight: Weight = 0.0  #: Weight of the feature loss.
    feature_target: Literal["target", "original"] = "target"
    """Reference of the feature loss: `target`, as all other losses, or the `original` even where a teacher is the
    target."""
    feature_relative: bool = True
    """Divides each map's distance by the mean magnitude of the photo's map, so that the feature
    network's scale does not matter; ESRGAN takes the distance as it is."""
    feature_loss: Literal["l1", "l2"] = "l1"  #: Distance between features: `l1` (ESRGAN) or `l2` (the recipe `poster`).
    feature_sizes: Annotated[tuple[Annotated[float, Meta(gt=0)], ...], Meta(min_length=1)] = (1.0,)
    """Sizes at which the feature network sees the pictures; the loss is the mean. SqueezeNet begins with a stride of 2:
    at size 2 it sees each pixel, and a pattern of single pixels does not pass for texture."""
    feature_sizes_drawn: bool = False
    """Whether each step compares at one size, drawn between the smallest and the largest of `feature_sizes`, instead of
    at all of them: then no pattern falls on the same cells of the feature network's maps at every step."""
    texture_weight: Weight = 0.0
    """Weight of the loss on local texture: covariances of SqueezeNet's features, compared with the same reference."""
    feature_net: Literal["vgg19", "squeezenet1_1", "none"] = "vgg19"
    """`vgg19` (conv5_4 before activation), `squeezenet1_1`, or `none` for no feature loss."""

    @property
    def compares_features(self) -> bool:
        """Whether the stage needs a feature network."""
        return max(self.feature_weight, self.texture_weight) > 0 and self.feature_net != "none"


class PixelConfig(ComparisonConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pixel and photo stages: the generator alone."""

    steps: Count = 10_000  #: Steps of the whole stage.
    generator: OptimiserConfig = OptimiserConfig()  #: The generator's optimiser.


class GanConfig(ComparisonConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GAN stage: the same comparisons and a discriminator, from the weights of an earlier stage."""

    steps: Count = 5_000  #: Steps of the whole stage.
    grid_weight: Weight = 4.0  #: Weight of the loss against patterns on the upsampler's grid.
    flat_weight: Weight = 10.0  #: Weight of the content loss of flat places.
    feature_weight: Weight = 0.05
    """Weight of the feature loss. With the weights of content, features and discriminator, and relative features of
    SqueezeNet, the gradients that reach a pixel-stage generator's output have norms of about 1 : 4 : 0.5."""
    adversarial_weight: Weight = 2.5e-3  #: Weight of the generator's adversarial loss.
    adversarial_start: Annotated[int, Meta(ge=0)] = 0
    """Step from which the adversarial loss counts; the discriminator learns from the first."""
    adversarial: Literal["auto", "vanilla", "relativistic"] = "auto"
    """`vanilla`, `relativistic` or `auto`: relativistic average with the VGG-style discriminator except for SRGAN,
    else vanilla."""
    real: Literal["originals", "teacher", "both"] = "originals"
    """Images that the discriminator sees as real: `originals`, `teacher`, or `both` by turns."""
    discriminator_kind: Literal["vgg", "patch", "unet"] = "vgg"
    """`vgg` (Ledig et al. 2017), `patch`, the same without pooling, or `unet` with spectral normalisation (Wang et al.
    2021)."""
    discriminator_features: Count = 64  #: Channels of the discriminator's first layer.
    discriminator_shift: bool = True
    """Shows the discriminator another window of the patches at each step, 16 pixels smaller a side. Its strides see
    some pixels more often than others; standing still, they print their grid into the generator's output."""
    generator: OptimiserConfig = OptimiserConfig(lr=1e-4)  #: The generator's optimiser.
    discriminator: OptimiserConfig = OptimiserConfig(lr=1.5e-4)
    """The discriminator's optimiser; faster than the generator's (Heusel et al. 2017): in a short stage it would
    otherwise still be guessing when the generator's rate is down."""


class TrainConfig(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides what a run computes.

    Two runs with equal configuration and data give equal weights on the same CPU machine.
    """

    model: str = "mesrgan"  #: Preset to train.
    seed: Annotated[int, Meta(ge=0)] = 0  #: Seeds initial weights and, with the step and position, every patch.
    batch: Count = 16  #: Patches per step, over all processes.
    patch: Annotated[int, Meta(ge=16, multiple_of=16)] = 128
    """Side of a high-resolution patch, in pixels; a multiple of 16."""
    degrade: Literal["none", "photo"] = "none"  #: `none`: bicubic reduction; `photo`: blur, noise and JPEG as well.
    sizes: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(min_length=1)] = (1.0,)
    """Sizes at which each photo is used, as shares of its sides; photos at full size are soft at the pixel."""
    teacher_weight: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the teacher's picture in the target, where there is a teacher; the rest is the original."""
    taught_inputs: Annotated[int, Meta(ge=0)] = 0
    """Degraded reductions of each photo that are made once, enlarged by the teacher and trained on: its answers can be
    inferred from the inputs. 0: the teacher enlarges the clean reduction, and each patch is degraded anew."""
    min_detail: Weight = 0.0
    """Patches whose luma deviates less than this (0..255) are drawn again, at most four times."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`fp32`, `bf16`, `fp16` or `auto`: bf16 where the device computes in it, else fp32."""
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.999
    """Decay per step of the averaged weights, which are the ones validated and exported."""
    validate_every: Count = 500  #: Steps between validations and checkpoints.
    sample_every: Count = 1000
    """Steps between pictures of the validation crops (and snapshots, where PSNR does not choose), if validated then."""
    even_upsampler: bool = True
    """Whether a constant stays a constant through each PixelShuffle, from the first step on (`even_subpixels` in
    `parametrisation`). Without it a generator answers a discriminator with a screen of dots, the same in every
    low-resolution pixel."""
    frozen_batchnorm: bool = False
    """Whether BatchNorm normalises by the averages of the weights that a stage starts from, instead of by each batch,
    which is a noisy sample of photos; for a network that is trained already (Lim et al. 2017, section 3.1)."""
    wide_pointwise: bool = False
    """Whether 1x1 convolutions, which MESRGAN has, learn a second path of more channels that is folded into them
    (`parametrisation.ParallelPath`): 0.14 dB in the first five minutes, for two fifths more time a step."""
    compile: bool = False  #: Whether the generator goes through torch.compile: slow to start, faster on large GPUs.
    max_bad_steps: Annotated[int, Meta(ge=0)] = 50
    """Steps with a non-finite loss, among the last `BAD_STEPS_WINDOW`, after which the run gives up."""
    pixel: PixelConfig = PixelConfig()  #: The pixel stage and the photo stage.
    gan: GanConfig = GanConfig()  #: The GAN stage.

    def of(self, stage: str) -> PixelConfig | GanConfig:
        """Give the settings of the stage `pixel`, `photo` or `gan`."""
        return self.gan if stage == "gan" else self.pixel


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Give the configuration as nested plain values."""
    return cast(dict[str, Any], msgspec.to_builtins(config))


def override(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """Give a copy of a configuration with `values` (nested) put over it.

    Raises UsageError that names the setting for an unknown name, a wrong type or a value out of range.
    """
    try:
        return schemas.convert(_merged(to_dict(config), values), TrainConfig)
    except schemas.Mismatch as error:
        name = ".".join([*error.place, error.field])
        if error.known:
            raise UsageError(f"unknown setting {name!r}; known here: {', '.join(error.known)}") from None
        raise UsageError(f"setting {name!r} {error.trouble}") from None


def _merged(known: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(known)
    for key, value in values.items():
        inner = known.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file's values. Raises UsageError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the configuration {path}: {reason_of(error)}") from None


def dump_toml(config: TrainConfig) -> str:
    """Give a configuration as TOML, which `read_toml` and `override` read back."""
    return tomli_w.dumps(to_dict(config))
