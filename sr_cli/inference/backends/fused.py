"""MESRGAN with its bottlenecks in fused Triton kernels."""

from __future__ import annotations

import torch

from sr_cli.inference.backends import eager
from sr_cli.inference.backends.base import Forward
from sr_cli.inference.backends.bottleneck import BufferedTrunk
from sr_cli.models import Generator
from sr_cli.models.mesrgan import Mesrgan


def prepare(folded: Generator, dtype: torch.dtype) -> Forward:
    """Prepare the MESRGAN in `dtype`, its trunk in the kernels."""
    from sr_cli.inference.backends.bottleneck_kernels import Kernels

    assert isinstance(folded, Mesrgan)
    network = eager.in_precision(folded, dtype)
    assert isinstance(network, Mesrgan)
    network.trunk = BufferedTrunk(folded.trunk, dtype, Kernels)
    return network if dtype == torch.float32 else eager.autocast(network, dtype)
