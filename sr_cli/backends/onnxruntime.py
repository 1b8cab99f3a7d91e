"""ONNX Runtime on the CPU, on the network that `srup models export --format onnx` writes."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_cli.backends import Network
from sr_cli.errors import UsageError
from sr_cli.models import Generator
from sr_cli.models.onnx import to_onnx


def prepare(folded: Generator, dtype: torch.dtype) -> Network:
    """Exports the generator (many seconds). Raises UsageError for a precision other than fp32."""
    if dtype != torch.float32:
        raise UsageError("the backend onnxruntime computes in fp32; use --precision fp32")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(folded), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: batch.contiguous().numpy()})[0])

    return run
