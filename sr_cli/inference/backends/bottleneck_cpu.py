"""MESRGAN's bottlenecks on a CPU, in bands of rows.

A bottleneck goes through the image in bands, whose hidden channels are still in the cache when the next step reads
them. Its 1x1 convolutions are matrix products between slices of the buffer, or oneDNN's convolutions, which copy their
input but have the activation in them, as `layer_type` finds for the processor and the precision. Speed and what was
tried: docs/speed-log.md.
"""

from __future__ import annotations

import math
import platform
from abc import abstractmethod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.inference.backends.bottleneck import BottleneckWeights, BufferedBottleneck
from sr_cli.models.base import LEAKY_SLOPE

_BAND_BYTES = 8 * 2**20
"""Of the hidden channels under way. Smaller ones fit more caches; each costs 0.1 ms of calls (docs/speed-log.md)."""
_FEWEST_ROWS = 8
_SAFE_DEPTH = 32
"""oneDNN 3.12's product of bf16 matrices on AMX reads each row's length rounded up to this, and multiplies what follows
the row by zero; where that is uninitialised memory it may be NaN. Lengths that are a multiple of this are safe."""


def layer_type(dtype: torch.dtype) -> type[BufferedBottleneck]:
    """Choose how 1x1 convolutions are computed: as products in fp32 where MKL is fast, which is on Intel's processors.

    torch leaves products to MKL and convolutions to oneDNN, and MKL has no AVX-512 for other makers' processors,
    oneDNN has (docs/speed-log.md). A rule and no measurement: the same machine must give the same image every time.
    """
    fast = dtype == torch.float32 and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return Products if fast and "GenuineIntel" in _processor_maker() else Convolutions


class _InBands(BufferedBottleneck):
    """A bottleneck that goes through one image's buffer, (1, H, W, B), band by band."""

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        self._depthwise = weights.depthwise.t().reshape(-1, 1, 3, 3)
        self._depthwise_bias = weights.depthwise_bias.to(weights.depthwise.dtype)

    @abstractmethod
    def expand(self, x: Tensor) -> Tensor:
        """Compute the hidden channels, activated: (rows, W, ones + c) to (1, h, rows, W)."""

    @abstractmethod
    def project(self, hidden: Tensor, out: Tensor, add: bool) -> None:
        """Project (rows, W, h) into `out` (rows, W, o), or add it to that."""

    def append(self, buffer: Tensor) -> None:
        end = self.ones + self.channels
        self._run(buffer[0], buffer[0, ..., end : end + self.out_channels], add=False)

    def add(self, buffer: Tensor) -> None:
        self._run(buffer[0], buffer[0, ..., self.ones : self.ones + self.out_channels], add=True)

    def _run(self, buffer: Tensor, out: Tensor, add: bool) -> None:
        """Compute one image, (H, W, B) to (H, W, o); `out` may be in the channels that are read."""
        x = buffer[..., : self.ones + self.channels]
        height, width, _ = x.shape
        rows = max(_FEWEST_ROWS, _BAND_BYTES // (width * self.hidden_channels * x.element_size()))
        rows = math.ceil(height / math.ceil(height / rows))
        last: Tensor | None = None
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            # With the row above and the one below, which the depthwise layer reads.
            first = max(top - 1, 0)
            hidden = self._filter(self.expand(x[first : bottom + 1]))[top - first : bottom - first]
            # A band's last row is written when the next band, which reads it as the row above, has done so.
            if last is not None:
                self.project(last, out[top - 1 : top], add)
            if bottom == height:
                self.project(hidden, out[top:bottom], add)
            else:
                self.project(hidden[:-1], out[top : bottom - 1], add)
                last = hidden[-1:]

    def _filter(self, expanded: Tensor) -> Tensor:
        """Apply the depthwise layer and its activation: (1, h, rows, W) to (rows, W, h)."""
        y = _convolve_and_activate(expanded, self._depthwise, self._depthwise_bias, 1, self.hidden_channels)
        return y[0].permute(1, 2, 0)


class Products(_InBands):
    """As matrix products, which read and write the buffer where it is. The ones multiply the expansion's bias.

    Not for bf16, see `_SAFE_DEPTH`.
    """

    ones = 1

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        self._expand = torch.cat([weights.expand_bias[None].to(weights.expand.dtype), weights.expand])
        self._project = weights.project

    def expand(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu_(torch.mm(_pixels(x), self._expand), LEAKY_SLOPE)
        return _planes(hidden.view(*x.shape[:2], -1))

    def project(self, hidden: Tensor, out: Tensor, add: bool) -> None:
        _project_by_product(hidden, self._project, out, add)


class Convolutions(_InBands):
    """As convolutions with the activation in them; projections in bf16 as products where oneDNN computes them."""

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        dtype = weights.expand.dtype
        self._expand, self._expand_bias = _kernel(weights.expand), weights.expand_bias.to(dtype)
        self.projects_by_product = (
            dtype == torch.bfloat16 and has_onednn(dtype) and self.hidden_channels % _SAFE_DEPTH == 0
        )
        self._project = weights.project if self.projects_by_product else _kernel(weights.project)

    def expand(self, x: Tensor) -> Tensor:
        return _convolve_and_activate(_planes(x), self._expand, self._expand_bias)

    def project(self, hidden: Tensor, out: Tensor, add: bool) -> None:
        if self.projects_by_product:
            _project_by_product(hidden, self._project, out, add)
        else:
            y = F.conv2d(_planes(hidden), self._project)
            _planes(out).add_(y) if add else _planes(out).copy_(y)


def _convolve_and_activate(x: Tensor, weight: Tensor, bias: Tensor, padding: int = 0, groups: int = 1) -> Tensor:
    """Compute leaky(conv(x)) for (1, C, H, W), channels last."""
    if has_onednn(x.dtype):
        # oneDNN's convolution with the activation in it, which torch.compile calls as well.
        convolution = torch.ops.mkldnn._convolution_pointwise
        pad, activation = [padding, padding], ("leaky_relu", [LEAKY_SLOPE], "")
        result: Tensor = convolution(x, weight, bias, pad, [1, 1], [1, 1], groups, *activation)
        return result
    return F.leaky_relu_(F.conv2d(x, weight, bias, padding=padding, groups=groups), LEAKY_SLOPE)


def _project_by_product(hidden: Tensor, weight: Tensor, out: Tensor, add: bool) -> None:
    if add:
        _pixels(out).addmm_(_pixels(hidden), weight)
    else:
        torch.mm(_pixels(hidden), weight, out=_pixels(out))


def _pixels(x: Tensor) -> Tensor:
    """View (H, W, C) as (H * W, C)."""
    return x.view(-1, x.shape[-1])


def _planes(x: Tensor) -> Tensor:
    """View (H, W, C) as (1, C, H, W)."""
    return x[None].permute(0, 3, 1, 2)


def _kernel(matrix: Tensor) -> Tensor:
    """Turn (c, o) into the weights of a 1x1 convolution."""
    return matrix.t()[:, :, None, None].contiguous(memory_format=torch.channels_last)


def has_onednn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN is there, switched on, and computes in `dtype` (fp32 or bf16) on this processor."""
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _processor_maker() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()[:1000]
    except OSError:
        return platform.processor()  # on Windows it ends with the maker
