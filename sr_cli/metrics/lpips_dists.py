"""LPIPS and DISTS, learned distances between an image and its reference, by torchmetrics; less is better.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1 on AlexNet;
Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity" (2020), on VGG16. torchmetrics
brings the weights that the two add; the classifiers' own come from torchvision. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.errors import WeightsError
from sr_cli.metrics.features import published, to_tensor

SMALLEST_SIDE = 64  #: Pixels a side below which AlexNet's and VGG16's last maps are empty or a single value.

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Takes two images (H, W, 3) of one size. Raises ValueError for images that are too small."""


def load(name: str, *, offline: bool = False) -> Distance:
    """Return `lpips` or `dists`, with the classifier's weights downloaded when they are first needed.

    Raises ImportError without torchmetrics, WeightsError if the weights are not available.
    """
    import torchmetrics  # noqa: F401  # before anything is downloaded for it

    url, megabytes, file = published({"lpips": "alexnet", "dists": "vgg16"}[name])
    size = round(megabytes)
    if offline and not file.exists():
        raise WeightsError(f"its classifier is not here, and offline; put {url} ({size} MB) at {file}")
    try:
        network = {"lpips": _lpips, "dists": _dists}[name]()
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot load its classifier ({size} MB from download.pytorch.org): {error}") from None

    def distance(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        if min(output.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(f"smaller than {SMALLEST_SIDE} pixels a side, too small for {name.upper()}")
        with torch.inference_mode():
            return float(network(to_tensor(output), to_tensor(reference)))

    return distance


def _lpips() -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network: Any = LearnedPerceptualImagePatchSimilarity(net_type="alex").net
    return partial(network.eval(), normalize=True)  # which takes RGB in 0..1


def _dists() -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.functional.image.dists import DISTSNetwork

    return DISTSNetwork().eval()
