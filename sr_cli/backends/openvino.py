"""OpenVINO on the CPU: one converted network for all shapes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.backends import Network
from sr_cli.models import Generator
from sr_cli.models.mesrgan import Mesrgan

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def prepare(folded: Generator, dtype: torch.dtype) -> Network:
    """Converts the generator (seconds)."""
    if dtype == torch.float32 or not (isinstance(folded, Mesrgan) and folded.config.light_upsampler):
        return _runner(folded, dtype, folded.scale, 3)
    # bf16 has 8 bits: enough for the detail that MESRGAN adds, not for the picture it is added to.
    detail = _runner(_Detail(folded), dtype, 1, 3 * folded.scale**2)
    return lambda rgb: F.pixel_shuffle(detail(rgb) + folded.bicubic(rgb), folded.scale)


class _Detail(nn.Module):
    def __init__(self, network: Mesrgan) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> Tensor:
        return self.network.detail(rgb)


def _runner(module: nn.Module, dtype: torch.dtype, scale: int, channels: int) -> Network:
    """`module` as a function from (N, 3, H, W) to (N, channels, scale*H, scale*W)."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # a thread bound to a busy core would keep all others waiting
    }
    request = openvino.Core().compile_model(convert(module), "CPU", settings).create_infer_request()

    def run(batch: Tensor) -> Tensor:
        count, _, height, width = batch.shape
        # The request does not own what it reads and writes: both are held here until it is done.
        source = batch.contiguous().numpy()
        result = torch.empty(count, channels, height * scale, width * scale)
        request.set_input_tensor(openvino.Tensor(source, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(result.numpy(), shared_memory=True))
        request.infer()
        return result

    return run


def convert(network: nn.Module) -> Any:
    """A folded generator, or a part of one, as an OpenVINO model of any batch and picture size.

    By the front end itself and not by `openvino.convert_model`, which reports its use to the network.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    module = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's own deprecation; it is the only form the front end reads
        example = torch.zeros(1, 3, 16, 16)
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        # Must live as long as the front end reads it; by default its constants point into memory of torch.
        decoder = TorchScriptPythonDecoder(traced, shared_memory=False)
        model = frontend.convert(frontend.load(decoder))
    for parameter in model.get_parameters():
        parameter.set_element_type(openvino.Type.f32)
        parameter.set_partial_shape(openvino.PartialShape([-1, 3, -1, -1]))
    model.validate_nodes_and_infer_types()
    return model
