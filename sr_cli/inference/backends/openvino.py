"""OpenVINO on the CPU: one converted network for all shapes, and a faster form where many batches of one follow."""

from __future__ import annotations

import copy
import itertools
import tempfile
import threading
import warnings
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sr_cli.inference.backends.base import Network
from sr_cli.inference.backends.registry import BACKENDS
from sr_cli.models import Generator
from sr_cli.models.mesrgan import Mesrgan

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}

_ROUNDS = 8
"""Fewest batches per lane: compiling for one shape takes as long as two or three, and at the end some lanes idle."""
_BLOCKED = ",".join(f"cpu:jit_avx512{kind}" for kind in ("_1x1", "_dw", ""))
"""oneDNN's convolutions on blocks of 16 channels, in the words of OpenVINO's CPU plugin."""

_cores: list[Any] = []
_making_core = threading.Lock()


def _core() -> Any:
    """Give the process's one Core, which is never freed.

    The CPU plugin gives the thread that loads it a stack for signal handlers, and unmaps it when the last user of the
    plugin goes, in whatever thread that happens: the next signal (Ctrl-C, a child's end) would crash the process.
    """
    import openvino

    with _making_core:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]


def prepare(folded: Generator, dtype: torch.dtype, lanes: int | None = None) -> OpenVinoNetwork:
    """Convert the generator (seconds) for streams of `lanes` batches at once; None: as many as suit torch's threads."""
    lanes = lanes or BACKENDS["openvino"].lanes(torch.get_num_threads())
    if dtype == torch.float32 or not (isinstance(folded, Mesrgan) and folded.config.upsampler != "full"):
        return OpenVinoNetwork(folded, dtype, lanes, folded.scale)
    # bf16 has 8 bits: enough for the detail that MESRGAN adds, not for the image it is added to.
    return OpenVinoNetwork(_Detail(folded), dtype, lanes, folded.scale, folded.complete)


class _Detail(nn.Module):
    def __init__(self, network: Mesrgan) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> Tensor:
        return self.network.detail(rgb)


class OpenVinoNetwork(Network):
    """A module from (N, 3, H, W) to (N, 3, scale*H, scale*W) on OpenVINO; `complete` makes the result of both.

    A single batch is computed by all threads together. Where many follow, the network is compiled for their shape
    and they are spread over the threads, which then need not wait for each other (docs/speed-log.md).
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        lanes: int,
        scale: int,
        complete: Callable[[Tensor, Tensor], Tensor] = lambda _rgb, result: result,
    ) -> None:
        self._model, self._dtype = convert(module), dtype
        self._lanes, self._threads = lanes, torch.get_num_threads()
        self._scale, self._complete = scale, complete
        self._one = self._compiled(self._model, "LATENCY", 1).create_infer_request()
        self._streamed: Any = None  # the form for streams, once there has been one
        self._several: list[Any] = []
        self._shape: torch.Size | None = None

    def _compiled(self, model: Any, hint: str, streams: int) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._dtype],
            "PERFORMANCE_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self._threads,
            "ENABLE_CPU_PINNING": False,  # a thread bound to a busy core would keep all others waiting
        }
        return _core().compile_model(model, "CPU", settings)

    def compiled_for(self, shape: torch.Size) -> Any:
        """Compile for batches of one shape; in fp32 on blocks of channels, where this processor has what that needs."""
        if self._streamed is None:
            self._streamed = in_blocks(self._model) if self._dtype == torch.float32 else self._model
        compiled = self._compiled(_fixed(self._streamed, shape), "THROUGHPUT", self._lanes)
        if self._streamed is self._model or _computes_in_blocks(compiled):
            return compiled
        self._streamed = self._model
        return self.compiled_for(shape)

    def _requests(self, shape: torch.Size) -> list[Any]:
        if shape != self._shape:
            self._several, self._shape = [], None  # first, for the memory that these hold
            compiled = self.compiled_for(shape)
            # One more, which waits: a lane continues with it while the caller is still at another lane's result.
            self._several, self._shape = [compiled.create_infer_request() for _ in range(self._lanes + 1)], shape
        return list(self._several)

    def __call__(self, batch: Tensor) -> Tensor:
        return self._finish(self._start(self._one, batch))

    def stream(self, batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
        """Yield the results of `count` batches, in order; up to `lanes` are computed at once where that repays.

        While several are, torch works on one thread for the caller as well.
        """
        if count < _ROUNDS * self._lanes:
            yield from map(self, batches)
            return
        waiting = iter(batches)
        first = next(waiting)
        idle, running = self._requests(first.shape), deque[_Running]()
        # The lanes have the cores: an operation of ours that is split over several threads would wait for each of them
        # to get one, and torch's threads wait by spinning.
        torch.set_num_threads(1)
        try:
            for batch in itertools.chain([first], waiting):
                done = None
                if not idle:
                    done = running.popleft()
                    done.request.wait()
                    idle.append(done.request)
                running.append(self._start(idle.pop(), batch))
                if done:  # only now: its lane must not wait for what is made of the result
                    yield self._complete(done.batch, done.result)
            while running:
                yield self._finish(running.popleft())
        finally:
            torch.set_num_threads(self._threads)
            for left in running:
                left.request.wait()  # it writes into memory that would be freed

    def _start(self, request: Any, batch: Tensor) -> _Running:
        import openvino

        count, _, height, width = batch.shape
        source = batch.contiguous()
        result = torch.empty(count, 3, height * self._scale, width * self._scale)
        request.set_input_tensor(openvino.Tensor(source.numpy(), shared_memory=True))
        request.set_output_tensor(openvino.Tensor(result.numpy(), shared_memory=True))
        request.start_async()
        return _Running(request, batch, source, result)

    def _finish(self, running: _Running) -> Tensor:
        running.request.wait()
        return self._complete(running.batch, running.result)


class _Running(NamedTuple):
    """A batch on its way. The request does not own what it reads and writes: that is held here until it is done."""

    request: Any
    batch: Tensor
    source: Tensor
    result: Tensor


def convert(network: nn.Module) -> Any:
    """Convert a folded generator, or a part of one, to an OpenVINO model of any batch and image size.

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


def _fixed(model: Any, shape: torch.Size) -> Any:
    fixed = model.clone()
    fixed.reshape(list(shape))
    return fixed


def in_blocks(model: Any) -> Any:
    """Copy a model so that its convolutions ask for blocks of 16 channels, (N, C/16, H, W, 16), in fp32 on AVX-512.

    By itself the plugin has channels last. In blocks a depthwise convolution takes two thirds of the time, and a
    concatenation takes none if image and shape are one and known: each part is computed where it belongs. The wish
    is an attribute of the file format, with no other way to set it from Python. A processor without these convolutions
    takes the slowest there are: see `_computes_in_blocks`.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.xml"
        openvino.serialize(model, file)
        description = ET.parse(file)
        for layer in description.iter("layer"):
            if layer.get("type") in ("Convolution", "GroupConvolution"):
                info = layer.find("rt_info")
                info = ET.SubElement(layer, "rt_info") if info is None else info
                ET.SubElement(info, "attribute", name="primitives_priority", version="0", value=_BLOCKED)
        return _core().read_model(ET.tostring(description.getroot()), file.with_suffix(".bin").read_bytes())


def _computes_in_blocks(compiled: Any) -> bool:
    """Tell whether all convolutions became what `in_blocks` asks for."""
    return all(kind.startswith("jit_avx512") for kind in convolutions(compiled))


def convolutions(compiled: Any) -> set[str]:
    """List the implementations that the plugin has taken for a compiled model's convolutions."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return {info["primitiveType"].value for info in infos if "Convolution" in info["layerType"].value}
