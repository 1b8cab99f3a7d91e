"""MESRGAN ("mobile ESRGAN"): ESRGAN's dense blocks with MobileNetV2's bottleneck as their layers.

Eriksson and Löf, "Lightweight Super-Resolution"; bottleneck after Sandler et al. 2018 (MobileNetV2).
The preset `mesrgan-poster` is the network that their Table 1 timed (expansion 2, SRGAN's upsampler).
The preset `mesrgan` is ours: expansion 1, half the blocks, and a light upsampler that only adds
detail to the bicubic enlargement: a fifth of ESRGAN's multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models import base
from sr_cli.models.esrgan import DenseGenerator, EsrganConfig
from sr_cli.models.layers import BicubicPhases, DenseBlock, equal_subpixels

UPSAMPLERS = ("light", "single", "full")  #: See `MesrganConfig.upsampler`.

_LIGHT_WIDTH = 24  #: Channels of the light upsampler at twice the size.


@dataclass(frozen=True)
class MesrganConfig(EsrganConfig):
    """MESRGAN's configuration. Raises ValueError where a value makes no network."""

    family: ClassVar[str] = "mesrgan"

    blocks: int = 8  #: Dense blocks in the trunk.
    expansion: int = 1  #: Hidden channels of a bottleneck, as a multiple of its input channels.
    upsampler: str = "light"
    """`light`: conv3x3 to 96 channels, PixelShuffle(2), leaky ReLU, conv3x3 from 24 to 12, PixelShuffle(2), added to
    the bicubic enlargement. `single`, its first form: conv3x3 to 48, PixelShuffle(4), added likewise; it printed a 4x4
    screen of dots in GAN stages sooner. `full`: SRGAN's two stages at full width, without the bicubic enlargement."""

    def __post_init__(self) -> None:
        if self.upsampler not in UPSAMPLERS:
            raise ValueError(f"mesrgan: upsampler must be one of {', '.join(UPSAMPLERS)}, not {self.upsampler!r}")
        super().__post_init__()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the configuration from plain values; `light_upsampler` is how manifests named the first forms."""
        fields = dict(values)
        if "light_upsampler" in fields:
            fields["upsampler"] = "single" if fields.pop("light_upsampler") else "full"
        return cls(**fields)


class Bottleneck(nn.Module):
    """1x1 expand, leaky ReLU, 3x3 depthwise, leaky ReLU, linear 1x1 project: (N, c, H, W) to (N, o, H, W)."""

    def __init__(self, channels: int, out_channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: these layers are bound by memory traffic, not by arithmetic (docs/speed-log.md).
        hidden = F.leaky_relu(self.expand(x), base.LEAKY_SLOPE, inplace=True)
        hidden = F.leaky_relu(self.depthwise(hidden), base.LEAKY_SLOPE, inplace=True)
        return self.project(hidden)


def _dense_block(config: MesrganConfig) -> DenseBlock:
    channels = [config.features + i * config.growth for i in range(5)]
    out = [config.growth] * 4 + [config.features]
    layers: list[nn.Module] = [Bottleneck(c, o, config.expansion) for c, o in zip(channels, out, strict=True)]
    return DenseBlock(layers, activate=False)


class Mesrgan(DenseGenerator):
    """The generator; see `base.Generator` for its contract."""

    def __init__(self, config: MesrganConfig) -> None:
        features, full = config.features, config.upsampler == "full"
        super().__init__([_dense_block(config) for _ in range(config.blocks)], features, upsampler=full)
        self.config: MesrganConfig = config
        if config.upsampler == "light":
            first = nn.Conv2d(features, 4 * _LIGHT_WIDTH, 3, padding=1)
            self.tail = nn.ModuleList([first, nn.Conv2d(_LIGHT_WIDTH, 3 * 4, 3, padding=1)])
        elif config.upsampler == "single":
            self.tail = nn.Conv2d(features, 3 * self.scale**2, 3, padding=1)
        if not full:
            self.bicubic = BicubicPhases(3, self.scale)

    def forward(self, rgb: Tensor) -> Tensor:
        return super().forward(rgb) if self.config.upsampler == "full" else self.complete(rgb, self.detail(rgb))

    def detail(self, rgb: Tensor) -> Tensor:
        """Compute what is added to the bicubic enlargement, (N, 3, 4H, 4W); not for the full upsampler."""
        x = self.features(rgb)
        if isinstance(self.tail, nn.ModuleList):
            x = F.leaky_relu(F.pixel_shuffle(self.tail[0](x), 2), base.LEAKY_SLOPE)
            return F.pixel_shuffle(self.tail[1](x), 2)
        return F.pixel_shuffle(self.tail(x), self.scale)

    def complete(self, rgb: Tensor, detail: Tensor) -> Tensor:
        """Add `detail` to the bicubic enlargement of `rgb`: the output, (N, 3, 4H, 4W)."""
        return F.pixel_shuffle(self.bicubic(rgb), self.scale) + detail

    def shuffled_convs(self) -> list[tuple[nn.Conv2d, int]]:
        if self.config.upsampler == "full":
            return super().shuffled_convs()
        convs = self.tail if isinstance(self.tail, nn.ModuleList) else [self.tail]
        factor = 2 if len(convs) == 2 else self.scale
        return [(conv, factor) for conv in convs if isinstance(conv, nn.Conv2d)]

    @property
    def receptive_radius(self) -> int:
        """9x9 head, five 3x3 depthwise layers a block, trunk conv, and what the upsampler adds."""
        trunk = 4 + 5 * self.config.blocks + 1
        return trunk + {"light": 2, "single": 1, "full": 3}[self.config.upsampler]

    @property
    def peak_values_per_pixel(self) -> int:
        widest = self.config.features + 4 * self.config.growth
        # A bottleneck's input, its concatenation, and two hidden layers; or the full upsampler at x4.
        dense = 2 * widest + 2 * self.config.expansion * widest + 2 * self.config.features
        return max(dense, 16 * 4 * self.config.features) if self.config.upsampler == "full" else dense

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He's weights; projections and the last convolution start small.

        So training starts near the bicubic enlargement instead of having to find it.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                last = name in ("tail", "tail.1")
                linear = name.endswith("project") or name in ("trunk_conv", "head") or last
                gain = 0.5 if name.endswith("project") else 0.01 if last else 1.0
                base.init_he(module, 1.0 if linear else base.LEAKY_SLOPE, gain, generator)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, base.PRELU_SLOPE)
        if self.config.upsampler == "light":
            for conv, factor in self.shuffled_convs():
                equal_subpixels(conv, factor)
        if self.config.upsampler == "full":
            self.init_identity()


def recognise(shapes: base.Shapes) -> base.Recognised | None:
    """Recognise a state dict of this family by its names and shapes."""
    head = base.conv_shape(shapes, "head")
    expand, project = (base.conv_shape(shapes, f"trunk.0.layers.0.{name}") for name in ("expand", "project"))
    if head is None or expand is None or project is None:
        return None
    forms = {"upsampler.convs.0.weight": "full", "tail.0.weight": "light"}
    config = MesrganConfig(
        blocks=base.count_blocks(shapes, "trunk.", 30),
        features=head.out_channels,
        growth=project.out_channels,
        expansion=expand.out_channels // expand.in_channels,
        upsampler=next((form for name, form in forms.items() if name in shapes), "single"),
    )
    return base.own_names(config, shapes)


ARCHITECTURE = base.Architecture(MesrganConfig, Mesrgan, recognise)


def with_light_upsampler(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a `single` network's state dict in the `light` form: the same function up to rounding.

    The convolution to 48 channels is split over both stages. Each of its values passes the activation once as it is
    and once negated, and lrelu(v) - lrelu(-v) = (1 + slope) v.
    """
    light = {name: value for name, value in tensors.items() if not name.startswith("tail.")}
    # PixelShuffle(4) fills (2i + a, 2j + b); the two stages fill (i, j), then (a, b) within it.
    for part in ("weight", "bias"):
        whole = tensors[f"tail.{part}"]
        rest = whole.shape[1:]
        split = whole.reshape(3, 2, 2, 2, 2, *rest).transpose(2, 3)  # colour, i, a, j, b to colour, i, j, a, b
        split = split.movedim((3, 4), (1, 2)).reshape(12, 1, 4, *rest)
        light[f"tail.0.{part}"] = torch.cat([split, -split], 1).reshape(-1, *rest).contiguous()
    weight = torch.zeros(12, _LIGHT_WIDTH, 3, 3, dtype=tensors["tail.weight"].dtype)
    for channel in range(12):
        weight[channel, 2 * channel : 2 * channel + 2, 1, 1] = torch.tensor([1.0, -1.0]) / (1 + base.LEAKY_SLOPE)
    light["tail.1.weight"], light["tail.1.bias"] = weight, torch.zeros(12, dtype=weight.dtype)
    return light


PRESETS = {
    "mesrgan": MesrganConfig(),
    "mesrgan-poster": MesrganConfig(blocks=16, expansion=2, upsampler="full"),
}
