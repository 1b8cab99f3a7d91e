"""MESRGAN's bottleneck in two Triton kernels; importing this needs Triton.

One kernel expands (a matrix product over pixels) and activates. The other applies the depthwise 3x3 convolution to
what it loads, activates, projects, and writes into the trunk's buffer. The hidden channels cross the memory bus twice
(written once, read once, the neighbours' from cache) instead of the ten times of separate operations.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sr_cli.inference.backends.bottleneck import BottleneckWeights, BufferedBottleneck
from sr_cli.models.base import LEAKY_SLOPE

# Block sizes by what the compiler does with them (docs/speed-log.md): no spilled registers, no arithmetic done twice,
# as it is where more warps share a block than its pixels fill. Not yet tuned by time.
_EXPAND = {"block_pixels": 128, "block_channels": 32, "num_warps": 4, "num_stages": 3}
_PROJECT = {"block_pixels": 64, "block_hidden": 32, "num_warps": 4, "num_stages": 2}
_SMALLEST_BLOCK = 16  #: Of tl.dot, in each direction.


@triton.jit
def expand_kernel(
    buffer, weight, bias, hidden, pixels, buffer_stride,
    channels: tl.constexpr, hidden_channels: tl.constexpr, slope: tl.constexpr, exact: tl.constexpr,
    block_pixels: tl.constexpr, block_channels: tl.constexpr, block_hidden: tl.constexpr,
):  # fmt: skip
    """Compute hidden[p, :] = leaky(buffer[p, :channels] @ weight + bias) for one block of pixels and channels."""
    # Blocks of channels vary fastest: those of the same pixels run together, and all but one read them from L2. One
    # number for both, because a second one could not count beyond 65,535 blocks of pixels.
    blocks: tl.constexpr = (hidden_channels + block_hidden - 1) // block_hidden
    p = tl.program_id(0) // blocks * block_pixels + tl.arange(0, block_pixels)
    h = tl.program_id(0) % blocks * block_hidden + tl.arange(0, block_hidden)
    inside, known = p < pixels, h < hidden_channels
    row = p.to(tl.int64)[:, None]
    total = tl.zeros((block_pixels, block_hidden), tl.float32)
    for first in range(0, channels, block_channels):
        c = first + tl.arange(0, block_channels)
        if channels % block_channels == 0:
            x = tl.load(buffer + row * buffer_stride + c[None, :], mask=inside[:, None], other=0.0)
        else:
            mask = inside[:, None] & (c < channels)[None, :]
            x = tl.load(buffer + row * buffer_stride + c[None, :], mask=mask, other=0.0)
        if channels % block_channels == 0 and hidden_channels % block_hidden == 0:
            w = tl.load(weight + c[:, None] * hidden_channels + h[None, :])
        else:
            mask = (c < channels)[:, None] & known[None, :]
            w = tl.load(weight + c[:, None] * hidden_channels + h[None, :], mask=mask, other=0.0)
        total = tl.dot(x, w, total, input_precision="ieee" if exact else "tf32")
    mask = inside[:, None]
    if hidden_channels % block_hidden == 0:
        total += tl.load(bias + h)[None, :]
    else:
        total += tl.load(bias + h, mask=known, other=0.0)[None, :]
        mask = mask & known[None, :]
    total = tl.where(total > 0, total, slope * total)
    tl.store(hidden + row * hidden_channels + h[None, :], total.to(hidden.dtype.element_ty), mask=mask)


@triton.jit
def depthwise_project_kernel(
    hidden, depthwise, depthwise_bias, project, buffer, pixels, height, width, buffer_stride, start,
    hidden_channels: tl.constexpr, out: tl.constexpr, slope: tl.constexpr, exact: tl.constexpr,
    residual: tl.constexpr, half_taps: tl.constexpr,
    block_pixels: tl.constexpr, block_hidden: tl.constexpr, block_out: tl.constexpr,
):  # fmt: skip
    """Compute buffer[p, start:start+out] (+)= leaky(depthwise(hidden)[p]) @ project for one block of pixels."""
    p = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    o = tl.arange(0, block_out)
    inside, wanted = p < pixels, o < out
    row, column = (p // width) % height, p % width
    at = hidden + p.to(tl.int64)[:, None] * hidden_channels
    whole: tl.constexpr = hidden_channels % block_hidden == 0
    taps: tl.constexpr = tl.float16 if half_taps else tl.float32
    total = tl.zeros((block_pixels, block_out), tl.float32)
    for first in range(0, hidden_channels, block_hidden):
        h = first + tl.arange(0, block_hidden)
        known = h < hidden_channels
        if whole:
            filtered = tl.zeros((block_pixels, block_hidden), taps) + tl.load(depthwise_bias + h).to(taps)[None, :]
        else:
            bias = tl.load(depthwise_bias + h, mask=known, other=0.0)
            filtered = tl.zeros((block_pixels, block_hidden), taps) + bias.to(taps)[None, :]
        for tap in tl.static_range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            near = inside & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            neighbour = at + (down * width + right) * hidden_channels + h[None, :]
            if whole:
                x = tl.load(neighbour, mask=near[:, None], other=0.0)
                w = tl.load(depthwise + tap * hidden_channels + h)
            else:
                x = tl.load(neighbour, mask=near[:, None] & known[None, :], other=0.0)
                w = tl.load(depthwise + tap * hidden_channels + h, mask=known, other=0.0)
            filtered = tl.fma(x.to(taps), tl.broadcast_to(w.to(taps)[None, :], filtered.shape), filtered)
        filtered = tl.where(filtered > 0, filtered, slope * filtered)
        if whole and out == block_out:
            w = tl.load(project + h[:, None] * out + o[None, :])
        else:
            mask = known[:, None] & wanted[None, :]
            w = tl.load(project + h[:, None] * out + o[None, :], mask=mask, other=0.0)
        total = tl.dot(filtered.to(w.dtype), w, total, input_precision="ieee" if exact else "tf32")
    target = buffer + p.to(tl.int64)[:, None] * buffer_stride + start + o[None, :]
    mask = inside[:, None]
    if out != block_out:
        mask = mask & wanted[None, :]
    if residual:
        total += tl.load(target, mask=mask, other=0.0).to(tl.float32)
    tl.store(target, total.to(buffer.dtype.element_ty), mask=mask)


class Kernels(BufferedBottleneck):
    """A bottleneck by these kernels. fp32 is computed exactly, not in TF32."""

    def __init__(self, weights: BottleneckWeights) -> None:
        super().__init__(weights)
        self._weights = weights

    def append(self, buffer: Tensor) -> None:
        self._run(buffer, self.channels, residual=False)

    def add(self, buffer: Tensor) -> None:
        self._run(buffer, 0, residual=True)

    def _run(self, buffer: Tensor, start: int, residual: bool) -> None:
        if not buffer.is_contiguous() or max(self.channels, start + self.out_channels) > buffer.shape[3]:
            what = f"{self.channels} channels in, {self.out_channels} out at {start}"
            raise ValueError(f"{what} do not fit into {tuple(buffer.shape)}, or that is not contiguous")
        w, (count, height, width, stride) = self._weights, buffer.shape
        pixels = count * height * width
        hidden = torch.empty(pixels, self.hidden_channels, dtype=buffer.dtype, device=buffer.device)
        expand, project = launch_options(self.channels, self.hidden_channels, self.out_channels, buffer.dtype)
        blocks = triton.cdiv(self.hidden_channels, expand["block_hidden"])
        expand_kernel[(triton.cdiv(pixels, expand["block_pixels"]) * blocks,)](
            buffer, w.expand, w.expand_bias, hidden, pixels, stride, **expand
        )
        depthwise_project_kernel[(triton.cdiv(pixels, project["block_pixels"]),)](
            hidden, w.depthwise, w.depthwise_bias, w.project, buffer, pixels, height, width, stride, start,
            residual=residual, **project,
        )  # fmt: skip


def launch_options(channels: int, hidden: int, out: int, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the constants and launch options of both kernels for one layer, the project kernel's less `residual`."""
    # Wide where the hidden channels divide by 64, else 32: a partly filled block computes for nothing.
    block_hidden = 64 if hidden % 64 == 0 else 32
    common: dict[str, Any] = {"hidden_channels": hidden, "slope": LEAKY_SLOPE, "exact": dtype == torch.float32}
    expand = {"channels": channels, "block_hidden": block_hidden, **_EXPAND, **common}
    block_out = max(_SMALLEST_BLOCK, triton.next_power_of_2(out))
    # fp16 has the bits for a sum of nine products, and twice the speed; bf16 has not.
    half_taps = dtype == torch.float16
    return expand, {"out": out, "block_out": block_out, "half_taps": half_taps, **_PROJECT, **common}
