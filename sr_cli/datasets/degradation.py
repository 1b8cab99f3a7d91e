"""What happens to photos before they reach us: blur, resizing, noise, JPEG, and all of it again.

The order is Real-ESRGAN's (Wang et al. 2021, section 3): a first round of blur, resizing, noise and JPEG
at high resolution, a second round around the reduction. The ranges are milder than theirs, which aim at
old pictures from the web: here, a sigma of blur ends at 2.4 instead of 3 pixels, of Gaussian noise at 10
instead of 30 levels, JPEG starts at quality 40 instead of 30, each step is left out more often, and one
patch in five is the plain reduction, so that a clean photo comes out as with the pixel stage.
docs/training.md has the table.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.datasets.reduction import SCALE

Rgb = NDArray[np.uint8]
Range = tuple[float, float]

_FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)


@dataclass(frozen=True)
class Step:
    """One step: how probable it is, and between which values it is drawn."""

    probability: float
    strength: Range


@dataclass(frozen=True)
class Degradation:
    """Probabilities and ranges of the steps. Sigmas of blur are in high-resolution pixels."""

    clean: float = 0.2  #: Share of patches that are only reduced.
    blur: Step = Step(0.6, (0.3, 2.4))  #: First blur; its standard deviation along each axis.
    isotropic: float = 0.6  #: Share of blurs with equal deviation in all directions.
    sinc: Step = Step(0.1, (0.15, 0.45))
    """Share of blurs that are an ideal low-pass filter, which rings as sharpened pictures do; its cut-off in cycles
    per high-resolution pixel, of which the reduction keeps 0.125."""
    resize: Step = Step(0.3, (0.5, 1.2))  #: Resizing before the reduction; its factor.
    noise: Step = Step(0.3, (1.0, 10.0))
    """Noise at high resolution; its standard deviation at middle grey, in levels of 255."""
    jpeg: Step = Step(0.25, (60, 98))  #: JPEG at high resolution; its quality.
    second_blur: Step = Step(0.2, (0.3, 1.5))  #: Blur after the first JPEG; its standard deviation.
    bicubic: float = 0.7  #: Share of reductions by the antialiased bicubic filter; the others take bilinear or box.
    final_noise: Step = Step(0.35, (0.5, 6.0))
    """Noise at low resolution; its standard deviation at middle grey, in levels of 255."""
    gray_noise: float = 0.4  #: Share of noise that is equal in the three channels.
    final_jpeg: Step = Step(0.8, (40, 96))  #: JPEG at low resolution; its quality.
    subsampling: float = 0.7  #: Share of JPEGs with halved chroma (4:2:0), Pillow's default below quality 95 or so.


PHOTO = Degradation()


def photo(hr: Rgb, rng: np.random.Generator, settings: Degradation = PHOTO) -> Rgb:
    """Make a low-resolution version (H/4, W/4, 3) of `hr` (H, W, 3), as a camera and a website would leave it."""
    height, width = hr.shape[0] // SCALE, hr.shape[1] // SCALE
    if rng.random() < settings.clean:
        return _resize(hr, height, width, Image.Resampling.BICUBIC)
    image = hr
    if rng.random() < settings.blur.probability:
        image = _blur(image, rng, settings.blur.strength, settings)
    if rng.random() < settings.resize.probability:
        factor = rng.uniform(*settings.resize.strength)
        image = _resize(image, round(hr.shape[0] * factor), round(hr.shape[1] * factor), _choose_filter(rng))
    if rng.random() < settings.noise.probability:
        image = noise(image, rng, rng.uniform(*settings.noise.strength), rng.random() < settings.gray_noise)
    if rng.random() < settings.jpeg.probability:
        image = _random_jpeg(image, rng, settings.jpeg.strength, settings)
    if rng.random() < settings.second_blur.probability:
        image = _blur(image, rng, settings.second_blur.strength, settings)
    bicubic = rng.random() < settings.bicubic
    image = _resize(image, height, width, Image.Resampling.BICUBIC if bicubic else _choose_filter(rng))
    if rng.random() < settings.final_noise.probability:
        image = noise(image, rng, rng.uniform(*settings.final_noise.strength), rng.random() < settings.gray_noise)
    if rng.random() < settings.final_jpeg.probability:
        image = _random_jpeg(image, rng, settings.final_jpeg.strength, settings)
    return image


_PADDING = 16
"""LR pixels that `whole_photo` adds at each side: a JPEG block of halved chroma, so that the blocks stay in place."""


def whole_photo(hr: Rgb, rng: np.random.Generator, settings: Degradation = PHOTO) -> Rgb:
    """Degrade a whole photo as `photo` does a patch: (H, W, 3), sides divisible by 4, to (H/4, W/4, 3).

    The filters take a picture for periodic; mirrored borders keep one side's colours from reaching the other.
    """
    margin = SCALE * _PADDING
    padded = np.pad(hr, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(photo(padded, rng, settings)[_PADDING:-_PADDING, _PADDING:-_PADDING])


CELL = 64  #: Side in LR pixels of what `cells` degrades at once; a multiple of JPEG's blocks, of halved chroma too.


def cells(hr: Rgb, rng: np.random.Generator, settings: Degradation = PHOTO) -> Rgb:
    """Degrade a photo cell by cell, each as another photo: (H, W, 3), sides divisible by 4, to (H/4, W/4, 3).

    One photo then shows as many kinds of damage as it has cells of 64x64 LR pixels.
    """
    lr = np.empty((hr.shape[0] // SCALE, hr.shape[1] // SCALE, 3), np.uint8)
    for top in range(0, lr.shape[0], CELL):
        for left in range(0, lr.shape[1], CELL):
            cell = hr[SCALE * top : SCALE * (top + CELL), SCALE * left : SCALE * (left + CELL)]
            lr[top : top + CELL, left : left + CELL] = whole_photo(cell, rng, settings)
    return lr


def _choose_filter(rng: np.random.Generator) -> Image.Resampling:
    return _FILTERS[rng.integers(len(_FILTERS))]


def _resize(rgb: Rgb, height: int, width: int, resampling: Image.Resampling) -> Rgb:
    return np.asarray(Image.fromarray(rgb).resize((width, height), resampling))


def _blur(rgb: Rgb, rng: np.random.Generator, sigma: Range, settings: Degradation) -> Rgb:
    if rng.random() < settings.sinc.probability:
        return low_pass(rgb, rng.uniform(*settings.sinc.strength))
    along = rng.uniform(*sigma)
    across = along if rng.random() < settings.isotropic else rng.uniform(*sigma)
    return gaussian_blur(rgb, along, across, rng.uniform(0, np.pi))


def _frequencies(rgb: Rgb) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vertical and horizontal frequencies of `rfft2`, in cycles per pixel, shaped to broadcast."""
    return (
        np.fft.fftfreq(rgb.shape[0]).astype(np.float32)[:, None],
        np.fft.rfftfreq(rgb.shape[1]).astype(np.float32)[None, :],
    )


def _filter(rgb: Rgb, transfer: NDArray[np.float32]) -> Rgb:
    """Filter by a transfer function; the picture counts as periodic, so its border is to be cropped."""
    spectrum = np.fft.rfft2(rgb.transpose(2, 0, 1).astype(np.float32))
    filtered = np.fft.irfft2(spectrum * transfer, rgb.shape[:2])
    return _to_bytes(filtered.transpose(1, 2, 0))


def gaussian_blur(rgb: Rgb, along: float, across: float, angle: float) -> Rgb:
    """Blur with standard deviations `along` and `across` an axis turned by `angle` (radians)."""
    y, x = _frequencies(rgb)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    transfer = np.exp(-2 * np.pi**2 * ((along * u) ** 2 + (across * v) ** 2))
    return _filter(rgb, transfer.astype(np.float32))


def low_pass(rgb: Rgb, cutoff: float) -> Rgb:
    """Remove all frequencies above `cutoff` cycles per pixel: the 2-D sinc filter of Real-ESRGAN."""
    y, x = _frequencies(rgb)
    return _filter(rgb, (np.hypot(x, y) <= cutoff).astype(np.float32))


def noise(rgb: Rgb, rng: np.random.Generator, sigma: float, gray: bool) -> Rgb:
    """Add a sensor's noise, after Foi et al. 2008.

    Its variance is `sigma`^2 at middle grey: half of it read noise (Gaussian), half photon noise (Poisson, here by its
    Gaussian limit) that grows with brightness.
    """
    level = rgb.astype(np.float32)
    deviation = sigma * np.sqrt(0.5 + level / 255)
    shape = (*rgb.shape[:2], 1) if gray else rgb.shape
    return _to_bytes(level + deviation * rng.standard_normal(shape, dtype=np.float32))


def _random_jpeg(rgb: Rgb, rng: np.random.Generator, quality: Range, settings: Degradation) -> Rgb:
    return jpeg(rgb, round(rng.uniform(*quality)), "4:2:0" if rng.random() < settings.subsampling else "4:4:4")


def jpeg(rgb: Rgb, quality: int, subsampling: str) -> Rgb:
    """Save a picture as JPEG and read it back."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "jpeg", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _to_bytes(values: NDArray[np.floating]) -> Rgb:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
