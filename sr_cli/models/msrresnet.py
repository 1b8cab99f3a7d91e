"""BasicSR's modified SRResNet: residual blocks without BatchNorm over bilinear enlargement.

For checkpoints of others. Lim et al. 2017 (EDSR), fig. 2c, for the block; Ledig et al. 2017 (SRGAN),
fig. 4, for the rest. Inputs are RGB in 0..1, not normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models import base

_SLOPE = 0.1


@dataclass(frozen=True)
class MsrresnetConfig(base.GeneratorConfig):
    """The network's configuration. Raises ValueError where a value makes no network."""

    family: ClassVar[str] = "msrresnet"

    blocks: int = 16  #: Residual blocks in the trunk.
    features: int = 64  #: Channels throughout the trunk.
    scale: int = 4  #: Factor between input and output: 2, 3 or 4.

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4):
            raise ValueError(f"msrresnet: scale must be 2, 3 or 4, not {self.scale}")
        super().__post_init__()


class ResidualBlock(nn.Module):
    """conv3x3, ReLU, conv3x3, added to the input: (N, features, H, W) in and out."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Msrresnet(base.Generator):
    """The generator; see `base.Generator` for its contract. Its layers keep BasicSR's names."""

    def __init__(self, config: MsrresnetConfig) -> None:
        super().__init__()
        self.config: MsrresnetConfig = config
        self.scale = config.scale
        features = config.features
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*[ResidualBlock(features) for _ in range(config.blocks)])
        step = 2 if config.scale == 4 else config.scale
        self.upconv1 = nn.Conv2d(features, features * step**2, 3, padding=1)
        if config.scale == 4:
            self.upconv2 = nn.Conv2d(features, features * step**2, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.body(F.leaky_relu(self.conv_first(rgb), _SLOPE))
        for conv in (self.upconv1, self.upconv2) if self.scale == 4 else (self.upconv1,):
            x = F.leaky_relu(F.pixel_shuffle(conv(x), 2 if self.scale == 4 else self.scale), _SLOPE)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), _SLOPE))
        return x + F.interpolate(rgb, scale_factor=self.scale, mode="bilinear", align_corners=False)

    @property
    def receptive_radius(self) -> int:
        """3x3 head, two 3x3 layers a block, 3x3 at x1, and at most 2 for what comes after."""
        return 1 + 2 * self.config.blocks + 1 + 2

    @property
    def peak_values_per_pixel(self) -> int:
        # The last stage: convolution output, its PixelShuffle and the activation's copy at full size.
        return 4 * self.config.features * self.scale**2 + 4 * self.config.features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He's weights, scaled by 0.1 in the residual blocks and the last convolution."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                base.init_he(module, 0.0, 0.1 if name.startswith("body.") or name == "conv_last" else 1.0, generator)


def recognise(shapes: base.Shapes) -> base.Recognised | None:
    """Recognise a state dict of this family by its names and shapes."""
    head, up = base.conv_shape(shapes, "conv_first"), base.conv_shape(shapes, "upconv1")
    if head is None or up is None or "body.0.conv1.weight" not in shapes or head.in_channels != 3:
        return None
    scale = 4 if "upconv2.weight" in shapes else math.isqrt(up.out_channels // up.in_channels)
    if scale not in (2, 3, 4):
        return None
    return base.own_names(MsrresnetConfig(base.count_blocks(shapes, "body.", 4), head.out_channels, scale), shapes)


ARCHITECTURE = base.Architecture(MsrresnetConfig, Msrresnet, recognise)
