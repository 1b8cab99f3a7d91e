"""MESRGAN's trunk for inference: all its dense blocks in one buffer, without a concatenation.

The buffer is (N, H, W, B). A bottleneck reads its first channels and writes after them, and the last one of a block
adds to them. What computes a bottleneck is another file's: `bottleneck_cpu`, `bottleneck_gpu` and the Triton kernels
of `bottleneck_kernels`. All are held against `models.mesrgan.Bottleneck`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sr_cli.models.layers import DenseBlock
from sr_cli.models.mesrgan import Bottleneck


@dataclass(frozen=True)
class BottleneckWeights:
    """One bottleneck's weights as matrices; c input, h hidden, o output channels."""

    expand: Tensor  #: (c, h).
    expand_bias: Tensor  #: (h,), fp32 like all biases.
    depthwise: Tensor  #: (9, h): the taps row by row.
    depthwise_bias: Tensor  #: (h,).
    project: Tensor  #: (h, o). Its bias is the trunk's, see `BufferedTrunk`.

    @staticmethod
    def of(layer: Bottleneck, dtype: torch.dtype) -> BottleneckWeights:
        """Take a layer's weights, in `dtype`, and its biases, in fp32."""
        assert layer.expand.bias is not None and layer.depthwise.bias is not None
        return BottleneckWeights(
            layer.expand.weight.detach().flatten(1).t().to(dtype).contiguous(),
            layer.expand.bias.detach().float(),
            layer.depthwise.weight.detach().flatten(1).t().to(dtype).contiguous(),
            layer.depthwise.bias.detach().float(),
            layer.project.weight.detach().flatten(1).t().to(dtype).contiguous(),
        )


class BufferedBottleneck(ABC):
    """A bottleneck that reads and writes the trunk's buffer, (N, H, W, B)."""

    ones = 0  #: Channels of ones that the buffer has before all others.

    def __init__(self, weights: BottleneckWeights) -> None:
        self.channels, self.hidden_channels = weights.expand.shape
        self.out_channels = weights.project.shape[1]

    @abstractmethod
    def append(self, buffer: Tensor) -> None:
        """Write the result after the channels that are read."""

    @abstractmethod
    def add(self, buffer: Tensor) -> None:
        """Add the result to the first channels."""


class BufferedTrunk(nn.Module):
    """A folded MESRGAN's dense blocks, one after the other: (N, features, H, W) to the same.

    They compute in `dtype`; input and output may be wider. Inference only. A projection is followed by nothing but
    sums, so its bias is carried on into the biases of whatever reads it, and what is left at the end is added there.
    """

    def __init__(self, blocks: nn.Module, dtype: torch.dtype, layer_type: type[BufferedBottleneck]) -> None:
        super().__init__()
        self.dtype = dtype
        self.blocks: list[list[BufferedBottleneck]] = []
        bias: Tensor | None = None
        for block in blocks.children():
            weights, bias = _carry_biases(block, bias, dtype)
            self.blocks.append([layer_type(of_layer) for of_layer in weights])
        assert bias is not None, "a trunk has blocks"
        self.bias = bias
        self.ones = layer_type.ones
        self.channels = self.ones + max(layer.channels for layers in self.blocks for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.channels_last)
        # One image's buffer may fit a processor's cache; a GPU wants the whole batch at once.
        together = 1 if x.device.type == "cpu" else max(1, x.shape[0])
        with torch.autocast(x.device.type, enabled=False):  # every step's type is fixed
            for part, output in zip(torch.split(x, together), torch.split(result, together), strict=True):
                self._run(part.permute(0, 2, 3, 1), output.permute(0, 2, 3, 1))
        return result

    def _run(self, x: Tensor, output: Tensor) -> None:
        """Compute (N, H, W, features) to the same."""
        buffer = x.new_empty(*x.shape[:3], self.channels, dtype=self.dtype)
        buffer[..., : self.ones] = 1
        carried = buffer[..., self.ones : self.ones + x.shape[3]]
        carried.copy_(x)
        for layers in self.blocks:
            for layer in layers[:-1]:
                layer.append(buffer)
            layers[-1].add(buffer)
        torch.add(carried, self.bias, out=output)


def _carry_biases(
    block: nn.Module, lacking: Tensor | None, dtype: torch.dtype
) -> tuple[list[BottleneckWeights], Tensor]:
    """Give a block's weights where its input lacks the bias `lacking`, and what its output then lacks, in fp32."""
    assert isinstance(block, DenseBlock) and block.residual_scaling == 1.0, "fold() comes first"
    weights: list[BottleneckWeights] = []
    biases: list[Tensor] = []
    for layer in block.layers:
        assert isinstance(layer, Bottleneck) and layer.project.bias is not None
        expand = layer.expand.weight.detach().flatten(1)
        if not biases:
            biases = [expand.new_zeros(expand.shape[1]) if lacking is None else lacking]
        own = BottleneckWeights.of(layer, dtype)
        weights.append(replace(own, expand_bias=own.expand_bias + (expand * torch.cat(biases)).sum(1)))
        biases.append(layer.project.bias.detach().float())
    return weights, biases[0] + biases[-1]
