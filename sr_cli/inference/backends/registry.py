"""All backends: what each one needs and can do, and how one is chosen. Importing this module does not import torch."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from sr_cli.errors import UsageError
from sr_cli.inference.backends.base import Backend, Network, Requirement

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator

REPAYS_AFTER = 2**20
"""Input pixels after which converting a network for OpenVINO has paid for itself (docs/speed-log.md)."""


class _Compiled(Backend):
    """torch.compile, which needs a compiler for the device."""

    def missing(self, device: str) -> str | None:
        compilers = ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")
        if device == "cpu" and not any(map(shutil.which, compilers)):
            return "the backend compiled needs a C++ compiler (g++, clang++ or cl), and none is installed"
        if device == "cuda" and BACKENDS["fused"].missing(device):
            return "the backend compiled needs Triton, which this build of torch does not bring"
        return super().missing(device)


def _is_mesrgan(generator: Generator) -> bool:
    from sr_cli.models.mesrgan import Mesrgan

    return isinstance(generator, Mesrgan)


_ONNX = "pip install 'srup[onnx]'"
_ALL = (
    Backend(
        "eager",
        "torch, operation by operation",
        ("cpu", "cuda", "mps"),
        accepts=lambda _generator: True,
        thread_safe=True,
    ),
    _Compiled("compiled", "torch.compile; compiles for each shape, which takes long", ("cpu", "cuda"), slow_start=True),
    Backend("graph", "torch, recorded as a CUDA graph", ("cuda",), module="eager", recorded=True),
    Backend(
        "fused",
        "MESRGAN's bottlenecks in Triton kernels, recorded as a CUDA graph",
        ("cuda",),
        requirements=(Requirement("triton", "use a build of torch that brings Triton"),),
        accepts=_is_mesrgan,
        recorded=True,
    ),
    Backend(
        "openvino",
        "OpenVINO, on Intel and AMD processors",
        ("cpu",),
        ("fp32", "bf16"),
        (Requirement("openvino", "pip install 'srup[openvino]'"),),
        most_lanes=4,  # each has its own activations, which have to fit into memory
    ),
    Backend(
        "onnxruntime",
        "ONNX Runtime, on the network that `srup models export` writes",
        ("cpu",),
        ("fp32",),
        (Requirement("onnxruntime", _ONNX), Requirement("onnxscript", _ONNX)),
        thread_safe=True,
    ),
)
BACKENDS = {backend.name: backend for backend in _ALL}  #: By name.

NAMES = ("auto", *BACKENDS)  #: Values of `--backend`.


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
