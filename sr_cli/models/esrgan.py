"""ESRGAN's generator as Eriksson and Löf have it: one residual-in-residual group of dense blocks.

Wang et al. 2018 (ESRGAN), fig. 4, for the dense block; 9x9 head, upsampler and long skip as in SRGAN.
The RRDB network that ESRGAN's authors published is in `rrdbnet.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sr_cli.models import base
from sr_cli.models.layers import IDENTITY_CHANNELS, DenseBlock, Upsampler, init_identity


@dataclass(frozen=True)
class EsrganConfig(base.GeneratorConfig):
    """ESRGAN's configuration. Raises ValueError where a value makes no network."""

    family: ClassVar[str] = "esrgan"

    blocks: int = 16  #: Dense blocks in the trunk.
    features: int = 64  #: Channels between the blocks.
    growth: int = 32  #: Channels that each layer of a dense block adds.


def dense_block(features: int, growth: int) -> DenseBlock:
    """Build ESRGAN's dense block of five 3x3 convolutions."""
    layers: list[nn.Module] = [
        nn.Conv2d(features + i * growth, growth if i < 4 else features, 3, padding=1) for i in range(5)
    ]
    return DenseBlock(layers, activate=True)


class DenseGenerator(base.Generator):
    """ESRGAN's generator over any dense blocks; with `upsampler` False, what there is of it before the upsampler."""

    def __init__(self, blocks: list[DenseBlock], features: int, upsampler: bool = True) -> None:
        super().__init__()
        self.normalise = base.Normalise()
        self.head = nn.Conv2d(3, features, 9, padding=4)
        self.trunk: nn.Module = nn.Sequential(*blocks)
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1)
        self.tail: nn.Module
        if upsampler:
            self.upsampler = Upsampler(features)
            self.conv = nn.Conv2d(features, features, 3, padding=1)
            self.activation = base.Prelu()
            self.tail = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.activation(self.conv(self.upsampler(self.features(rgb))))
        return self.normalise.undo(self.tail(x))

    def features(self, rgb: Tensor) -> Tensor:
        """Compute what the upsampler enlarges, (N, features, H, W)."""
        x = self.head(self.normalise(rgb))
        # Residual in residual: the whole group is scaled once more.
        return x + self.trunk_conv(torch.add(x, self.trunk(x), alpha=0.2))

    def shuffled_convs(self) -> list[tuple[nn.Conv2d, int]]:
        return self.upsampler.shuffled_convs()

    def init_identity(self) -> None:
        """Pass the image, see `layers.init_identity`; the trunk adds nothing to its channels."""
        assert isinstance(self.tail, nn.Conv2d)
        nn.init.zeros_(self.trunk_conv.weight[:IDENTITY_CHANNELS])
        init_identity(self.head)
        self.upsampler.init_identity(slope=1.0)  # activations begin after its first convolution
        init_identity(self.conv, base.PRELU_SLOPE)
        init_identity(self.tail, base.PRELU_SLOPE)


class Esrgan(DenseGenerator):
    """The generator; see `base.Generator` for its contract."""

    def __init__(self, config: EsrganConfig) -> None:
        super().__init__([dense_block(config.features, config.growth) for _ in range(config.blocks)], config.features)
        self.config: EsrganConfig = config

    @property
    def receptive_radius(self) -> int:
        """9x9 head, five 3x3 layers a block, trunk conv, 3x3 at x1, at x2 and twice at x4 (1 + 1 up)."""
        return 4 + 5 * self.config.blocks + 1 + 3

    @property
    def peak_values_per_pixel(self) -> int:
        # Convolution output, its copy and the next layer's input at x4, with 64 features each.
        return 16 * 4 * self.config.features + 4 * self.config.features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He's weights around a path that enlarges the image linearly, which training would have to find.

        Those of each block's last layer are scaled by 0.5.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                last = name.endswith("layers.4")
                linear = name in ("head", "tail", "trunk_conv") or last
                gain = 0.5 if last else 0.01 if name == "tail" else 1.0
                base.init_he(module, 1.0 if linear else base.LEAKY_SLOPE, gain, generator)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, base.PRELU_SLOPE)
        self.init_identity()


def recognise(shapes: base.Shapes) -> base.Recognised | None:
    """Recognise a state dict of this family by its names and shapes."""
    head, layer = base.conv_shape(shapes, "head"), base.conv_shape(shapes, "trunk.0.layers.0")
    if head is None or layer is None:
        return None
    blocks = base.count_blocks(shapes, "trunk.", 10)
    return base.own_names(EsrganConfig(blocks, features=head.out_channels, growth=layer.out_channels), shapes)


ARCHITECTURE = base.Architecture(EsrganConfig, Esrgan, recognise)

PRESETS = {"esrgan": EsrganConfig()}
