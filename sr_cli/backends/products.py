"""MESRGAN's trunk on a CPU: bottlenecks as matrix products between slices of one buffer.

All dense blocks work in one buffer of pixels, (H*W, 1 + B): a column of ones, the block's input, and what its
layers add. A layer reads the first columns and writes behind them, so that nothing is concatenated or copied, as
convolutions would need it. The ones bring in the biases of the expansions; those of the projections, which nothing
but sums follows, are carried on into the biases of whatever reads them. Speed and what was tried: docs/speed.md.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE
from sr_cli.models.layers import DenseBlock
from sr_cli.models.mesrgan import Bottleneck

_BAND_BYTES = 8 * 2**20
"""Of the hidden channels that are under way: what is written by one step is still in the cache for the next."""
_FEWEST_ROWS = 8


@dataclass(frozen=True)
class _Layer:
    """A bottleneck's weights; c input, h hidden, o output channels."""

    expand: Tensor
    """(1 + c, h): the bias, then the weights."""
    depthwise: Tensor
    """(h, 1, 3, 3)."""
    depthwise_bias: Tensor
    """(h,)."""
    project: Tensor
    """(h, o)."""


class Trunk(nn.Module):
    """A folded MESRGAN's dense blocks, one after the other: (N, features, H, W) to the same, fp32 on the CPU.

    Inference only; the blocks themselves are what it is held against.
    """

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks: list[list[_Layer]] = []
        carried: Tensor | float = 0.0
        for block in blocks.children():
            layers, carried = _layers(block, carried)
            self.blocks.append(layers)
        assert isinstance(carried, Tensor), "a trunk has blocks"
        self.bias = carried.float()
        self.columns = max(layer.expand.shape[0] for layers in self.blocks for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.channels_last)
        for picture, output in zip(x, result, strict=True):
            self._run(picture.permute(1, 2, 0), output.permute(1, 2, 0))
        return result

    def _run(self, x: Tensor, output: Tensor) -> None:
        """One picture, (H, W, features) to the same."""
        height, width, features = x.shape
        buffer = x.new_empty(height, width, self.columns)
        buffer[..., 0] = 1
        carried = buffer[..., 1 : 1 + features]
        carried.copy_(x)
        for layers in self.blocks:
            for layer in layers[:-1]:
                read, new = layer.expand.shape[0], layer.project.shape[1]
                for rows, hidden in _hidden(buffer[..., :read], layer):
                    torch.mm(hidden, layer.project, out=_pixels(buffer[rows, :, read : read + new]))
            for rows, hidden in _hidden(buffer, layers[-1]):
                sums = _pixels(carried[rows])
                torch.addmm(sums, hidden, layers[-1].project, out=sums)
        torch.add(carried, self.bias, out=output)


def _hidden(x: Tensor, layer: _Layer) -> Iterator[tuple[slice, Tensor]]:
    """Band by band, which rows they are and their hidden channels before the projection, (rows * W, h).

    `x` is (H, W, 1 + c), the ones first. A band's rows of `x` may be overwritten as soon as it has been given.
    """
    height, width, _ = x.shape
    channels = layer.expand.shape[1]
    rows = max(_FEWEST_ROWS, _BAND_BYTES // (width * channels * x.element_size()))
    rows = math.ceil(height / math.ceil(height / rows))
    # With the row above and the one below, which the depthwise layer looks at; beyond the picture they are zero.
    expanded = x.new_empty(rows + 2, width, channels)
    ready = 0
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        if top == 0:
            expanded[0] = 0
        else:
            expanded[:2] = expanded[rows:]
        end = min(bottom + 1, height)
        new = _pixels(expanded[ready - top + 1 : end - top + 1])
        torch.mm(_pixels(x[ready:end]), layer.expand, out=new)
        F.leaky_relu_(new, LEAKY_SLOPE)
        if bottom == height:
            expanded[bottom - top + 1] = 0
        ready = end
        yield slice(top, bottom), _depthwise(expanded[: bottom - top + 2], layer)


def _depthwise(expanded: Tensor, layer: _Layer) -> Tensor:
    """(rows + 2, W, h) to (rows * W, h), activated."""
    planes, channels = expanded[None].permute(0, 3, 1, 2), expanded.shape[2]
    weight, bias = layer.depthwise, layer.depthwise_bias
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # oneDNN's convolution with the activation in it, which torch.compile calls as well.
        convolution = torch.ops.mkldnn._convolution_pointwise
        result = convolution(planes, weight, bias, [0, 1], [1, 1], [1, 1], channels, "leaky_relu", [LEAKY_SLOPE], "")
    else:
        result = F.leaky_relu_(F.conv2d(planes, weight, bias, padding=(0, 1), groups=channels), LEAKY_SLOPE)
    return result.permute(0, 2, 3, 1).reshape(-1, channels)


def _pixels(x: Tensor) -> Tensor:
    """(H, W, C) as (H * W, C) in the same memory."""
    return x.view(-1, x.shape[-1])


def _layers(block: nn.Module, carried: Tensor | float) -> tuple[list[_Layer], Tensor]:
    """A block's weights where its input still lacks `carried`, and what its output lacks."""
    assert isinstance(block, DenseBlock) and block.residual_scaling == 1.0, "fold() comes first"
    first = block.layers[0]
    assert isinstance(first, Bottleneck)
    lacking = torch.zeros(first.expand.in_channels, dtype=torch.float64) + carried
    layers = []
    for layer in block.layers:
        assert isinstance(layer, Bottleneck)
        expand, expand_bias = _weights(layer.expand)
        depthwise, depthwise_bias = _weights(layer.depthwise)
        project, project_bias = _weights(layer.project)
        bias = expand_bias + expand @ lacking[: expand.shape[1]]
        layers.append(
            _Layer(
                torch.cat([bias[None], expand.t()]).float(),
                depthwise.reshape(layer.depthwise.weight.shape).float(),
                depthwise_bias.float(),
                project.t().float().contiguous(),
            )
        )
        if layer is not block.layers[-1]:
            lacking = torch.cat([lacking, project_bias])
    return layers, lacking[: len(project_bias)] + project_bias


def _weights(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A convolution's weights as a matrix, and its bias, in float64."""
    assert conv.bias is not None
    return conv.weight.detach().flatten(1).double(), conv.bias.detach().double()


_SLOWER = 1.3
"""How much longer a product may take than a convolution before what else it saves is lost (docs/speed.md)."""


@functools.cache
def repays() -> bool:
    """Whether this processor multiplies matrices about as fast as it convolves; measured once, in some 20 ms.

    torch leaves the one to MKL and the other to oneDNN. MKL has no AVX-512 for AMD's processors, oneDNN has.
    """
    random = torch.Generator().manual_seed(0)
    x = torch.rand(32 * 128, 161, generator=random)
    weight = torch.rand(160, 160, generator=random)
    planes = torch.rand(1, 160, 32, 128, generator=random).contiguous(memory_format=torch.channels_last)
    kernel = weight[:, :, None, None].contiguous(memory_format=torch.channels_last)
    matrix = torch.cat([weight[:1], weight])
    target = torch.empty(32 * 128, 160)

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def product() -> Tensor:
        return torch.mm(x, matrix, out=target)

    with torch.inference_mode():
        times = [(seconds(product), seconds(lambda: F.conv2d(planes, kernel))) for _ in range(8)]
    fastest = [min(column) for column in zip(*times, strict=True)]
    return fastest[0] < _SLOWER * fastest[1]
