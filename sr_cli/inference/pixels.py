"""Pixels of images as arrays, and as batches for a network. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sr_cli.inference.tiling import Tile

if TYPE_CHECKING:
    import torch

AnyPixels: TypeAlias = NDArray[Any]  #: (H, W, C), C = 1 or 3, as uint8 (0..255), uint16 (0..65535) or float32 (0..1).


def check_pixels(pixels: AnyPixels) -> None:
    """Raise ValueError for arrays of another shape or type, and for values that are not finite."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W, 1 or 3) and not empty, not {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"pixels must be uint8, uint16 or float32, not {pixels.dtype}")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        row, column, _ = np.argwhere(~np.isfinite(pixels))[0]
        raise ValueError(f"pixels must be finite, and row {row}, column {column} of the input is not (NaN or infinite)")


def full_intensity(dtype: np.dtype[Any]) -> float:
    """Return the value that stands for full intensity: 255, 65535 or 1."""
    return 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)


class Windows:
    """An image on a device, from which the windows of tiles are cut."""

    def __init__(self, pixels: AnyPixels, device: torch.device) -> None:
        import torch

        # uint16 has few operations in torch; copying into another type is one of them. What cannot be written is copied
        # here: torch has no such tensors, and warns.
        self._picture = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(device)
        self._full = full_intensity(pixels.dtype)

    def batch(self, windows: Sequence[Tile]) -> torch.Tensor:
        """Cut windows of one size as a network takes them: (n, 3, h, w) in 0..1, channels-last, on the device."""
        import torch

        height, width, channels = windows[0].height, windows[0].width, self._picture.shape[2]
        cut = torch.empty(len(windows), height, width, channels, device=self._picture.device)
        for target, window in zip(cut, windows, strict=True):
            target.copy_(self._picture[window.top : window.top + height, window.left : window.left + width])
        batch = cut.div_(self._full).permute(0, 3, 1, 2)  # seen this way it is channels-last already
        return batch.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def to_samples(values: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """Convert floats (N, C, H, W), clamped to 0..1 and rounded in place, to (N, H, W, C) on their device.

    The samples are uint8, float32, or uint16 in the shape of int16 of the same bits.
    """
    import torch

    values = values.clamp_(0.0, 1.0)
    if dtype != np.float32:
        values = values.mul_(full_intensity(dtype)).round_()
    if dtype == np.uint8:
        values = values.to(torch.uint8)
    elif dtype == np.uint16:
        values = values.to(torch.int32).to(torch.int16)
    return values.permute(0, 2, 3, 1).contiguous()
