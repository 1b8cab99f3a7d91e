"""Converts what `Upscaler(...)` accepts to arrays, and results back to the same form.

Nothing here imports torch: a tensor can only come from a caller who has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli import images
from sr_cli.inference.pixels import AnyPixels

if TYPE_CHECKING:
    import torch

Picture = TypeVar("Picture", Image.Image, NDArray[Any], "torch.Tensor")
"""A Pillow image, a numpy array or a torch tensor; see `enlarge`."""

Enlarge = Callable[[AnyPixels], AnyPixels]
"""(H, W, 1 or 3) as uint8, uint16 or float32 in 0..1, to the enlarged image of the same type."""


def enlarge(picture: Picture, engine: Enlarge) -> Picture:
    """Enlarge `picture` by `engine`, in the form it came in.

    - A Pillow image of mode L, LA, RGB, RGBA or I;16 keeps its mode; 1 becomes L, and palettes, CMYK and others
      become RGB (RGBA with transparency). `info` (colour profile, EXIF) is kept; orientation is not applied.
    - An array (H, W) or (H, W, C), C = 1, 3, or with alpha 2 or 4, uint8 or uint16; floats are 0..1 and
      have no alpha. The type is kept; computation of floats is in float32.
    - A tensor (3, H, W) or (N, 3, H, W) of floats in 0..1 (or uint8); type and device are kept.

    Raises TypeError for anything else, ValueError for another shape or type of values.
    """
    if isinstance(picture, Image.Image):
        return _image(picture, engine)
    if isinstance(picture, np.ndarray):
        return _array(picture, engine)
    if "torch" in sys.modules and isinstance(picture, sys.modules["torch"].Tensor):
        return _tensor(picture, engine)
    raise TypeError(f"expected a Pillow image, a numpy array or a torch tensor, not {type(picture).__name__}")


def _image(image: Image.Image, engine: Enlarge) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"a Pillow image of mode {image.mode} has no defined white; pass a float array in 0..1")
    pixels, alpha = _with_alpha(*images.channels(image), engine)
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha], axis=2)
    result = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result


def _array(array: AnyPixels, engine: Enlarge) -> AnyPixels:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or 0 in array.shape:
        raise ValueError(f"an array must be (H, W) or (H, W, 1 to 4) and not empty, not {array.shape}")
    pixels = array.reshape(*array.shape[:2], channels)
    if np.issubdtype(array.dtype, np.floating):
        if channels in (2, 4):
            raise ValueError("an array with alpha must be uint8 or uint16; enlarge colours and alpha one by one")
        result = engine(pixels.astype(np.float32, copy=False)).astype(array.dtype, copy=False)
    elif array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an array must be uint8, uint16 or float, not {array.dtype}")
    elif channels in (2, 4):
        result = np.concatenate(_with_alpha(pixels[:, :, :-1], pixels[:, :, -1], engine), axis=2)  # type: ignore[arg-type]
    else:
        result = engine(pixels)
    return result[:, :, 0] if array.ndim == 2 else result


def _with_alpha(pixels: AnyPixels, alpha: AnyPixels | None, engine: Enlarge) -> tuple[AnyPixels, AnyPixels | None]:
    """Enlarge colours, spread under transparency first, so that no halo appears; and alpha (H, W, 1) by itself."""
    if alpha is None:
        return engine(pixels), None
    enlarged = engine(images.bleed(pixels, alpha))
    if bool((alpha == alpha.flat[0]).all()):
        return enlarged, np.full((*enlarged.shape[:2], 1), alpha.flat[0])
    return enlarged, engine(alpha[:, :, None])


def _tensor(tensor: torch.Tensor, engine: Enlarge) -> torch.Tensor:
    import torch

    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or 0 in tensor.shape:
        raise ValueError(f"a tensor must be (3, H, W) or (N, 3, H, W) and not empty, not {tuple(tensor.shape)}")
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        raise ValueError(f"a tensor must hold floats in 0..1 or uint8, not {tensor.dtype}")
    batch = tensor.detach().reshape(-1, *tensor.shape[-3:]).cpu()
    batch = batch.float() if batch.is_floating_point() else batch
    results = [torch.from_numpy(engine(one.permute(1, 2, 0).numpy())).permute(2, 0, 1) for one in batch]
    stacked = torch.stack(results).to(tensor.device, tensor.dtype)
    return stacked.reshape(*tensor.shape[:-2], *stacked.shape[-2:])
