"""torch itself, operation by operation."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.inference.backends import bottleneck_cpu, bottleneck_gpu
from sr_cli.inference.backends.base import Forward
from sr_cli.inference.backends.bottleneck import BufferedTrunk
from sr_cli.models import Generator
from sr_cli.models.base import LEAKY_SLOPE
from sr_cli.models.layers import DenseBlock
from sr_cli.models.mesrgan import Mesrgan


def in_precision(folded: Generator, dtype: torch.dtype) -> Generator:
    """Copy a network with its convolutions' weights in `dtype`; what they add to stays in fp32."""
    network = copy.deepcopy(folded)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return network


def prepare(folded: Generator, dtype: torch.dtype) -> Forward:
    """Prepare the module itself, its dense blocks in the form that suits inference; below fp32 under autocast."""
    network = in_precision(folded, dtype)
    device = next(folded.parameters()).device
    if isinstance(folded, Mesrgan) and device.type in ("cpu", "cuda"):
        layer_type = bottleneck_cpu.layer_type(dtype) if device.type == "cpu" else bottleneck_gpu.Products
        network.trunk = BufferedTrunk(folded.trunk, dtype, layer_type)
    else:
        buffered(network)
    return network if dtype == torch.float32 else autocast(network, dtype)


def buffered(network: Generator) -> Generator:
    """Replace a folded network's dense blocks by their form for inference."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DenseBlock):
                setattr(parent, name, BufferedDenseBlock(child))
    return network


class BufferedDenseBlock(nn.Module):
    """A folded `DenseBlock` whose features are in one channels-last buffer instead of being concatenated.

    The layers read its first channels and their results are copied after them: a few per cent less memory
    traffic on a CPU. Inference only, and `DenseBlock.forward` is what it is held against.
    """

    def __init__(self, block: DenseBlock) -> None:
        super().__init__()
        assert block.residual_scaling == 1.0, "fold() comes first"
        self.layers, self.activate = block.layers, block.activate
        self.channels = next(m for m in self.layers[-1].modules() if isinstance(m, nn.Conv2d)).in_channels

    def forward(self, x: Tensor) -> Tensor:
        count, features, height, width = x.shape
        buffer = x.new_empty(count, height, width, self.channels).permute(0, 3, 1, 2)
        buffer[:, :features] = x
        seen = features
        for layer in list(self.layers)[:-1]:
            y = layer(x if seen == features else buffer[:, :seen])
            new = buffer[:, seen : seen + y.shape[1]]
            new.copy_(F.leaky_relu(y, LEAKY_SLOPE, inplace=True) if self.activate else y)
            seen += y.shape[1]
        return self.layers[-1](buffer).add_(x)


def autocast(network: Forward, dtype: torch.dtype) -> Forward:
    """Wrap a network so that its convolutions compute in `dtype`; what comes out is fp32."""

    def run(batch: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, dtype):
            return network(batch).float()

    return run
