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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE, RGB_MEAN, RGB_STD
from sr_cli.models.layers import DenseBlock, bicubic_phases
from sr_cli.models.mesrgan import Bottleneck, Mesrgan


@dataclass(frozen=True)
class _Values:
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
        source = [self.values[name] for name in names]
        matrix, offset = (torch.cat([getattr(values, part) for values in source]) for part in ("matrix", "bias"))
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

    def join(self, name: str, names: Iterable[str]) -> None:
        """Give several groups of channels, concatenated, one name."""
        values = [self.values[one] for one in names]
        self.values[name] = _Values(torch.cat([v.matrix for v in values]), torch.cat([v.bias for v in values]))

    def add(self, name: str, one: str, other: str) -> None:
        """Give the sum of two groups of channels a name."""
        first, second = self.values[one], self.values[other]
        self.values[name] = _Values(first.matrix + second.matrix, first.bias + second.bias)

    def layer(self, **parts: _Part) -> None:
        """Add a layer that gives these channels and nothing else."""
        self.layers.append(
            _Part(torch.cat([part.weight for part in parts.values()]), torch.cat([p.bias for p in parts.values()]))
        )
        self.slopes.append(torch.cat([torch.full((len(part.bias),), part.slope) for part in parts.values()]))
        width, start = len(self.layers[-1].bias), 0
        self.values = {}
        for name, part in parts.items():
            count = len(part.bias)
            rows = torch.eye(width, dtype=torch.float64)[start : start + count]
            self.values[name] = _Values(rows, torch.zeros(count, dtype=torch.float64))
            start += count

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
    stack.layer(z=stack.keep("z"), t=features)
    assert isinstance(generator.trunk, nn.Sequential)
    for block in generator.trunk:
        assert isinstance(block, DenseBlock)
        _dense_block(stack, block)
    # The head once more, so that its output need not be carried through the trunk.
    features = _features(stack, generator, "t")
    stack.layer(z=stack.keep("z"), t=stack.keep("t"), f=features)
    weight = generator.trunk_conv.weight.detach()
    assert generator.trunk_conv.bias is not None
    long_skip = stack.conv(["f"], weight, generator.trunk_conv.bias.detach()) + stack.keep("f")
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
        stack.layer(z=stack.keep("z"), **{name: stack.keep(name) for name in kept}, near=near)
    weight, bias = generator.head.weight.detach(), generator.head.bias
    assert bias is not None
    return stack.conv(["near"], _over_neighbours(weight, 3), bias.detach())


def _gather(stack: _Stack, radius: int) -> _Part:
    """Gather all pixels within `radius` of each, from those within one less: 3 channels each, row by row."""
    side = 2 * radius + 1
    identity = torch.eye(3 * side**2).reshape(3 * side**2, side**2, 3).transpose(1, 2).reshape(-1, 3, side, side)
    return stack.conv(["near" if radius > 1 else "z"], _over_neighbours(identity, radius - 1))


def _over_neighbours(weight: Tensor, radius: int) -> Tensor:
    """Build a convolution (n, 3, k, k) as one of 3x3 over the gathered pixels within `radius`, k = 2 * radius + 3."""
    side, reach = 2 * radius + 1, radius + 1
    result = torch.zeros(len(weight), side**2, 3, 3, 3, dtype=weight.dtype)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
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
        expand, depthwise, project = bottleneck.expand, bottleneck.depthwise, bottleneck.project
        assert expand.bias is not None and depthwise.bias is not None and project.bias is not None
        hidden = stack.conv(seen, expand.weight.detach(), expand.bias.detach(), LEAKY_SLOPE)
        stack.layer(**{name: stack.keep(name) for name in kept}, h=hidden)
        spread = torch.diag_embed(depthwise.weight.detach()[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
        hidden = stack.conv(["h"], spread, depthwise.bias.detach(), LEAKY_SLOPE)
        stack.layer(**{name: stack.keep(name) for name in kept}, h=hidden)
        matrix, bias = project.weight.detach()[:, :, 0, 0].double(), project.bias.detach().double()
        given = _Values(matrix @ stack.values["h"].matrix, bias)
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
    names = _lines(stack, "p", (1, 0), "u")
    stack.join("rows", names)
    names = _lines(stack, "rows", (0, 1), "u")
    stack.join("near", names)
    tail = generator.tail
    if isinstance(tail, nn.ModuleList):
        first, second = tail
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        assert first.bias is not None and second.bias is not None
        detail = stack.conv(["u"], first.weight.detach(), first.bias.detach(), LEAKY_SLOPE)
        stack.layer(near=stack.keep("near"), u=detail)
        weight, bias = _before_shuffles(second.weight.detach(), second.bias.detach())
    else:
        assert isinstance(tail, nn.Conv2d) and tail.bias is not None
        weight, bias = tail.weight.detach(), tail.bias.detach()
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
        parts = {name: stack.keep(name) for name in (*kept, "one", *names.values())}
        for sign in (-1, 1):
            source = names[sign * (distance - 1)]
            tap = torch.zeros(3, 3)
            tap[1 + sign * direction[0], 1 + sign * direction[1]] = 1.0
            parts[f"inside{sign}"] = stack.conv([source], identity[:, :, None, None] * tap)
            closed = stack.conv(["one"], -2.0 * tap.expand(len(identity), 1, 3, 3), slope=0.0)
            parts[f"outside{sign}"] = closed + stack.keep(source)
        stack.layer(**parts)
        for sign in (-1, 1):
            names[sign * distance] = f"{centre}{sign * distance:+}"
            stack.add(names[sign * distance], f"inside{sign}", f"outside{sign}")
    return [names[distance] for distance in range(-2, 3)]


def _before_shuffles(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a convolution between two PixelShuffle(2), (12, c, 3, 3), into one before one of 4, (48, 4c, 3, 3)."""
    channels = weight.shape[1]
    result = torch.zeros(3, 2, 2, 2, 2, channels, 2, 2, 3, 3, dtype=weight.dtype)
    theirs = weight.reshape(3, 2, 2, channels, 3, 3)
    for i in range(2):
        for j in range(2):
            for k in range(3):
                for m in range(3):
                    (dy, y), (dx, x) = divmod(i + k - 1, 2), divmod(j + m - 1, 2)
                    # Row 2i + a, column 2j + b of PixelShuffle(4) is row a, column b within pixel (i, j) of the first.
                    result[:, i, :, j, :, :, y, x, 1 + dy, 1 + dx] = theirs[..., k, m]
    biases = bias.reshape(3, 1, 2, 1, 2).expand(3, 2, 2, 2, 2)
    return result.reshape(48, 4 * channels, 3, 3), biases.reshape(-1)
