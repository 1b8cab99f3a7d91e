"""The Triton kernels of `bottleneck_`; importing this needs Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sr_cli.inference.backends.bottleneck import BottleneckWeights
from sr_cli.models.base import LEAKY_SLOPE

# Block sizes by what the compiler makes of them for compute capability 9.0: no spilled registers, and at most
# 91 KiB of shared memory in fp32 (46 in fp16), which consumer cards have as well. Not yet tuned by time.
_EXPAND = {"block_pixels": 128, "block_channels": 32, "num_warps": 4, "num_stages": 3}
_PROJECT = {"block_pixels": 64, "block_hidden": 32, "num_warps": 8, "num_stages": 2}


@triton.jit
def _expand(
    buffer, weight, bias, hidden, pixels, buffer_stride,
    channels: tl.constexpr, hidden_channels: tl.constexpr, slope: tl.constexpr,
    block_pixels: tl.constexpr, block_channels: tl.constexpr, block_hidden: tl.constexpr, exact: tl.constexpr,
):  # fmt: skip
    """hidden[p, :] = leaky(buffer[p, :channels] @ weight + bias) for one block of pixels and hidden channels."""
    p = tl.program_id(0).to(tl.int64) * block_pixels + tl.arange(0, block_pixels)
    h = tl.program_id(1) * block_hidden + tl.arange(0, block_hidden)
    inside, known = p < pixels, h < hidden_channels
    total = tl.zeros((block_pixels, block_hidden), tl.float32)
    for first in range(0, channels, block_channels):
        c = first + tl.arange(0, block_channels)
        x = tl.load(
            buffer + p[:, None] * buffer_stride + c[None, :],
            mask=inside[:, None] & (c < channels)[None, :], other=0.0,
        )  # fmt: skip
        w = tl.load(
            weight + c[:, None] * hidden_channels + h[None, :],
            mask=(c < channels)[:, None] & known[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(x, w, total, input_precision="ieee" if exact else "tf32")
    total += tl.load(bias + h, mask=known, other=0.0)[None, :]
    total = tl.where(total > 0, total, slope * total)
    at = hidden + p[:, None] * hidden_channels + h[None, :]
    tl.store(at, total.to(hidden.dtype.element_ty), mask=inside[:, None] & known[None, :])


@triton.jit
def _depthwise_project(
    hidden, depthwise, depthwise_bias, project, project_bias, buffer, pixels, height, width, buffer_stride, start,
    hidden_channels: tl.constexpr, out: tl.constexpr, slope: tl.constexpr, residual: tl.constexpr,
    block_pixels: tl.constexpr, block_hidden: tl.constexpr, block_out: tl.constexpr, exact: tl.constexpr,
):  # fmt: skip
    """buffer[p, start:start+out] (+)= leaky(depthwise(hidden)[p]) @ project + bias for one block of pixels."""
    p = tl.program_id(0).to(tl.int64) * block_pixels + tl.arange(0, block_pixels)
    o = tl.arange(0, block_out)
    inside, wanted = p < pixels, o < out
    row, column = (p // width) % height, p % width
    total = tl.zeros((block_pixels, block_out), tl.float32)
    for first in range(0, hidden_channels, block_hidden):
        h = first + tl.arange(0, block_hidden)
        known = h < hidden_channels
        filtered = tl.zeros((block_pixels, block_hidden), tl.float32)
        for tap in tl.static_range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            near = inside & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            x = tl.load(
                hidden + (p + down * width + right)[:, None] * hidden_channels + h[None, :],
                mask=near[:, None] & known[None, :], other=0.0,
            )  # fmt: skip
            w = tl.load(depthwise + tap * hidden_channels + h, mask=known, other=0.0)
            filtered += x.to(tl.float32) * w.to(tl.float32)[None, :]
        filtered += tl.load(depthwise_bias + h, mask=known, other=0.0)[None, :]
        filtered = tl.where(filtered > 0, filtered, slope * filtered)
        w = tl.load(
            project + h[:, None] * out + o[None, :], mask=known[:, None] & wanted[None, :], other=0.0
        )  # fmt: skip
        total = tl.dot(filtered.to(w.dtype), w, total, input_precision="ieee" if exact else "tf32")
    total += tl.load(project_bias + o, mask=wanted, other=0.0)[None, :]
    at = buffer + p[:, None] * buffer_stride + start + o[None, :]
    mask = inside[:, None] & wanted[None, :]
    if residual:
        total += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, total.to(buffer.dtype.element_ty), mask=mask)


def run(buffer: Tensor, weights: BottleneckWeights, start: int, residual: bool) -> None:
    """See `bottleneck.bottleneck_`. fp32 is computed exactly, not in TF32."""
    count, height, width, stride = buffer.shape
    pixels = count * height * width
    channels, hidden_channels = weights.expand.shape
    out = weights.project.shape[1]
    hidden = torch.empty(pixels, hidden_channels, dtype=buffer.dtype, device=buffer.device)
    # Wide where the hidden channels divide by 64, else 32: a partly filled block computes for nothing.
    block_hidden = 64 if hidden_channels % 64 == 0 else 32
    common: dict[str, Any] = {"slope": LEAKY_SLOPE, "exact": buffer.dtype == torch.float32}
    _expand[triton.cdiv(pixels, _EXPAND["block_pixels"]), triton.cdiv(hidden_channels, block_hidden)](
        buffer, weights.expand, weights.expand_bias, hidden, pixels, stride,
        channels=channels, hidden_channels=hidden_channels, block_hidden=block_hidden, **_EXPAND, **common,
    )  # fmt: skip
    _depthwise_project[(triton.cdiv(pixels, _PROJECT["block_pixels"]),)](
        hidden, weights.depthwise, weights.depthwise_bias, weights.project, weights.project_bias,
        buffer, pixels, height, width, stride, start,
        hidden_channels=hidden_channels, out=out, residual=residual,
        block_out=max(16, triton.next_power_of_2(out)), **_PROJECT, **common,
    )  # fmt: skip
