"""MESRGAN's bottleneck writing into its dense block's buffer: one function, in torch and in Triton.

A dense block's features live in one buffer (N, H, W, B), so that nothing is ever concatenated: the layer
reads its first c channels and writes its output behind them. On a GPU two kernels do it: one expands (a
matrix product over pixels) and activates; the other applies the depthwise 3x3 convolution to what it
loads, activates, projects, and writes the result into the buffer. The hidden channels cross the memory bus
twice (written once, read once, its neighbours from cache) instead of the ten times of separate operations.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.models.base import LEAKY_SLOPE
from sr_cli.models.mesrgan import Bottleneck


@dataclass(frozen=True)
class BottleneckWeights:
    """One bottleneck's weights as the kernels read them; c input, h hidden, o output channels."""

    expand: Tensor
    """(c, h)."""
    expand_bias: Tensor
    """(h,), fp32 like all biases."""
    depthwise: Tensor
    """(9, h): the taps row by row."""
    depthwise_bias: Tensor
    """(h,)."""
    project: Tensor
    """(h, o)."""
    project_bias: Tensor
    """(o,)."""

    @staticmethod
    def of(layer: Bottleneck, dtype: torch.dtype) -> BottleneckWeights:
        """A layer's weights in `dtype`, its biases in fp32."""
        biases = (layer.expand.bias, layer.depthwise.bias, layer.project.bias)
        b1, b2, b3 = (bias.detach().float() for bias in biases if bias is not None)
        return BottleneckWeights(
            layer.expand.weight.detach().flatten(1).t().to(dtype).contiguous(),
            b1,
            layer.depthwise.weight.detach().flatten(1).t().to(dtype).contiguous(),
            b2,
            layer.project.weight.detach().flatten(1).t().to(dtype).contiguous(),
            b3,
        )


def bottleneck_(buffer: Tensor, weights: BottleneckWeights, start: int, residual: bool = False) -> None:
    """Reads channels 0..c of `buffer` (N, H, W, B) and writes o channels from `start` on.

    With `residual` the result is added to what is there. `buffer` is contiguous. Raises ValueError where
    the channels do not fit.
    """
    channels, out = weights.expand.shape[0], weights.project.shape[1]
    if not buffer.is_contiguous() or max(channels, start + out) > buffer.shape[3]:
        raise ValueError(f"{channels} channels in, {out} out at {start} do not fit into {tuple(buffer.shape)}")
    if start < channels and not residual:
        raise ValueError("a layer must not overwrite what its neighbours' pixels still read")
    if has_kernels(buffer.device):
        from sr_cli.inference.backends import bottleneck_kernels

        bottleneck_kernels.run(buffer, weights, start, residual)
    else:
        reference_(buffer, weights, start, residual)


def reference_(buffer: Tensor, weights: BottleneckWeights, start: int, residual: bool = False) -> None:
    """What `bottleneck_` does, in plain torch: the definition that the kernels are held against."""
    channels, hidden_channels = weights.expand.shape
    dtype = weights.expand.dtype
    x = buffer[..., :channels].permute(0, 3, 1, 2)
    expand = weights.expand.t()[:, :, None, None]
    depthwise = weights.depthwise.t().reshape(hidden_channels, 1, 3, 3)
    project = weights.project.t()[:, :, None, None]
    hidden = F.leaky_relu(F.conv2d(x, expand, weights.expand_bias.to(dtype)), LEAKY_SLOPE)
    hidden = F.conv2d(hidden, depthwise, weights.depthwise_bias.to(dtype), padding=1, groups=hidden_channels)
    y = F.conv2d(F.leaky_relu(hidden, LEAKY_SLOPE), project, weights.project_bias.to(dtype)).permute(0, 2, 3, 1)
    target = buffer[..., start : start + project.shape[0]]
    target.copy_(target + y if residual else y)


def has_kernels(device: torch.device) -> bool:
    """Whether Triton can run them: on CUDA, or anywhere in its interpreter (TRITON_INTERPRET=1)."""
    return find_spec("triton") is not None and (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
