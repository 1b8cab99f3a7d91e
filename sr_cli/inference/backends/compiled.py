"""torch.compile, for fixed shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sr_cli.inference.backends.base import Forward
from sr_cli.inference.backends.eager import autocast, in_precision
from sr_cli.models import Generator

_SHAPES = 64  #: Forms of one network that torch may compile. Beyond its own limit, 8, it would silently run op by op.


def prepare(folded: Generator, dtype: torch.dtype) -> Forward:
    """Compile the module; the first batch of each shape takes many seconds."""
    device = next(folded.parameters()).device
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {"triton.cudagraphs": True}
    module = folded if dtype == torch.float32 else in_precision(folded, dtype)
    optimised: Forward = torch.compile(module, dynamic=False, options=options)
    if dtype != torch.float32:
        optimised = autocast(optimised, dtype)

    def run(batch: Tensor) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=_SHAPES, fail_on_recompile_limit_hit=True):
            result = optimised(batch)
        # A compiled CUDA graph reuses its output's memory.
        return result.clone() if device.type == "cuda" else result

    return run
