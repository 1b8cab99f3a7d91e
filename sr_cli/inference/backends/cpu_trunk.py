"""MESRGAN's trunk on a CPU: all dense blocks in one buffer, their bottlenecks in bands of rows.

The buffer holds pixels, (H, W, B): a block's input and what its layers add. A layer reads the first channels and
writes behind them, so that nothing is concatenated. It goes through the picture in bands, whose hidden channels are
still in the cache when the next step reads them. Biases of projections, which only sums follow, are carried on into
the biases of whatever reads them.

The 1x1 convolutions are matrix products between slices of the buffer where the processor is known to be as fast at
those, and convolutions, which want their input copied, elsewhere. Speed and what was tried: docs/speed.md.
"""

from __future__ import annotations

import math
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.inference.backends.bottleneck import BottleneckWeights
from sr_cli.models.base import LEAKY_SLOPE
from sr_cli.models.layers import DenseBlock
from sr_cli.models.mesrgan import Bottleneck

_BAND_BYTES = 8 * 2**20
"""Of the hidden channels under way. Smaller bands would fit more caches; each costs 0.1 ms of calls (docs/speed.md)."""
_FEWEST_ROWS = 8


class Trunk(nn.Module):
    """A folded MESRGAN's dense blocks, one after the other: (N, features, H, W) to the same.

    They compute in `dtype`; input and output may be wider. Inference only; the blocks themselves are what it is held
    against.
    """

    def __init__(self, blocks: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        layer_type: type[_Layer] = _Products if by_products(dtype) else _Convolutions
        self.dtype = dtype
        self.blocks: list[list[_Layer]] = []
        bias: Tensor | None = None
        for block in blocks.children():
            layers, bias = _layers(block, bias, layer_type, dtype)
            self.blocks.append(layers)
        assert bias is not None, "a trunk has blocks"
        self.bias = bias
        self.ones = layer_type.ones
        self.channels = self.ones + max(layer.channels for layers in self.blocks for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.channels_last)
        with torch.autocast(x.device.type, enabled=False):  # every step's type is fixed
            for picture, output in zip(x, result, strict=True):
                self._run(picture.permute(1, 2, 0), output.permute(1, 2, 0))
        return result

    def _run(self, x: Tensor, output: Tensor) -> None:
        """One picture, (H, W, features) to the same."""
        height, width, features = x.shape
        buffer = x.new_empty(height, width, self.channels, dtype=self.dtype)
        buffer[..., : self.ones] = 1
        carried = buffer[..., self.ones : self.ones + features]
        carried.copy_(x)
        for layers in self.blocks:
            for layer in layers[:-1]:
                end = self.ones + layer.channels
                for rows, hidden in _hidden(buffer[..., :end], layer):
                    layer.project(hidden, buffer[rows, :, end : end + layer.out_channels])
            for rows, hidden in _hidden(buffer, layers[-1]):
                layers[-1].add_projection(hidden, carried[rows])
        torch.add(carried, self.bias, out=output)


class _Layer(ABC):
    """A bottleneck's weights and how its steps are computed, on (rows, W, channels)."""

    ones = 0
    """Channels of the buffer before the picture's own that hold ones."""

    def __init__(self, weights: BottleneckWeights) -> None:
        self.channels, self.hidden_channels = weights.expand.shape
        self.out_channels = weights.project.shape[1]
        dtype = weights.expand.dtype
        self.depthwise = weights.depthwise.t().reshape(-1, 1, 3, 3)
        self.depthwise_bias = weights.depthwise_bias.to(dtype)

    @abstractmethod
    def expand(self, x: Tensor, out: Tensor) -> None:
        """Fills `out` with the hidden channels of `x`, activated. `x` begins with its ones."""

    @abstractmethod
    def project(self, hidden: Tensor, out: Tensor) -> None:
        """Fills `out` with the layer's result, without its bias."""

    @abstractmethod
    def add_projection(self, hidden: Tensor, out: Tensor) -> None:
        """Adds to `out` what `project` would fill it with."""

    def filter(self, expanded: Tensor) -> Tensor:
        """The depthwise layer, activated: (rows + 2, W, h) to (rows, W, h)."""
        x, weight, bias, groups = _planes(expanded), self.depthwise, self.depthwise_bias, self.hidden_channels
        if x.dtype == torch.float32 and _has_onednn():
            # oneDNN's convolution with the activation in it, which torch.compile calls as well.
            convolution = torch.ops.mkldnn._convolution_pointwise
            y = convolution(x, weight, bias, [0, 1], [1, 1], [1, 1], groups, "leaky_relu", [LEAKY_SLOPE], "")
        else:
            y = F.leaky_relu_(F.conv2d(x, weight, bias, padding=(0, 1), groups=groups), LEAKY_SLOPE)
        return y[0].permute(1, 2, 0)


class _Products(_Layer):
    """As matrix products, which read and write the buffer where it lies. The ones multiply the bias."""

    ones = 1

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        self._expand = torch.cat([weights.expand_bias[None].to(weights.expand.dtype), weights.expand])
        self._project = weights.project

    def expand(self, x: Tensor, out: Tensor) -> None:
        torch.mm(_pixels(x), self._expand, out=_pixels(out))
        F.leaky_relu_(out, LEAKY_SLOPE)

    def project(self, hidden: Tensor, out: Tensor) -> None:
        torch.mm(_pixels(hidden), self._project, out=_pixels(out))

    def add_projection(self, hidden: Tensor, out: Tensor) -> None:
        _pixels(out).addmm_(_pixels(hidden), self._project)


class _Convolutions(_Layer):
    """As convolutions; torch copies a slice of the buffer before it convolves it."""

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        self._expand, self._expand_bias = _kernel(weights.expand), weights.expand_bias.to(weights.expand.dtype)
        self._project = _kernel(weights.project)

    def expand(self, x: Tensor, out: Tensor) -> None:
        hidden = F.conv2d(_planes(x), self._expand, self._expand_bias)
        torch.ops.aten.leaky_relu.out(hidden, LEAKY_SLOPE, out=_planes(out))

    def project(self, hidden: Tensor, out: Tensor) -> None:
        _planes(out).copy_(F.conv2d(_planes(hidden), self._project))

    def add_projection(self, hidden: Tensor, out: Tensor) -> None:
        _planes(out).add_(F.conv2d(_planes(hidden), self._project))


def _hidden(x: Tensor, layer: _Layer) -> Iterator[tuple[slice, Tensor]]:
    """Band by band, which rows they are and their hidden channels before the projection, (rows, W, h).

    `x` is (H, W, c). A band's rows of `x` may be overwritten as soon as it has been given.
    """
    height, width, _ = x.shape
    rows = max(_FEWEST_ROWS, _BAND_BYTES // (width * layer.hidden_channels * x.element_size()))
    rows = math.ceil(height / math.ceil(height / rows))
    # With the row above and the one below, which the depthwise layer looks at; beyond the picture they are zero.
    expanded = x.new_empty(rows + 2, width, layer.hidden_channels)
    ready = 0
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        expanded[:2] = 0 if top == 0 else expanded[rows:]
        end = min(bottom + 1, height)
        if ready < end:
            layer.expand(x[ready:end], expanded[ready - top + 1 : end - top + 1])
        if bottom == height:
            expanded[bottom - top + 1] = 0
        ready = end
        yield slice(top, bottom), layer.filter(expanded[: bottom - top + 2])


def _pixels(x: Tensor) -> Tensor:
    """(H, W, C) as (H * W, C) in the same memory."""
    return x.view(-1, x.shape[-1])


def _planes(x: Tensor) -> Tensor:
    """(H, W, C) as (1, C, H, W) in the same memory."""
    return x[None].permute(0, 3, 1, 2)


def _kernel(matrix: Tensor) -> Tensor:
    """(c, o) as the weights of a 1x1 convolution."""
    return matrix.t()[:, :, None, None].contiguous(memory_format=torch.channels_last)


def _layers(
    block: nn.Module, carried: Tensor | None, layer_type: type[_Layer], dtype: torch.dtype
) -> tuple[list[_Layer], Tensor]:
    """A block's layers where its input still lacks the bias `carried`, and what its output then lacks, in fp32."""
    assert isinstance(block, DenseBlock) and block.residual_scaling == 1.0, "fold() comes first"
    layers: list[_Layer] = []
    lacking: list[Tensor] = []
    for layer in block.layers:
        assert isinstance(layer, Bottleneck)
        weights = BottleneckWeights.of(layer, dtype)
        expand = layer.expand.weight.detach().flatten(1)
        if not layers:
            lacking = [expand.new_zeros(expand.shape[1]) if carried is None else carried]
        bias = weights.expand_bias + (expand * torch.cat(lacking)).sum(1)
        layers.append(layer_type(replace(weights, expand_bias=bias)))
        lacking.append(weights.project_bias)
    return layers, lacking[0] + lacking[-1]


def by_products(dtype: torch.dtype) -> bool:
    """Whether 1x1 convolutions are computed as matrix products: in fp32, by the fast MKL of Intel's processors.

    torch leaves products to MKL and convolutions to oneDNN, and MKL has no AVX-512 for other makers' processors,
    oneDNN has (docs/speed.md). A rule and no measurement: the same machine must give the same picture every time.
    """
    return dtype == torch.float32 and _has_mkl() and "GenuineIntel" in _processor_maker()


def _processor_maker() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()[:1000]
    except OSError:
        return platform.processor()  # on Windows it ends with the maker


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()  # type: ignore[no-untyped-call]


def _has_mkl() -> bool:
    return torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
