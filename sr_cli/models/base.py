"""The base of all generators: their contract, folding, and costs."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.metrics import features

# Mean and standard deviation of the training photos' RGB values in 0..1, as in Eriksson and Löf's code.
RGB_MEAN = (0.4439, 0.4517, 0.4054)
RGB_STD = (0.2738, 0.2607, 0.2856)

LEAKY_SLOPE = 0.2
PRELU_SLOPE = 0.25  #: What a PReLU starts with (He et al. 2015, section 4).


@dataclass(frozen=True)
class GeneratorConfig:
    """Base of the generators' configurations; `family` names the file that builds it.

    Raises ValueError where a field of whole numbers holds anything else or less than 1.
    """

    family: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (isinstance(value, int) and value >= 1):  # types are strings here
                raise ValueError(f"{self.family}: {field.name} must be at least 1, not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, as the weights manifest stores it."""
        return {"family": self.family, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the configuration from `to_dict`'s values without the family. Raises TypeError, ValueError."""
        return cls(**values)


class Generator(nn.Module):
    """A super-resolution network.

    `forward` takes RGB in 0..1 as float (N, 3, H, W) and gives (N, 3, scale*H, scale*W), nominally
    0..1 but not clamped. The convolutions pad with zeros. Training patches end like that as well, so that a
    network knows what to do at the border of an image: padding the image by replication costs 0.1 dB on Set5.
    """

    config: GeneratorConfig
    scale: int = 4
    alignment: int = 1  #: Only shifts of the input by a multiple of this many pixels merely shift the output.
    traceable: bool = True  #: Whether a recording of one forward pass holds for all sizes, as converters assume.

    @property
    def receptive_radius(self) -> int:
        """How far, in low-resolution pixels, an input pixel can influence the output."""
        raise NotImplementedError

    @property
    def peak_values_per_pixel(self) -> int:
        """Values held at once while one low-resolution pixel is computed: memory over that of the image.

        An upper estimate by counting the largest simultaneously live activations; the engine plans
        its tiles by it.
        """
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights for training; with a `generator` the draw is reproducible."""
        raise NotImplementedError

    def shuffled_convs(self) -> list[tuple[nn.Conv2d, int]]:
        """List the convolutions that a PixelShuffle follows, each with its factor."""
        return []

    def freeze_batchnorm(self) -> None:
        """Let BatchNorm normalise by its running averages from now on, also in training mode."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def fold(self) -> Self:
        """Copy for inference: BatchNorm and residual scaling folded into the weights.

        The copy is in evaluation mode, without gradients, in channels-last layout, and gives the
        same output as this module in evaluation mode up to float rounding. Folding a folded one copies it.
        """
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        for module in list(folded.modules()):
            fold_ = getattr(module, "fold_", None)
            if fold_ is not None:
                fold_()
        return folded.to(memory_format=torch.channels_last)


Shapes = Mapping[str, tuple[int, ...]]  #: The shape of each tensor of a state dict, by name.


class ConvShape(NamedTuple):
    """The shape of a convolution's weight."""

    out_channels: int
    in_channels: int
    height: int
    width: int


def conv_shape(shapes: Shapes, name: str) -> ConvShape | None:
    """Return the shape of the convolution `name`; None where there is none, or one of other dimensions or empty."""
    shape = shapes.get(f"{name}.weight", ())
    return ConvShape(*shape) if len(shape) == 4 and min(shape) > 0 else None


def count_blocks(shapes: Shapes, prefix: str, tensors_each: int) -> int:
    """Count the numbered modules of a state dict below `prefix` (`trunk.` counts `trunk.0...`, `trunk.1...`).

    Only those count that have half of their `tensors_each` at least: a file that names many modules and has little of
    each does not make us build them.
    """
    found = Counter(name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix))
    return sum(2 * tensors >= tensors_each for tensors in found.values())


@dataclass(frozen=True)
class Recognised:
    """The network that a state dict belongs to, by its names and shapes."""

    config: GeneratorConfig  #: What to build.
    names: Mapping[str, str]  #: Our name of each tensor, by the name that it has in the file.


@dataclass(frozen=True)
class Architecture:
    """A family of generators: what builds it and what recognises it."""

    config: type[GeneratorConfig]  #: Its configuration.
    network: type[Any]  #: The `Generator` that takes the configuration.
    recognise: Callable[[Shapes], Recognised | None]
    """Gives what a state dict of the family belongs to, None for others, by a first look at names and shapes.

    Raises ValueError for a state dict of the family that makes no network.
    """


def own_names(config: GeneratorConfig, shapes: Shapes) -> Recognised:
    """Recognise a state dict that has our names already."""
    return Recognised(config, {name: name for name in shapes})


class Normalise(features.Normalise):
    """Shifts RGB in 0..1 to zero mean and unit variance over photos, and back."""

    def __init__(self) -> None:
        super().__init__(RGB_MEAN, RGB_STD)

    def undo(self, normalised: Tensor) -> Tensor:
        return normalised * self.std + self.mean


class Prelu(nn.PReLU):
    """PReLU (He et al. 2015) of (N, C, H, W), in a form of its own where it learns on a CPU: torch's is slow there.

    A step of ESRGAN takes a seventh less time with it in bf16, one of SRGAN a quarter (docs/training.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        return F.relu(x) - self.weight.to(x.dtype).view(-1, 1, 1) * F.relu(-x)


def init_he(conv: nn.Conv2d, slope: float, gain: float, generator: torch.Generator | None) -> None:
    """Draw weights for leaky ReLU (He et al. 2015, eq. 14-15), scaled by `gain`; bias zero."""
    fan_in = conv.weight[0].numel()
    std = gain * math.sqrt(2.0 / ((1.0 + slope**2) * fan_in))
    with torch.no_grad():
        conv.weight.normal_(0.0, std, generator=generator)
        if conv.bias is not None:
            conv.bias.zero_()


def count_parameters(model: nn.Module) -> int:
    """Count the trainable values."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_multiplications(model: nn.Module, channels: int = 3) -> int:
    """Count the multiplications of all convolutions per input pixel, without biases and activations.

    Counted by running the network on a small input and looking at what each convolution produced,
    so that it holds for any architecture. Interpolation by fixed kernels is not counted.
    """
    side = 16
    total = 0

    def add(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.shape[-2] * output.shape[-1] * weight.numel()

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        model(torch.zeros(1, channels, side, side, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    assert total % side**2 == 0
    return total // side**2
