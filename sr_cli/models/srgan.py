"""SRGAN's generator, also known as SRResNet (Ledig et al. 2017, fig. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sr_cli.models import base
from sr_cli.models.layers import IDENTITY_CHANNELS, Upsampler, fold_batchnorm, init_identity


@dataclass(frozen=True)
class SrganConfig(base.GeneratorConfig):
    """SRGAN's configuration. Raises ValueError where a value makes no network."""

    family: ClassVar[str] = "srgan"

    blocks: int = 16  #: Residual blocks in the trunk.
    features: int = 64  #: Channels throughout the trunk.


class ResidualBlock(nn.Module):
    """conv3x3, BatchNorm, PReLU, conv3x3, BatchNorm, added to the input: (N, features, H, W)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(features)
        self.activation = base.Prelu()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(y))

    def fold_(self) -> None:
        """Merge both BatchNorms into their convolutions."""
        self.norm1 = fold_batchnorm(self.conv1, self.norm1)
        self.norm2 = fold_batchnorm(self.conv2, self.norm2)


class Srgan(base.Generator):
    """The generator; see `base.Generator` for its contract."""

    def __init__(self, config: SrganConfig) -> None:
        super().__init__()
        self.config: SrganConfig = config
        features = config.features
        self.normalise = base.Normalise()
        self.head = nn.Conv2d(3, features, 9, padding=4)
        self.activation = base.Prelu()
        self.trunk = nn.Sequential(*[ResidualBlock(features) for _ in range(config.blocks)])
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.trunk_norm: nn.Module = nn.BatchNorm2d(features)
        self.upsampler = Upsampler(features)
        self.tail = nn.Conv2d(features, 3, 9, padding=4)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.activation(self.head(self.normalise(rgb)))
        x = x + self.trunk_norm(self.trunk_conv(self.trunk(x)))
        return self.normalise.undo(self.tail(self.upsampler(x)))

    def shuffled_convs(self) -> list[tuple[nn.Conv2d, int]]:
        return self.upsampler.shuffled_convs()

    @property
    def receptive_radius(self) -> int:
        """9x9 head, two 3x3 layers a block, trunk conv, 3x3 at x1 and x2, 9x9 at x4 (1.5 + 1 up)."""
        return 4 + 2 * self.config.blocks + 1 + 3

    def fold_(self) -> None:
        """Merge the trunk's last BatchNorm into its convolution."""
        self.trunk_norm = fold_batchnorm(self.trunk_conv, self.trunk_norm)

    @property
    def peak_values_per_pixel(self) -> int:
        # The upsampler's last stage: convolution output, its PixelShuffle and PReLU copies, at x4.
        return 16 * 4 * self.config.features + 4 * self.config.features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He's weights around a path that enlarges the image linearly, which training would have to find.

        The second BatchNorm of a block starts at 0.1, so that deep trunks start near the identity (Goyal et al. 2017,
        section 5.1, sets it to zero).
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                linear = name in ("head", "tail", "trunk_conv")
                base.init_he(module, 1.0 if linear else base.PRELU_SLOPE, 0.01 if name == "tail" else 1.0, generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                if name.endswith("norm2"):
                    nn.init.constant_(module.weight, 0.1)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, base.PRELU_SLOPE)
        assert isinstance(self.trunk_norm, nn.BatchNorm2d)
        nn.init.zeros_(self.trunk_norm.weight[:IDENTITY_CHANNELS])
        init_identity(self.head)
        self.upsampler.init_identity(base.PRELU_SLOPE)
        init_identity(self.tail, base.PRELU_SLOPE)


def recognise(shapes: base.Shapes) -> base.Recognised | None:
    """Recognise a state dict of this family by its names and shapes."""
    head = base.conv_shape(shapes, "head")
    if head is None or "trunk.0.norm1.weight" not in shapes:
        return None
    config = SrganConfig(blocks=base.count_blocks(shapes, "trunk.", 13), features=head.out_channels)
    return base.own_names(config, shapes)


ARCHITECTURE = base.Architecture(SrganConfig, Srgan, recognise)

PRESETS = {"srgan": SrganConfig()}
