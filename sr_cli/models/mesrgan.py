"""MESRGAN ("mobile ESRGAN"): ESRGAN's dense blocks with MobileNetV2's bottleneck as their layers.

Eriksson and Löf, "Lightweight Super-Resolution"; bottleneck after Sandler et al. 2018 (MobileNetV2).
The preset `mesrgan-poster` is the network that their Table 1 timed (expansion 2, SRGAN's upsampler).
The preset `mesrgan` is ours: expansion 1, half the blocks, and an upsampler that works at low
resolution and only adds detail to the bicubic enlargement: a fifth of ESRGAN's multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE, PRELU_SLOPE, Generator, GeneratorConfig, Normalise, count_blocks, init_he
from sr_cli.models.layers import BicubicPhases, DenseBlock, Upsampler, carry_past_trunk


@dataclass(frozen=True)
class MesrganConfig(GeneratorConfig):
    """MESRGAN's configuration.

    Raises ValueError where a value makes no network.
    """

    family: ClassVar[str] = "mesrgan"

    blocks: int = 8
    """Dense blocks in the trunk."""
    features: int = 64
    """Channels between the blocks."""
    growth: int = 32
    """Channels that each layer of a dense block adds."""
    expansion: int = 1
    """Hidden channels of a bottleneck, as a multiple of its input channels."""
    light_upsampler: bool = True
    """One conv3x3 and PixelShuffle(4) on top of the bicubic enlargement, instead of two x2 stages."""

    def __post_init__(self) -> None:
        for name in ("blocks", "features", "growth", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"mesrgan: {name} must be at least 1, not {getattr(self, name)}")


class Bottleneck(nn.Module):
    """1x1 expand, leaky ReLU, 3x3 depthwise, leaky ReLU, linear 1x1 project: (N, c, H, W) to (N, o, H, W)."""

    def __init__(self, channels: int, out_channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: these layers are bound by memory traffic, not by arithmetic (docs/speed.md).
        hidden = F.leaky_relu(self.expand(x), LEAKY_SLOPE, inplace=True)
        hidden = F.leaky_relu(self.depthwise(hidden), LEAKY_SLOPE, inplace=True)
        return self.project(hidden)


def _dense_block(config: MesrganConfig) -> DenseBlock:
    channels = [config.features + i * config.growth for i in range(5)]
    out = [config.growth] * 4 + [config.features]
    layers: list[nn.Module] = [Bottleneck(c, o, config.expansion) for c, o in zip(channels, out, strict=True)]
    return DenseBlock(layers, activate=False)


class Mesrgan(Generator):
    """The generator; see `Generator` for its contract."""

    def __init__(self, config: MesrganConfig) -> None:
        super().__init__()
        self.config: MesrganConfig = config
        features = config.features
        self.normalise = Normalise()
        self.head = nn.Conv2d(3, features, 9, padding=4)
        self.trunk: nn.Module = nn.Sequential(*[_dense_block(config) for _ in range(config.blocks)])
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1)
        if config.light_upsampler:
            self.tail = nn.Conv2d(features, 3 * self.scale**2, 3, padding=1)
            self.bicubic = BicubicPhases(3, self.scale)
        else:
            self.upsampler = Upsampler(features)
            self.conv = nn.Conv2d(features, features, 3, padding=1)
            self.activation = nn.PReLU()
            self.tail = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        if self.config.light_upsampler:
            return F.pixel_shuffle(self.detail(rgb) + self.bicubic(rgb), self.scale)
        x = self.activation(self.conv(self.upsampler(self._features(rgb))))
        return self.normalise.undo(self.tail(x))

    def detail(self, rgb: Tensor) -> Tensor:
        """With the light upsampler: what is added to the bicubic enlargement, before its PixelShuffle."""
        return self.tail(self._features(rgb))

    def _features(self, rgb: Tensor) -> Tensor:
        x = self.head(self.normalise(rgb))
        # ESRGAN's residual-in-residual: the whole group is scaled once more.
        return x + self.trunk_conv(torch.add(x, self.trunk(x), alpha=0.2))

    @property
    def receptive_radius(self) -> int:
        """9x9 head, five 3x3 depthwise layers a block, trunk conv, and what the upsampler adds."""
        trunk = 4 + 5 * self.config.blocks + 1
        return trunk + (1 if self.config.light_upsampler else 3)

    @property
    def peak_values_per_pixel(self) -> int:
        widest = self.config.features + 4 * self.config.growth
        # A bottleneck's input, its concatenation, and two hidden layers; or the full upsampler at x4.
        dense = 2 * widest + 2 * self.config.expansion * widest + 2 * self.config.features
        return dense if self.config.light_upsampler else max(dense, 16 * 4 * self.config.features)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """He initialisation; projections and the last convolution start small, so that training
        starts near the bicubic enlargement instead of having to find it."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                linear = name.endswith("project") or name in ("trunk_conv", "head", "tail")
                gain = 0.5 if name.endswith("project") else 0.01 if name == "tail" else 1.0
                init_he(module, 1.0 if linear else LEAKY_SLOPE, gain, generator)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, PRELU_SLOPE)
        if not self.config.light_upsampler:
            carry_past_trunk(self.head, self.trunk_conv, self.upsampler, self.conv, self.tail, PRELU_SLOPE)


def recognise(tensors: Mapping[str, Tensor]) -> tuple[MesrganConfig, dict[str, Tensor]] | None:
    """The configuration and tensors of a state dict of this family, or None."""
    head, expand = tensors.get("head.weight"), tensors.get("trunk.0.layers.0.expand.weight")
    project = tensors.get("trunk.0.layers.0.project.weight")
    if head is None or expand is None or project is None:
        return None
    config = MesrganConfig(
        blocks=count_blocks(tensors, "trunk."),
        features=head.shape[0],
        growth=project.shape[0],
        expansion=max(1, expand.shape[0] // max(1, expand.shape[1])),
        light_upsampler="upsampler.convs.0.weight" not in tensors,
    )
    return config, dict(tensors)


PRESETS = {
    "mesrgan": MesrganConfig(),
    "mesrgan-poster": MesrganConfig(blocks=16, expansion=2, light_upsampler=False),
}
