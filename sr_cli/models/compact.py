"""MESRGAN in the form of Real-ESRGAN's compact network, for programs that know that one and not ours.

SRVGGNetCompact (BasicSR; Wang et al. 2021, "Real-ESRGAN"): 3x3 convolutions and PReLUs of one width, PixelShuffle at
the end, added to the input's nearest enlargement. chaiNNer and ComfyUI open it (through spandrel), and any network
that works at low resolution can be written as one, exactly: a PReLU of slope 1 carries a channel on unchanged, 1x1 and
depthwise convolutions are 3x3 ones with zeros, and linear layers are multiplied into the next. The zeros are
computed as well: some 87 million multiplications an input pixel instead of 1.1 million.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE, RGB_MEAN, RGB_STD
from sr_cli.models.layers import DenseBlock, bicubic_phases
from sr_cli.models.mesrgan import Bottleneck, Mesrgan


class _Values(NamedTuple):
    """Channels as an affine function of those that the last layer gave: `matrix` (n, width) and `bias` (n)."""

    matrix: Tensor
    bias: Tensor


@dataclass(frozen=True)
class _Part:
    """Channels that the next layer shall give: weight (n, width, 3, 3), bias (n), and the PReLU's slope."""

    weight: Tensor
    bias: Tensor
    slope: float = 1.0

    def __add__(self, other: _Part) -> _Part:
        return _Part(self.weight + other.weight, self.bias + other.bias, self.slope)


class _Stack:
    """Layers so far, and what is known by name after the last: `z` the normalised image, `t` the trunk, ..."""

    def __init__(self) -> None:
        self.layers: list[_Part] = []
        self.slopes: list[Tensor] = []
        self.values = {"rgb": _Values(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))}

    def conv(self, names: Iterable[str], weight: Tensor, bias: Tensor | None = None, slope: float = 1.0) -> _Part:
        """Build a convolution (n, channels, 1 or 3, 1 or 3) of the named channels, concatenated."""
        matrix, offset = self.joined(names)
        weight = weight.double()
        if weight.shape[-1] == 1:
            weight = F.pad(weight, (1, 1, 1, 1))
        constant = weight.sum((2, 3)) @ offset
        return _Part(
            torch.einsum("ncij,cw->nwij", weight, matrix), constant if bias is None else constant + bias.double(), slope
        )

    def keep(self, name: str) -> _Part:
        """Keep the named channels as they are."""
        count = len(self.values[name].bias)
        return self.conv([name], torch.eye(count)[:, :, None, None])

    def joined(self, names: Iterable[str]) -> _Values:
        """Concatenate several groups of channels."""
        values = [self.values[name] for name in names]
        return _Values(torch.cat([v.matrix for v in values]), torch.cat([v.bias for v in values]))

    def layer(self, kept: Iterable[str] = (), **added: _Part) -> None:
        """Add a layer that keeps the named channels, gives further ones and nothing else."""
        parts = {**{name: self.keep(name) for name in kept}, **added}
        weight, bias = (torch.cat([getattr(part, name) for part in parts.values()]) for name in ("weight", "bias"))
        self.layers.append(_Part(weight, bias))
        self.slopes.append(torch.cat([torch.full((len(part.bias),), part.slope) for part in parts.values()]))
        rows = torch.split(torch.eye(len(bias)).double(), [len(part.bias) for part in parts.values()])
        self.values = {name: _Values(own, own.new_zeros(len(own))) for name, own in zip(parts, rows, strict=True)}

    def state_dict(self) -> dict[str, Tensor]:
        """Give all layers under BasicSR's names, padded with idle channels to one width. The last has no PReLU."""
        width = max(len(layer.bias) for layer in self.layers[:-1])
        state: dict[str, Tensor] = {}
        for index, (layer, slopes) in enumerate(zip(self.layers, self.slopes, strict=True)):
            first, last = index == 0, index == len(self.layers) - 1
            missing_in = 0 if first else width - layer.weight.shape[1]
            missing_out = 0 if last else width - len(layer.bias)
            state[f"body.{2 * index}.weight"] = F.pad(layer.weight, (0, 0, 0, 0, 0, missing_in, 0, missing_out)).float()
            state[f"body.{2 * index}.bias"] = F.pad(layer.bias, (0, missing_out)).float()
            if not last:
                state[f"body.{2 * index + 1}.weight"] = F.pad(slopes, (0, missing_out), value=1.0)
        return state


def _weights(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias, without gradients."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.weight.detach(), conv.bias.detach()


def to_compact(generator: Mesrgan) -> dict[str, Tensor]:
    """Compute the state dict of an SRVGGNetCompact of scale 4 that computes what `generator` does.

    Raises ValueError for the full upsampler, which works at 4 times the size.
    """
    if generator.config.upsampler == "full":
        raise ValueError("a MESRGAN with the full upsampler has no compact form")
    stack = _Stack()
    std, mean = torch.tensor(RGB_STD).double(), torch.tensor(RGB_MEAN).double()
    stack.layer(z=stack.conv(["rgb"], torch.diag(1 / std)[:, :, None, None], -mean / std))
    features = _features(stack, generator)
    stack.layer(["z"], t=features)
    assert isinstance(generator.trunk, nn.Sequential)
    for block in generator.trunk:
        assert isinstance(block, DenseBlock)
        _dense_block(stack, block)
    # The head once more, so that its output need not be carried through the trunk.
    features = _features(stack, generator, "t")
    stack.layer(["z", "t"], f=features)
    weight, bias = _weights(generator.trunk_conv)
    long_skip = stack.conv(["f"], weight, bias) + stack.keep("f")
    rgb = stack.conv(["z"], torch.diag(std)[:, :, None, None], mean)
    one = stack.conv(["z"], torch.zeros(1, 3, 1, 1), torch.ones(1))
    stack.layer(u=long_skip + stack.conv(["t"], 0.2 * weight), p=rgb, one=one)
    _end(stack, generator)
    return stack.state_dict()


def _features(stack: _Stack, generator: Mesrgan, *kept: str) -> _Part:
    """Build the 9x9 head: three layers gather the 7x7 neighbourhood of each pixel, the next convolution does the rest.

    The layers carry on the image and the channels that are `kept`.
    """
    for radius in (1, 2, 3):
        near = _gather(stack, radius)
        stack.layer(["z", *kept], near=near)
    weight, bias = _weights(generator.head)
    return stack.conv(["near"], _over_neighbours(weight, 3), bias)


def _gather(stack: _Stack, radius: int) -> _Part:
    """Gather all pixels within `radius` of each, from those within one less: 3 channels each, row by row."""
    side = 2 * radius + 1
    identity = torch.eye(3 * side**2).reshape(3 * side**2, side**2, 3).transpose(1, 2).reshape(-1, 3, side, side)
    return stack.conv(["near" if radius > 1 else "z"], _over_neighbours(identity, radius - 1))


def _over_neighbours(weight: Tensor, radius: int) -> Tensor:
    """Build a convolution (n, 3, k, k) as one of 3x3 over the gathered pixels within `radius`, k = 2 * radius + 3."""
    side, reach = 2 * radius + 1, radius + 1
    result = torch.zeros(len(weight), side**2, 3, 3, 3, dtype=weight.dtype)
    for dy, dx in product(range(-reach, reach + 1), repeat=2):
        y, x = max(-radius, min(radius, dy)), max(-radius, min(radius, dx))
        place = (y + radius) * side + x + radius
        result[:, place, :, 1 + dy - y, 1 + dx - x] = weight[:, :, dy + reach, dx + reach]
    return result.reshape(len(weight), -1, 3, 3)


def _dense_block(stack: _Stack, block: DenseBlock) -> None:
    """Add five bottlenecks, two layers each; what a bottleneck gives is multiplied into the layer after it."""
    seen = ["t"]
    for index, bottleneck in enumerate(block.layers):
        assert isinstance(bottleneck, Bottleneck)
        last = index == len(block.layers) - 1
        kept = ["z", "t"] if last else ["z", *seen]
        layers = (bottleneck.expand, bottleneck.depthwise, bottleneck.project)
        expand, (taps, bias), (matrix, offset) = (_weights(layer) for layer in layers)
        stack.layer(kept, h=stack.conv(seen, *expand, LEAKY_SLOPE))
        spread = torch.diag_embed(taps[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
        stack.layer(kept, h=stack.conv(["h"], spread, bias, LEAKY_SLOPE))
        given = _Values(matrix[:, :, 0, 0].double() @ stack.values["h"].matrix, offset.double())
        if last:
            t = stack.values["t"]
            scaling = block.residual_scaling
            stack.values["t"] = _Values(t.matrix + scaling * given.matrix, t.bias + scaling * given.bias)
        else:
            stack.values[f"d{index}"] = given
            seen.append(f"d{index}")


def _end(stack: _Stack, generator: Mesrgan) -> None:
    """Add the light upsampler, and bicubic less nearest enlargement, which the compact network adds itself."""
    scale = generator.scale
    stack.values["rows"] = stack.joined(_lines(stack, "p", (1, 0), "u"))
    stack.values["near"] = stack.joined(_lines(stack, "rows", (0, 1), "u"))
    tail = generator.tail
    if isinstance(tail, nn.ModuleList):
        first, second = (_weights(conv) for conv in tail)
        stack.layer(["near"], u=stack.conv(["u"], *first, LEAKY_SLOPE))
        weight, bias = _before_shuffles(*second)
    else:
        weight, bias = _weights(tail)
    enlarged = bicubic_phases(scale)[:, 0]
    enlarged[:, 2, 2] -= 1.0
    base = torch.zeros(3, scale**2, 5, 5, 3)  # colour, phase, column, row, colour
    for colour in range(3):
        base[colour, :, :, :, colour] = enlarged.transpose(1, 2)
    stack.layer(out=stack.conv(["u"], weight, bias) + stack.conv(["near"], base.reshape(-1, 75, 1, 1)))


def _lines(stack: _Stack, centre: str, direction: tuple[int, int], *kept: str) -> list[str]:
    """Gather the neighbours at -2 to 2 in a direction (rows, columns).

    Outside of the photo they are the nearest pixel, as it is there.

    `centre` has values in 0..1. The channel `one` is 1, and therefore 0 where a neighbour is outside: a PReLU of slope
    0 then lets through the pixel itself, to which the neighbour adds its zero.
    """
    identity = torch.eye(len(stack.values[centre].bias))
    names = {0: centre}
    for distance in (1, 2):
        parts: dict[str, _Part] = {}
        for sign in (-1, 1):
            source = names[sign * (distance - 1)]
            tap = torch.zeros(3, 3)
            tap[1 + sign * direction[0], 1 + sign * direction[1]] = 1.0
            parts[f"inside{sign}"] = stack.conv([source], identity[:, :, None, None] * tap)
            closed = stack.conv(["one"], -2.0 * tap.expand(len(identity), 1, 3, 3), slope=0.0)
            parts[f"outside{sign}"] = closed + stack.keep(source)
        stack.layer([*kept, "one", *names.values()], **parts)
        for sign in (-1, 1):
            inside, outside = stack.values[f"inside{sign}"], stack.values[f"outside{sign}"]
            names[sign * distance] = f"{centre}{sign * distance:+}"
            stack.values[names[sign * distance]] = _Values(inside.matrix + outside.matrix, inside.bias + outside.bias)
    return [names[distance] for distance in range(-2, 3)]


def _before_shuffles(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a convolution between two PixelShuffle(2), (12, c, 3, 3), into one before one of 4, (48, 4c, 3, 3)."""
    channels = weight.shape[1]
    result = torch.zeros(3, 2, 2, 2, 2, channels, 2, 2, 3, 3, dtype=weight.dtype)
    theirs = weight.reshape(3, 2, 2, channels, 3, 3)
    for i, j, k, m in product(range(2), range(2), range(3), range(3)):
        (dy, y), (dx, x) = divmod(i + k - 1, 2), divmod(j + m - 1, 2)
        # Row 2i + a, column 2j + b of PixelShuffle(4) is row a, column b within pixel (i, j) of the first.
        result[:, i, :, j, :, :, y, x, 1 + dy, 1 + dx] = theirs[..., k, m]
    biases = bias.reshape(3, 1, 2, 1, 2).expand(3, 2, 2, 2, 2)
    return result.reshape(48, 4 * channels, 3, 3), biases.reshape(-1)
