"""The perceptual index of the PIRM 2018 challenge: needs no reference; less is better."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.niqe import NiqeParameters, niqe_of_luma
from sr_cli.metrics.nrqm import NrqmModel, nrqm_of_luma

SHAVED = 4


def pirm_luma(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Compute what PIRM's code measures: studio-range luma rounded to 8 bits, without 4 pixels at each side.

    Both differ from NIQE's and NRQM's own convention (full-range luma, whole image). (H, W, 3) in 0..255.
    """
    return crop_border(np.floor(luma(rgb) + 0.5), SHAVED)


def perceptual_index(rgb: NDArray[Any], parameters: NiqeParameters, model: NrqmModel) -> float:
    """Compute ((10 - NRQM) + NIQE) / 2 of an image (H, W, 3) in 0..255, both on `pirm_luma`.

    Blau et al., "The 2018 PIRM Challenge on Perceptual Image Super-Resolution" (2018), section 3, and the
    code published with it. Raises ValueError for images too small for either.
    """
    y = pirm_luma(rgb)
    return (10 - nrqm_of_luma(y, model) + niqe_of_luma(y, parameters)) / 2
