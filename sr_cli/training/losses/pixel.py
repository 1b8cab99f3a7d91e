"""Losses between pictures: content, patterns on the upsampler's grid, flat places, local spectra."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3  #: Lai et al. 2017 (LapSRN), section 3.3.


def content(kind: str, output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean pixel distance between images of equal shape: `l1`, `l2` (MSE) or `charbonnier`."""
    if kind == "l1":
        return F.l1_loss(output, target)
    if kind == "l2":
        return F.mse_loss(output, target)
    assert kind == "charbonnier"
    return torch.sqrt((output - target) ** 2 + CHARBONNIER_EPSILON**2).mean()


GRID_WINDOW = 4  #: Side of the window over which `grid` averages, in low-resolution pixels.


def grid(output: Tensor, target: Tensor, scale: int = 4) -> Tensor:
    """Compare images of equal shape (N, 3, H, W), H and W multiples of `scale`, on the upsampler's grid.

    Mean absolute difference of the local means of each of the scale x scale positions that PixelShuffle fills, less
    what is the same at all positions. Texture that has nothing to do with the grid averages out; a pattern that
    repeats with every low-resolution pixel, the checkerboard of GANs with such upsamplers (Odena et al. 2016,
    "Deconvolution and checkerboard artifacts"), does not. An error of colour is no pattern, and does not count.
    """
    phases = F.pixel_unshuffle(output - target, scale)
    window = min(GRID_WINDOW, *phases.shape[2:])
    means = torch.unflatten(F.avg_pool2d(phases, window, stride=1), 1, (-1, scale**2))
    return (means - means.mean(2, keepdim=True)).abs().mean()


LATTICE_REACH = 2  #: Largest distance at which `lattice` looks for repetition, in low-resolution pixels each way.
LATTICE_WINDOW = 24  #: Side in pixels of the windows in which it does; neighbours overlap by half.
LATTICE_LEAST = 40  #: Smallest side of a picture, in pixels: a window, and the reach on both sides.
_LATTICE_FLOOR = (1 / 255) ** 2  #: Variance of fine structure below which repetition does not count.


def lattice(output: Tensor, target: Tensor, scale: int = 4) -> Tensor:
    """Penalise what repeats with the low-resolution pixels of images (N, 3, H, W), at least 40 pixels a side.

    Mean excess of the output's local correlation of fine structure, finer than a low-resolution pixel's neighbourhood
    of 5x5, with itself at distances of one and two low-resolution pixels in all directions, over the target's. `grid`
    sees what is the same in all low-resolution pixels; this sees a hatch or a screen too that turns, or alternates, or
    is faint beside the picture. Fine structure of photos has no reason to repeat at these distances; what a network
    makes of features that hardly vary has no other choice.
    """
    with torch.no_grad():
        allowed = _lattice_correlations(target, scale)
    return F.relu(_lattice_correlations(output, scale) - allowed).mean()


def _lattice_correlations(rgb: Tensor, scale: int) -> Tensor:
    """Correlate local fine structure of luma with itself: (N, distances, rows, columns), about -1..1."""
    fine = _luma(rgb)
    for _ in range(2):  # twice: what is as coarse as the low-resolution picture itself is to be gone
        fine = fine - F.avg_pool2d(fine, 5, stride=1, padding=2, count_include_pad=False)
    margin = LATTICE_REACH * scale
    height, width = fine.shape[2] - 2 * margin, fine.shape[3] - 2 * margin
    inner = fine[:, :, margin:-margin, margin:-margin]
    steps = range(-LATTICE_REACH, LATTICE_REACH + 1)
    half_plane = [(y, x) for y in steps for x in steps if (y, x) > (0, 0)]  # the other half is the same, moved
    tops_lefts = [(margin + scale * y, margin + scale * x) for y, x in half_plane]
    moved = torch.cat([fine[:, :, top : top + height, left : left + width] for top, left in tops_lefts], 1)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, LATTICE_WINDOW, stride=LATTICE_WINDOW // 2)

    return mean(inner * moved) / (torch.sqrt(mean(inner**2) * mean(moved**2) + 1e-16) + _LATTICE_FLOOR)


COHERENCE_WINDOW = 24  #: Side in pixels of the windows over which `coherence` averages; neighbours overlap by half.
COHERENCE_LEAST = 34  #: Smallest side of a picture, in pixels: a window, and the neighbourhoods of its gradients.
_COHERENCE_INNER = 5  #: Side of the neighbourhoods in which gradients are compared, in pixels of half size.
_COHERENCE_FLOOR = (2 / 255) ** 2  #: Mean square of gradients below which they do not count: 2 levels a pixel.


def coherence(output: Tensor, target: Tensor) -> Tensor:
    """Penalise lines where images (N, 3, H, W), at least 34 pixels a side, should have texture.

    Mean excess of the output's coherence over the target's. Coherence, 0..1, is the share of the gradients' energy
    that has one direction within 5x5 pixels of luma at half size (structure tensor; Weickert 1999, "Coherence-enhancing
    diffusion filtering", section 2), as a mean over windows. A network that cannot tell where leaves or patches of
    snow are joins them into lines that wind like worms; at half size, grain does not hide them.
    """
    with torch.no_grad():
        allowed = _coherence(target)
    return F.relu(_coherence(output) - allowed).mean()


def _coherence(rgb: Tensor) -> Tensor:
    """Compute the coherence of (N, 3, H, W) in overlapping windows: (N, 1, rows, columns), 0..1."""
    luma = F.avg_pool2d(_luma(rgb), 2)
    x = (luma[:, :, 1:-1, 2:] - luma[:, :, 1:-1, :-2]) / 2
    y = (luma[:, :, 2:, 1:-1] - luma[:, :, :-2, 1:-1]) / 2
    tensor = F.avg_pool2d(torch.cat([x**2 - y**2, 2 * x * y, x**2 + y**2], 1), _COHERENCE_INNER, stride=2)
    directed = torch.sqrt(tensor[:, :1] ** 2 + tensor[:, 1:2] ** 2 + 1e-16)
    cells = COHERENCE_WINDOW // 4  # each is 2 pixels of half size

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, cells, stride=cells // 2)

    return mean(directed) / (mean(tensor[:, 2:]) + _COHERENCE_FLOOR)


FLAT_WINDOW = 5
FLAT_DEVIATION = 3 / 255
"""Side in pixels of the neighbourhood that decides whether a place is flat, and the deviation at which it half is."""


def flat(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute difference of images (N, 3, H, W), counted only where the target is flat.

    Each pixel counts 1 / (1 + (d / 3 levels)^2), d being the target's standard deviation within 5x5 pixels of grey.
    A discriminator asks for texture everywhere; what it gets in a sky next to a horizon is ringing.
    """
    grey = F.pad(target.mean(1, keepdim=True), [FLAT_WINDOW // 2] * 4, mode="replicate")
    mean, square = (F.avg_pool2d(x, FLAT_WINDOW, stride=1) for x in (grey, grey**2))
    weight = 1 / (1 + (square - mean**2).clamp(min=0) / FLAT_DEVIATION**2)
    return (weight * (output - target).abs()).mean()


SPECTRAL_WINDOW = 16  #: Side of `spectral`'s windows, in pixels; neighbours overlap by half.
SPECTRAL_FLOOR = 0.05
"""Amplitude below which `spectral` sees no difference: about that of noise of 2 levels in a window."""
_LUMA = (0.299, 0.587, 0.114)


def spectral(output: Tensor, target: Tensor) -> Tensor:
    """Compare the local amplitude spectra of images of equal shape (N, 3, H, W), H and W at least 16.

    Mean absolute difference of log(0.05 + amplitude) of luma over 16x16 Hann windows every 8 pixels. It asks for
    texture of the target's strength and direction without asking for its place, and unlike features that begin at
    stride 4 it sees a pattern that repeats with every low-resolution pixel.
    """
    difference = _log_spectra(output) - _log_spectra(target)
    return difference.abs().mean()


def _log_spectra(rgb: Tensor) -> Tensor:
    """Compute the spectra of (N, 3, H, W): (N, rows, columns, 16, 9)."""
    step = SPECTRAL_WINDOW // 2
    windows = _luma(rgb)[:, 0].unfold(1, SPECTRAL_WINDOW, step).unfold(2, SPECTRAL_WINDOW, step)
    hann = torch.hann_window(SPECTRAL_WINDOW, periodic=False, device=rgb.device, dtype=rgb.dtype)
    spectra = torch.fft.rfft2(windows * hann.outer(hann))
    # The root of a sum of squares has no gradient at zero: the small term gives it one.
    amplitude = torch.sqrt(spectra.real**2 + spectra.imag**2 + 1e-8)
    return torch.log(SPECTRAL_FLOOR + amplitude)


def _luma(rgb: Tensor) -> Tensor:
    """Weigh the colours of (N, 3, H, W) as BT.601 does: (N, 1, H, W)."""
    return (rgb * rgb.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
