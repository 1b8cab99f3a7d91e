"""Colours kept: what a network changes in the mean over an area is taken back, and what is flat stays flat.

Networks shift colours a little (a bias of a third of a level, say, which makes white 254), and adversarial training
leaves a faint grid on even areas. But the low frequencies of an enlargement are known: they are those of the input.
So one step of back-projection (Irani and Peleg 1991, "Improving resolution by image registration") adds the enlarged
difference between the input and the reduced output, smoothed so far that no detail is touched; and where the input
is one colour all around, so is the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sr_cli.inference.tiling import Tile

if TYPE_CHECKING:
    import torch

SIGMA = 3.0
"""Of the smoothing, in input pixels: on Set14, clean, noisy and JPEG-compressed, 2 to 8 raise PSNR by 0.003 to 0.015 dB
(without smoothing it falls by up to 0.12 dB: a box reduction is not how the inputs were made)."""
REACH = 8  #: How far, in input pixels, an input pixel has influence through this.
_FLAT_RADIUS = 4
"""An input pixel is on a flat area if everything so far around it, and what touches that, has its colour."""
_FADE_RADIUS = 2  #: Flat areas are entered over so many input pixels more.


def keep_colours(output: torch.Tensor, rgb: torch.Tensor, cores: Sequence[Tile] | None = None) -> torch.Tensor:
    """Give `output` (N, C, s*H, s*W) the low frequencies of its input `rgb` (N, C, H, W) in 0..1, clamped; float.

    `output` itself may be clamped as well: at this size every copy counts. `cores` are N rectangles of one size, in
    input pixels, that are cut out of the results (None: all of them): what is around them has influence alone.
    """
    cores = [Tile(0, 0, *rgb.shape[2:])] * len(rgb) if cores is None else cores
    scale = output.shape[-1] // rgb.shape[-1]
    # Plane by plane: torch enlarges three channels side by side at a quarter of the speed.
    rgb = rgb.contiguous()
    output = output.contiguous().clamp_(0.0, 1.0)
    return _with_flat_areas(_with_low_frequencies(output, rgb, scale, cores), rgb, scale, cores)


def _with_low_frequencies(output: torch.Tensor, rgb: torch.Tensor, scale: int, cores: Sequence[Tile]) -> torch.Tensor:
    difference = rgb - _reduced(output, scale)
    smooth = _smoothed(_smoothed(difference, dim=3), dim=2)
    return _enlarged(smooth, scale, cores).add_(_cut(output, cores, scale))


def _reduced(planes: torch.Tensor, scale: int) -> torch.Tensor:
    """Compute the means of squares of `scale` times `scale` pixels.

    As sums of slices: torch's pooling takes three times as long on a CPU.
    """
    count, channels, height, width = planes.shape
    rows = planes.reshape(count, channels, height // scale, scale, width).sum(dim=3)
    total = rows[..., ::scale].clone()
    for column in range(1, scale):
        total.add_(rows[..., column::scale])
    return total.div_(scale**2)


def _enlarged(planes: torch.Tensor, scale: int, cores: Sequence[Tile]) -> torch.Tensor:
    """Enlarge the cores bilinearly."""
    import torch.nn.functional as F

    # It looks at one pixel beyond their borders. In the padded planes, these begin where the cores began.
    wider = [Tile(core.top, core.left, core.height + 2, core.width + 2) for core in cores]
    planes = _cut(F.pad(planes, (1, 1, 1, 1), "replicate"), wider)
    return _stretched(_stretched(planes, scale, dim=3), scale, dim=2)


def _stretched(planes: torch.Tensor, scale: int, dim: int) -> torch.Tensor:
    """Interpolate linearly along one dimension to `scale` times its length, without its first and its last pixel.

    Phase by phase: torch's own takes six times as long on a CPU.
    """
    import torch

    length = planes.shape[dim] - 2
    phases = planes.new_empty((*planes.shape[:dim], length, scale, *planes.shape[dim + 1 :]))
    for phase in range(scale):
        first, weight = divmod((phase + 0.5) / scale + 0.5, 1)  # distance from the previous pixel
        before, after = (planes.narrow(dim, int(first) + step, length) for step in (0, 1))
        torch.lerp(before, after, weight, out=phases.select(dim + 1, phase))
    return phases.flatten(dim, dim + 1)


def _cut(planes: torch.Tensor, cores: Sequence[Tile], scale: int = 1) -> torch.Tensor:
    """Cut a rectangle, given in pixels of 1/scale, out of each of (N, C, H, W); a view where all are the same."""
    import torch

    places = [
        (slice(scale * c.top, scale * (c.top + c.height)), slice(scale * c.left, scale * (c.left + c.width)))
        for c in cores
    ]
    if places.count(places[0]) == len(places):
        return planes[:, :, *places[0]]
    return torch.stack([one[:, *place] for one, place in zip(planes, places, strict=True)])


def _smoothed(planes: torch.Tensor, dim: int) -> torch.Tensor:
    """Smooth by a Gaussian along one dimension of (N, C, H, W), beyond whose ends the last values are repeated.

    As a sum of shifted copies: torch's convolutions take twenty times as long for so few channels on a CPU.
    """
    import torch.nn.functional as F

    length = planes.shape[dim]
    padded = F.pad(planes, (REACH, REACH, 0, 0) if dim == 3 else (0, 0, REACH, REACH), "replicate")
    weights = [math.exp(-0.5 * (distance / SIGMA) ** 2) for distance in range(REACH + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    smooth = planes * (weights[0] / total)
    for distance in range(1, REACH + 1):
        both = padded.narrow(dim, REACH - distance, length) + padded.narrow(dim, REACH + distance, length)
        smooth.add_(both, alpha=weights[distance] / total)
    return smooth


def _with_flat_areas(output: torch.Tensor, rgb: torch.Tensor, scale: int, cores: Sequence[Tile]) -> torch.Tensor:
    import torch.nn.functional as F

    busy = _differing(rgb)
    side = 2 * _FLAT_RADIUS + 1
    busy = F.max_pool2d(busy, (1, side), 1, (0, _FLAT_RADIUS))
    busy = F.max_pool2d(busy, (side, 1), 1, (_FLAT_RADIUS, 0))
    if output.device.type == "cpu" and bool(busy.all()):  # a GPU would have to be waited for
        return output
    flat = F.pad(1 - busy, (_FADE_RADIUS,) * 4, "replicate")
    weight = F.avg_pool2d(flat, 2 * _FADE_RADIUS + 1, 1)
    colours = F.interpolate(_cut(rgb, cores), scale_factor=scale, mode="nearest")
    return output.lerp(colours, _enlarged(weight, scale, cores))


def _differing(rgb: torch.Tensor) -> torch.Tensor:
    """Mark with 1 each pixel of (N, C, H, W) that has another colour than a neighbour next to or above it, else 0."""
    busy = rgb.new_zeros((rgb.shape[0], 1, *rgb.shape[2:]))
    for dim in (2, 3):
        length = rgb.shape[dim] - 1
        unequal = (rgb.narrow(dim, 0, length) != rgb.narrow(dim, 1, length)).any(dim=1, keepdim=True)
        busy.narrow(dim, 0, length).masked_fill_(unequal, 1)
        busy.narrow(dim, 1, length).masked_fill_(unequal, 1)
    return busy
