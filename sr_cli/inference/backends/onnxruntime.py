"""ONNX Runtime on the CPU, on the network that `srup models export --format onnx` writes."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_cli.inference.backends.base import Forward
from sr_cli.models import Generator
from sr_cli.models.onnx import to_onnx


def prepare(folded: Generator, _dtype: torch.dtype) -> Forward:
    """Export the generator (many seconds); it computes in fp32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(folded), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: batch.contiguous().numpy()})[0])

    return run
