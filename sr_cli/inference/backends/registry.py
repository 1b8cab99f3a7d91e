"""All backends: what each one needs and can do, and how one is chosen. Importing this module does not import torch."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, ClassVar

from sr_cli.errors import UsageError
from sr_cli.inference.backends.base import Backend, FunctionNetwork, Network, Requirement

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator

MAX_LANES = 4
"""Batches that OpenVINO computes at once, at most: each has its own activations, which have to fit into memory."""

REPAYS_AFTER = 2**20
"""Input pixels after which converting a network for OpenVINO has paid for itself (docs/speed-log.md)."""

_TRITON = Requirement("triton", "use a build of torch that brings Triton")


class Eager(Backend):
    """torch, operation by operation."""

    name = "eager"
    summary = "torch, operation by operation"
    devices = ("cpu", "cuda", "mps")
    thread_safe = True

    def accepts(self, generator: Generator) -> bool:
        return True

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        from sr_cli.inference.backends import eager

        return FunctionNetwork(eager.prepare(folded, dtype))


class Compiled(Backend):
    """torch.compile."""

    name = "compiled"
    summary = "torch.compile; compiles for each shape, which takes long"
    devices = ("cpu", "cuda")
    slow_start = True

    def missing(self, device: str) -> str | None:
        if device == "cpu" and not any(shutil.which(name) for name in self._compilers()):
            return "the backend compiled needs a C++ compiler (g++, clang++ or cl), and none is installed"
        reason = super().missing(device)
        if reason is None and device == "cuda":
            reason = _without_triton(self.name)
        return reason

    @staticmethod
    def _compilers() -> tuple[str, ...]:
        return ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        from sr_cli.inference.backends import compiled

        return FunctionNetwork(compiled.prepare(folded, dtype))


class Graph(Backend):
    """torch, recorded as CUDA graphs."""

    name = "graph"
    summary = "torch, recorded as a CUDA graph"
    devices = ("cuda",)

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        from sr_cli.inference.backends import eager
        from sr_cli.inference.backends.graph import GraphNetwork

        return GraphNetwork(eager.prepare(folded, dtype))


class Fused(Backend):
    """MESRGAN's bottlenecks in Triton kernels, recorded as CUDA graphs."""

    name = "fused"
    summary = "MESRGAN's bottlenecks in Triton kernels, recorded as a CUDA graph"
    devices = ("cuda",)
    requirements = (_TRITON,)

    def accepts(self, generator: Generator) -> bool:
        from sr_cli.models.mesrgan import Mesrgan

        return isinstance(generator, Mesrgan)

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        from sr_cli.inference.backends import fused
        from sr_cli.inference.backends.graph import GraphNetwork

        return GraphNetwork(fused.prepare(folded, dtype))


class OpenVino(Backend):
    """Intel's OpenVINO."""

    name = "openvino"
    summary = "OpenVINO, on Intel and AMD processors"
    devices = ("cpu",)
    precisions = ("fp32", "bf16")
    requirements: ClassVar[tuple[Requirement, ...]] = (Requirement("openvino", "pip install 'srup[openvino]'"),)

    def lanes(self, threads: int) -> int:
        return min(threads, MAX_LANES)

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        import torch

        from sr_cli.inference.backends import openvino

        return openvino.prepare(folded, dtype, self.lanes(torch.get_num_threads()))


class OnnxRuntime(Backend):
    """Microsoft's ONNX Runtime."""

    name = "onnxruntime"
    summary = "ONNX Runtime, on the network that `srup models export` writes"
    devices = ("cpu",)
    precisions = ("fp32",)
    requirements = (
        Requirement("onnxruntime", "pip install 'srup[onnx]'"),
        Requirement("onnxscript", "pip install 'srup[onnx]'"),
    )
    thread_safe = True

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        from sr_cli.inference.backends import onnxruntime

        return FunctionNetwork(onnxruntime.prepare(folded))


BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (Eager(), Compiled(), Graph(), Fused(), OpenVino(), OnnxRuntime())
}
"""By name."""

NAMES = ("auto", *BACKENDS)  #: Values of `--backend`.


def _without_triton(name: str) -> str | None:
    return Fused().missing("cuda") and f"the backend {name} needs Triton, which this build of torch does not bring"


def get(name: str) -> Backend:
    """Find the backend of that name. Raises UsageError naming all."""
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; use {', '.join(NAMES)}")
    return BACKENDS[name]


def usable(device: str) -> list[str]:
    """List the backends that can be used on a type of device (`cpu`, `cuda`, `mps`), `eager` first."""
    return [name for name, backend in BACKENDS.items() if backend.missing(device) is None]


def preferred(device: str, precision: str) -> str:
    """Choose the fastest backend that runs any network: OpenVINO on a CPU where it is installed, else eager."""
    best = BACKENDS["openvino"]
    return best.name if best.missing(device) is None and precision in best.precisions else "eager"


def choose(name: str, device: str, precision: str, generator: Generator, pixels: int | None = None) -> str:
    """Choose the backend that `auto` or a name stands for, on a type of device, in a precision, for a network.

    `auto` is the `preferred` one, unless it cannot run the network, or so few input `pixels` are to come that
    converting the network would not repay: then eager. Raises UsageError where a named one cannot be used.
    """
    if name == "auto":
        best = preferred(device, precision)
        worth_it = pixels is None or pixels >= REPAYS_AFTER
        return best if worth_it and BACKENDS[best].accepts(generator) else "eager"
    backend = get(name)
    if (reason := backend.missing(device)) is not None:
        others = f"; use {', '.join(usable(device))}" if device not in backend.devices else ""
        raise UsageError(reason + others)
    if precision not in backend.precisions:
        raise UsageError(f"the backend {name} does not compute in {precision}; use {', '.join(backend.precisions)}")
    if not backend.accepts(generator):
        raise UsageError(f"the backend {name} has nothing for this kind of network; use --backend eager")
    return name


def prepare(folded: Generator, dtype: torch.dtype, name: str = "eager") -> Network:
    """Prepare a network by a backend that `choose` has agreed to; in fp32 without the rounding of TF32."""
    import torch

    from sr_cli.inference.backends.precision import InFullPrecision

    network = get(name).prepare(folded, dtype)
    device = next(folded.parameters()).device
    return InFullPrecision(network) if dtype == torch.float32 and device.type == "cuda" else network
