"""LPIPS and DISTS, learned distances between an image and its reference, by torchmetrics; less is better.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1 on AlexNet;
Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity" (2020), on VGG16. torchmetrics
brings the weights that the two add; the classifiers' own come from torchvision. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sr_cli.errors import WeightsError

SMALLEST_SIDE = 64  #: Pixels a side below which AlexNet's and VGG16's last maps are empty or a single value.

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Takes two images (H, W, 3) of one size. Raises ValueError for images that are too small."""


def load(name: str, *, offline: bool = False) -> Distance:
    """Return `lpips` or `dists`, with the classifier's weights downloaded when they are first needed.

    Raises ImportError without torchmetrics, WeightsError if the weights are not available.
    """
    import torchmetrics  # noqa: F401  # before anything is downloaded for it

    size = _check_download(name, offline)
    try:
        network = {"lpips": _lpips, "dists": _dists}[name]().eval().requires_grad_(False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot load its classifier ({size} MB from download.pytorch.org): {error}") from None

    def distance(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        if min(output.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(f"smaller than {SMALLEST_SIDE} pixels a side, too small for {name.upper()}")
        with torch.inference_mode():
            return float(network(to_tensor(output), to_tensor(reference)))

    return distance


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """Return (H, W, 3) in 0..255 as a batch of one, (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255


def _check_download(name: str, offline: bool) -> int:
    """Return the size in MB of the classifier's weights. Raises WeightsError if they are not here and may not come."""
    from torchvision.models import AlexNet_Weights, VGG16_Weights  # type: ignore[import-untyped]

    published = {"lpips": AlexNet_Weights.IMAGENET1K_V1, "dists": VGG16_Weights.IMAGENET1K_V1}[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[-1]
    size = round(published.meta["_file_size"])
    if offline and not file.exists():
        raise WeightsError(f"its classifier is not here, and offline; put {published.url} ({size} MB) at {file}")
    return size


def _lpips() -> nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network: Any = LearnedPerceptualImagePatchSimilarity(net_type="alex").net

    class Lpips(nn.Module):
        """LPIPS of RGB in 0..1."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, output: Tensor, reference: Tensor) -> Tensor:
            distance: Tensor = self.network(output, reference, normalize=True)
            return distance

    return Lpips()


def _dists() -> nn.Module:
    from torchmetrics.functional.image.dists import DISTSNetwork

    return DISTSNetwork()
