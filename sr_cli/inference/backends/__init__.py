"""Ways to run a folded generator: plain torch, and what else is installed.

Every backend turns a generator into a `Network`: a function of an fp32 batch (N, 3, H, W), RGB in 0..1 on
the generator's device, to an fp32 batch (N, 3, scale*H, scale*W), whatever the precision inside. All agree
within 1 of 255 levels in the same precision. Importing this package imports none of them, nor torch.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from sr_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator

Network: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"

NAMES = ("auto", "eager", "compiled", "graph", "fused", "openvino", "onnxruntime")
"""`eager`: torch op by op. `compiled`: torch.compile. `graph`: eager, recorded as a CUDA graph. `fused`: MESRGAN's
bottlenecks in Triton kernels, recorded as well. `openvino`, `onnxruntime`: those run-times, on the CPU."""

_ON = {
    "cpu": ("eager", "compiled", "openvino", "onnxruntime"),
    "cuda": ("eager", "compiled", "graph", "fused"),
    "mps": ("eager",),
}
_PRECISIONS = {"openvino": ("torch.float32", "torch.bfloat16"), "onnxruntime": ("torch.float32",)}
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}

REPAYS_AFTER = 2**20
"""Input pixels after which converting a network for OpenVINO has paid for itself (docs/speed.md)."""


def missing(name: str, device: torch.device) -> str | None:
    """Why a backend cannot be used on a device, with what to do about it; None if it can."""
    if name not in _ON[device.type]:
        return f"the backend {name} does not run on {device.type}; use {', '.join(_ON[device.type])}"
    if name == "compiled" and device.type == "cpu" and not _has_compiler():
        return "the backend compiled needs a C++ compiler (g++, clang++ or cl), and none is installed"
    if name in ("compiled", "fused") and device.type == "cuda" and find_spec("triton") is None:
        return f"the backend {name} needs Triton, which this build of torch does not bring"
    if name in _EXTRAS and find_spec(name) is None:
        return f"the backend {name} is not installed; pip install 'srup[{_EXTRAS[name]}]'"
    if name == "onnxruntime" and find_spec("onnxscript") is None:
        return "the backend onnxruntime needs onnxscript to convert networks; pip install 'srup[onnx]'"
    return None


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")))


def usable(device: torch.device) -> list[str]:
    """The backends that can be used on a device, `eager` first."""
    return [name for name in _ON[device.type] if missing(name, device) is None]


def computes_in(name: str, dtype: torch.dtype) -> bool:
    """Whether a backend has a precision."""
    return _PRECISIONS.get(name) is None or str(dtype) in _PRECISIONS[name]


def choose(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that `auto` or a name stands for. Raises UsageError where it cannot be used.

    `auto` is OpenVINO on a CPU where it is installed and has the precision, else eager.
    """
    if name not in NAMES:
        raise UsageError(f"unknown backend {name!r}; use {', '.join(NAMES)}")
    if name == "auto":
        possible = device.type == "cpu" and missing("openvino", device) is None and computes_in("openvino", dtype)
        return "openvino" if possible else "eager"
    if (reason := missing(name, device)) is not None:
        raise UsageError(reason)
    if not computes_in(name, dtype):
        raise UsageError(f"the backend {name} does not compute in {str(dtype).removeprefix('torch.')}")
    return name


def prepare(folded: Generator, dtype: torch.dtype, name: str = "eager") -> Network:
    """`folded` (from `Generator.fold()`, fp32, on its device) as a network that computes in `dtype`.

    `name` is a backend that `choose` has agreed to. `fused` is plain torch for what has no bottlenecks.
    """
    if name == "openvino":
        from sr_cli.inference.backends import openvino

        return openvino.prepare(folded, dtype)
    if name == "onnxruntime":
        from sr_cli.inference.backends import onnxruntime

        return onnxruntime.prepare(folded, dtype)
    from sr_cli.inference.backends import eager

    if name == "compiled":
        return eager.compiled(folded, dtype)
    if name == "fused":
        from sr_cli.inference.backends import fused

        return eager.graph(fused.prepare(folded, dtype))
    if name == "graph":
        return eager.graph(eager.prepare(folded, dtype))
    return eager.prepare(folded, dtype)


def stream(network: Network, batches: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    """The results of `count` batches of one shape, in order.

    A network with a `stream` method of its own works on several at once; it asks for batches ahead of its results.
    """
    own: Callable[[Iterable[torch.Tensor], int], Iterator[torch.Tensor]] | None = getattr(network, "stream", None)
    return map(network, batches) if own is None else own(batches, count)


def lanes(network: Network) -> int:
    """How many batches a network may hold in memory at once."""
    return getattr(network, "lanes", 1)
