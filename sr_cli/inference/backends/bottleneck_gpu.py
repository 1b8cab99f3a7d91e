"""MESRGAN's bottlenecks on a GPU in torch's own operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.inference.backends.bottleneck import BottleneckWeights, BufferedBottleneck
from sr_cli.models.base import LEAKY_SLOPE


class Products(BufferedBottleneck):
    """1x1 convolutions as matrix products, which read and write slices of the buffer; cuDNN would copy each slice."""

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        dtype = weights.expand.dtype
        self._expand, self._expand_bias = weights.expand, weights.expand_bias.to(dtype)
        self._depthwise = weights.depthwise.t().reshape(-1, 1, 3, 3)
        self._depthwise_bias = weights.depthwise_bias.to(dtype)
        self._project = weights.project

    def append(self, buffer: Tensor) -> None:
        out = buffer[..., self.channels : self.channels + self.out_channels]
        torch.mm(self._hidden(buffer), self._project, out=_pixels(out))

    def add(self, buffer: Tensor) -> None:
        _pixels(buffer[..., : self.out_channels]).addmm_(self._hidden(buffer), self._project)

    def _hidden(self, buffer: Tensor) -> Tensor:
        """Compute what is projected: (N, H, W, B) to (N * H * W, h)."""
        x = torch.addmm(self._expand_bias, _pixels(buffer[..., : self.channels]), self._expand)
        x = F.leaky_relu_(x, LEAKY_SLOPE).view(*buffer.shape[:3], -1).permute(0, 3, 1, 2)
        x = F.conv2d(x, self._depthwise, self._depthwise_bias, padding=1, groups=self.hidden_channels)
        return F.leaky_relu_(x, LEAKY_SLOPE).permute(0, 2, 3, 1).reshape(-1, self.hidden_channels)


def _pixels(x: Tensor) -> Tensor:
    """View (N, H, W, C) as (N * H * W, C)."""
    return x.view(-1, x.shape[-1])
