"""Inference: how a picture goes through a network, or through plain interpolation.

`upscaler` is the public face. `tiling` cuts pictures, `colours` keeps what a network must not change, `pictures` takes
and gives back Pillow images, arrays and tensors, `memory` knows how much of it is free, and `backends` holds the ways
to run a network. Importing this package does not import torch.
"""

from sr_cli.inference.upscaler import (
    PRECISIONS,
    EngineResult,
    Pixels,
    Progress,
    Upscaler,
    choose_device,
    choose_precision,
    interpolate,
    precision_name,
    to_unit,
)
from sr_cli.weights.specs import INTERPOLATIONS

__all__ = [
    "INTERPOLATIONS",
    "PRECISIONS",
    "EngineResult",
    "Pixels",
    "Progress",
    "Upscaler",
    "choose_device",
    "choose_precision",
    "interpolate",
    "precision_name",
    "to_unit",
]
