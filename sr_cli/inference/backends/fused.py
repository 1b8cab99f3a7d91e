"""MESRGAN with its dense blocks in one buffer each and its bottlenecks in fused kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sr_cli.inference.backends import Network, eager
from sr_cli.inference.backends.bottleneck import BottleneckWeights, bottleneck_
from sr_cli.models import Generator
from sr_cli.models.layers import DenseBlock
from sr_cli.models.mesrgan import Bottleneck, Mesrgan


def prepare(folded: Generator, dtype: torch.dtype) -> Network:
    """The network in `dtype`, its trunk through `bottleneck_`; plain torch for a network without bottlenecks."""
    if not isinstance(folded, Mesrgan):
        return eager.prepare(folded, dtype)
    network = eager.in_precision(folded, dtype)
    assert isinstance(network, Mesrgan)
    trunk: nn.Module = _Trunk(network, dtype)
    network.trunk = trunk
    return network if dtype == torch.float32 else eager.autocast(network, dtype)


class _Trunk(nn.Module):
    """All dense blocks, one after the other in the same buffer: (N, features, H, W) to the same."""

    def __init__(self, network: Mesrgan, dtype: torch.dtype) -> None:
        super().__init__()
        self.blocks = [_weights(block, dtype) for block in network.trunk.children()]
        self.width = max(weights.expand.shape[0] for block in self.blocks for weights in block)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        count, features, height, width = x.shape
        buffer = torch.empty(count, height, width, self.width, dtype=self.dtype, device=x.device)
        buffer[..., :features] = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            for weights in block[:-1]:
                bottleneck_(buffer, weights, start=weights.expand.shape[0])
            bottleneck_(buffer, block[-1], start=0, residual=True)
        return buffer[..., :features].permute(0, 3, 1, 2)


def _weights(block: nn.Module, dtype: torch.dtype) -> list[BottleneckWeights]:
    assert isinstance(block, DenseBlock) and block.residual_scaling == 1.0, "fold() comes first"
    return [BottleneckWeights.of(layer, dtype) for layer in block.layers if isinstance(layer, Bottleneck)]
