"""The losses of both stages: content, adversarial, feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3
"""Lai et al. 2017 (LapSRN), section 3.3."""


def content(kind: str, output: Tensor, target: Tensor) -> Tensor:
    """Mean pixel distance between images of equal shape: `l1`, `l2` (MSE) or `charbonnier`."""
    if kind == "l1":
        return F.l1_loss(output, target)
    if kind == "l2":
        return F.mse_loss(output, target)
    assert kind == "charbonnier"
    return torch.sqrt((output - target) ** 2 + CHARBONNIER_EPSILON**2).mean()
