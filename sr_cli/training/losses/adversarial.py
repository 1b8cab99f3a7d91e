"""Losses on the discriminator's logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _is(real: bool, logits: Tensor) -> Tensor:
    """Compute the cross entropy of calling `logits` real, or generated."""
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target)


def discriminator(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Compute what the discriminator minimises, from its logits (of any shape) of photos and of generated pictures.

    `vanilla`: Goodfellow et al. 2014, section 3. `relativistic`: the average of Jolicoeur-Martineau
    2018, as in Wang et al. 2018 (ESRGAN), eq. 1.
    """
    if kind == "vanilla":
        return _is(True, real) + _is(False, fake)
    assert kind == "relativistic"
    return _is(True, real - fake.mean()) + _is(False, fake - real.mean())


def generator(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Compute what the generator minimises, from the same logits: the non-saturating form (ESRGAN, eq. 2)."""
    if kind == "vanilla":
        return _is(True, fake)
    assert kind == "relativistic"
    return _is(False, real - fake.mean()) + _is(True, fake - real.mean())
