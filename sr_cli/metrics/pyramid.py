"""The steerable pyramid and cubic resizing that NRQM is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BANDS = 6  #: Orientations of each scale.

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pyramid:
    """An image's subbands."""

    high: Floats  #: (H, W): the residual of the highest frequencies.
    bands: list[list[Floats]]  #: For each scale, from (H, W) on halving, its oriented subbands.


def _polar(height: int, width: int) -> tuple[Floats, Floats]:
    """Return the octaves above half of the Nyquist frequency, and the angles, of the centred frequency plane."""
    y = (np.arange(height) - height // 2) / (height / 2)
    x = (np.arange(width) - width // 2) / (width / 2)
    radius = np.hypot(x, y[:, None])
    radius[height // 2, width // 2] = radius[height // 2, width // 2 - 1]  # the logarithm needs some value
    return np.log2(radius), np.arctan2(y[:, None], x)


def _high_mask(octaves: Floats) -> Floats:
    """Return a raised cosine: 0 up to one octave below, 1 from 0 on. Its complement's root is the low mask."""
    return np.asarray(np.cos(np.pi / 2 * octaves.clip(-1, 0)))


def _low_mask(octaves: Floats) -> Floats:
    return np.asarray(-np.sin(np.pi / 2 * octaves.clip(-1, 0)))


def _inverse(spectrum: NDArray[np.complex128]) -> Floats:
    return np.ascontiguousarray(np.fft.ifft2(np.fft.ifftshift(spectrum)).real)


def steerable_pyramid(image: Floats, scales: int) -> Pyramid:
    """Decompose (H, W) into the frequency-domain steerable pyramid with six orientations.

    Simoncelli and Freeman, "The steerable pyramid" (1995); Portilla and Simoncelli, "A parametric texture
    model based on joint statistics of complex wavelet coefficients" (2000), section 2.1.
    """
    octaves, angles = _polar(*image.shape)
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    high = _inverse(spectrum * _high_mask(octaves))
    spectrum = spectrum * _low_mask(octaves)
    order = BANDS - 1
    gain = 2.0**order * math.factorial(order) / math.sqrt(BANDS * math.factorial(2 * order))
    bands = []
    for scale in range(1, scales + 1):
        passed = (-1j) ** order * spectrum * _high_mask(octaves + scale)
        cosines = (np.cos(angles - math.pi * b / BANDS) for b in range(BANDS))
        bands.append([_inverse(passed * (gain * (c * c) * (c * c) * c)) for c in cosines])
        inner = tuple(slice(n // 2 - (n + 1) // 4, n // 2 - (n + 1) // 4 + (n + 1) // 2) for n in spectrum.shape)
        octaves, angles = octaves[inner], angles[inner]
        spectrum = spectrum[inner] * _low_mask(octaves + scale)
    return Pyramid(high, bands)


def _cubic(x: Floats) -> Floats:
    """Compute Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0)))


def resize_cubic(image: Floats, size: tuple[int, ...]) -> Floats:
    """Enlarge (H, W) to `size` by a cubic filter, mirrored at the border, as MATLAB's imresize. Never reduces."""
    for axis in (0, 1):
        old, new = image.shape[axis], size[axis]
        if old == new:
            continue
        positions = (np.arange(new) + 0.5) * old / new - 0.5
        taps = np.floor(positions).astype(np.int64)[:, None] + np.arange(-1, 3)
        weights = _cubic(positions[:, None] - taps)
        weights /= weights.sum(1, keepdims=True)
        mirrored = np.concatenate([np.arange(old), np.arange(old)[::-1]])[taps % (2 * old)]
        moved = np.moveaxis(image, axis, 0)
        image = np.moveaxis(np.einsum("nk,nkw->nw", weights, moved[mirrored], optimize=True), 0, axis)
    return np.ascontiguousarray(image)
