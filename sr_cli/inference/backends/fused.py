"""MESRGAN with its bottlenecks in fused Triton kernels."""

from __future__ import annotations

import torch

from sr_cli.inference.backends import Network, eager
from sr_cli.inference.backends.bottleneck import BufferedTrunk
from sr_cli.models import Generator
from sr_cli.models.mesrgan import Mesrgan


def prepare(folded: Generator, dtype: torch.dtype) -> Network:
    """The network in `dtype`, its trunk in the kernels; plain torch for a network without bottlenecks."""
    if not isinstance(folded, Mesrgan):
        return eager.prepare(folded, dtype)
    from sr_cli.inference.backends.bottleneck_kernels import Kernels

    network = eager.in_precision(folded, dtype)
    assert isinstance(network, Mesrgan)
    network.trunk = BufferedTrunk(folded.trunk, dtype, Kernels)
    return network if dtype == torch.float32 else eager.autocast(network, dtype)
