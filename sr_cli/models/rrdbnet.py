"""The RRDB network that ESRGAN's authors published, and most checkpoints of others are made of.

Wang et al. 2018 (ESRGAN), fig. 4: residual-in-residual groups of three dense blocks. Enlargement is by
nearest neighbour and convolution, once per factor of 2. Networks for scale 2 and 1 come in two kinds:
with fewer enlargements, or with the input's pixels folded into channels first (Real-ESRGAN, Wang et al.
2021, section 3.2). Inputs are RGB in 0..1, not normalised.

Three ways to name the tensors are in circulation: BasicSR's (`conv_first`, `body.0.rdb1.conv1`), its
predecessor's (`RRDB_trunk.0.RDB1.conv1`) and that of the original code (`model.1.sub.0.RDB1.conv1.0`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models import base
from sr_cli.models.esrgan import dense_block


@dataclass(frozen=True)
class RrdbnetConfig(base.GeneratorConfig):
    """The published network's configuration. Raises ValueError where a value makes no network."""

    family: ClassVar[str] = "rrdbnet"

    blocks: int = 23  #: Groups of three dense blocks in the trunk.
    features: int = 64  #: Channels between the blocks.
    growth: int = 32  #: Channels that each layer of a dense block adds.
    scale: int = 4  #: Factor between input and output: a power of 2.
    unshuffle: int = 1
    """Factor by which the input's pixels are folded into channels before the first convolution: 1, 2 or 4."""

    def __post_init__(self) -> None:
        if self.scale not in (1, 2, 4, 8, 16):
            raise ValueError(f"rrdbnet: scale must be 1, 2, 4, 8 or 16, not {self.scale}")
        if self.unshuffle not in (1, 2, 4):
            raise ValueError(f"rrdbnet: unshuffle must be 1, 2 or 4, not {self.unshuffle}")
        super().__post_init__()

    @property
    def doublings(self) -> int:
        """How often the trunk's output is enlarged by 2."""
        return int(math.log2(self.scale * self.unshuffle))


class Group(nn.Sequential):
    """Three dense blocks, their result scaled and added to the input: (N, features, H, W) in and out."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__(*[dense_block(features, growth) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self:
            y = block(y)
        return torch.add(x, y, alpha=0.2)


class Rrdbnet(base.Generator):
    """The generator; see `base.Generator` for its contract."""

    def __init__(self, config: RrdbnetConfig) -> None:
        super().__init__()
        self.config: RrdbnetConfig = config
        self.scale = config.scale
        self.alignment = config.unshuffle
        self.traceable = config.unshuffle == 1
        features = config.features
        self.head = nn.Conv2d(3 * config.unshuffle**2, features, 3, padding=1)
        self.trunk = nn.Sequential(*[Group(features, config.growth) for _ in range(config.blocks)])
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = nn.ModuleList([nn.Conv2d(features, features, 3, padding=1) for _ in range(config.doublings)])
        self.conv = nn.Conv2d(features, features, 3, padding=1)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.head(self._unshuffle(rgb))
        x = x + self.trunk_conv(self.trunk(x))
        for conv in self.upsampler:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), base.LEAKY_SLOPE)
        x = self.tail(F.leaky_relu(self.conv(x), base.LEAKY_SLOPE))
        if self.config.unshuffle == 1:
            return x
        height, width = rgb.shape[-2:]
        return x[..., : height * self.scale, : width * self.scale]

    def _unshuffle(self, rgb: Tensor) -> Tensor:
        """Fold the input's pixels into channels, padded by replication where its sides are no multiple."""
        factor = self.config.unshuffle
        if factor == 1:
            return rgb
        bottom, right = (-side % factor for side in rgb.shape[-2:])
        return F.pixel_unshuffle(F.pad(rgb, (0, right, 0, bottom), mode="replicate"), factor)

    @property
    def receptive_radius(self) -> int:
        """3x3 head, 15 3x3 layers a group, trunk conv; what comes after sees 2 pixels of the trunk's."""
        trunk = 1 + 15 * self.config.blocks + 1 + 2
        return trunk * self.config.unshuffle + self.config.unshuffle - 1

    @property
    def peak_values_per_pixel(self) -> int:
        # A dense block with its concatenation; or convolution output, its copy and the next input at full size.
        config = self.config
        dense = (2 * (config.features + 4 * config.growth) + 4 * config.features) // config.unshuffle**2
        return max(dense, 4 * config.features * config.scale**2) + 2 * config.features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He's weights, scaled by 0.1 in the dense blocks (ESRGAN, section 3.1: "smaller initialization")."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                base.init_he(module, base.LEAKY_SLOPE, 0.1 if ".layers." in name else 1.0, generator)


# BasicSR's names of the layers outside the trunk, and its predecessor's names in terms of BasicSR's.
_BASICSR = {"conv_first": "head", "conv_body": "trunk_conv", "conv_hr": "conv", "conv_last": "tail"}
_BASICSR |= {f"conv_up{i + 1}": f"upsampler.{i}" for i in range(8)}
_OLDER = {"RRDB_trunk.": "body.", ".RDB": ".rdb", "trunk_conv": "conv_body", "upconv": "conv_up", "HRconv": "conv_hr"}


def to_basicsr(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of ours to BasicSR's names."""
    theirs = {ours: name for name, ours in _BASICSR.items()}

    def rename(key: str) -> str:
        stem, _, kind = key.rpartition(".")
        if match := re.fullmatch(r"trunk\.(\d+)\.(\d+)\.layers\.(\d+)", stem):
            group, block, layer = map(int, match.groups())
            return f"body.{group}.rdb{block + 1}.conv{layer + 1}.{kind}"
        return f"{theirs[stem]}.{kind}"

    return {rename(key): value for key, value in tensors.items()}


def _ours(key: str, trunk: str, others: Mapping[str, str]) -> str:
    """Return our name of a tensor, whose layer has a name in the pattern `trunk` or is one of the `others`."""
    stem, _, kind = key.rpartition(".")
    if match := re.fullmatch(trunk, stem):
        group, block, layer = map(int, match.groups())
        return f"trunk.{group}.{block - 1}.layers.{layer - 1}.{kind}"
    return f"{others[stem]}.{kind}" if stem in others else key


def _from_basicsr(key: str) -> str:
    """Return our name of a tensor that has BasicSR's or its predecessor's."""
    for older, newer in _OLDER.items():
        key = key.replace(older, newer)
    return _ours(key, r"body\.(\d+)\.rdb(\d+)\.conv(\d+)", _BASICSR)


def _from_original(shapes: base.Shapes) -> dict[str, str]:
    """Return our names of tensors that have the original code's.

    That is one sequence, in which activations and enlargements count.
    """
    last = max((int(match[1]) for key in shapes if (match := re.match(r"model\.(\d+)\.", key))), default=0)
    blocks = len({key.split(".")[3] for key in shapes if key.startswith("model.1.sub.")}) - 1
    names = {
        "model.0": "head",
        f"model.1.sub.{blocks}": "trunk_conv",
        f"model.{last - 2}": "conv",
        f"model.{last}": "tail",
    }
    # The sequence holds a number for each tensor at most, whatever its last one says.
    names |= {f"model.{3 * i + 3}": f"upsampler.{i}" for i in range(min(last - 4, len(shapes)) // 3)}
    return {key: _ours(key, r"model\.1\.sub\.(\d+)\.RDB(\d+)\.conv(\d+)\.0", names) for key in shapes}


def _our_names(shapes: base.Shapes) -> dict[str, str]:
    """Return our name of each tensor, in whichever of the styles the file names them."""
    if "model.1.sub.0.RDB1.conv1.0.weight" in shapes:
        return _from_original(shapes)
    if "conv_first.weight" in shapes and (
        "body.0.rdb1.conv1.weight" in shapes or "RRDB_trunk.0.RDB1.conv1.weight" in shapes
    ):
        return {key: _from_basicsr(key) for key in shapes}
    return {key: key for key in shapes}


def recognise(shapes: base.Shapes) -> base.Recognised | None:
    """Recognise a state dict of this family by its names, in any style, and shapes."""
    names = _our_names(shapes)
    renamed = {names[key]: shape for key, shape in shapes.items()}
    head, layer = base.conv_shape(renamed, "head"), base.conv_shape(renamed, "trunk.0.0.layers.0")
    if head is None or layer is None:
        return None
    unshuffle = math.isqrt(head.in_channels // 3)
    doublings = base.count_blocks(renamed, "upsampler.", 2)
    if (
        head.in_channels != 3 * unshuffle**2
        or unshuffle not in (1, 2, 4)
        or not unshuffle <= 2**doublings <= 16 * unshuffle
    ):
        return None
    config = RrdbnetConfig(
        blocks=base.count_blocks(renamed, "trunk.", 30),
        features=head.out_channels,
        growth=layer.out_channels,
        scale=2**doublings // unshuffle,
        unshuffle=unshuffle,
    )
    return base.Recognised(config, names)


ARCHITECTURE = base.Architecture(RrdbnetConfig, Rrdbnet, recognise)
