"""What training does to a generator's weights beside descending: some it keeps even, some it gives a second path."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@torch.no_grad()
def even_subpixels(conv: nn.Conv2d, shuffle: int) -> None:
    """Make a convolution answer a constant equally at all pixels that the PixelShuffle after it puts side by side.

    Each kernel's sum becomes the mean of the sums of its `shuffle**2` neighbours, and so does its bias: the nearest
    weights with which features that do not vary give an image without a pattern on the upsampler's grid (Sugawara
    et al. 2018, "Super-resolution using convolutional neural networks without any checkerboard artifacts").
    """
    kernels = conv.weight.view(-1, shuffle**2, *conv.weight.shape[1:])
    sums = kernels.sum((3, 4), keepdim=True)
    kernels.sub_((sums - sums.mean(1, keepdim=True)) / (kernels.shape[3] * kernels.shape[4]))
    if conv.bias is not None:
        biases = conv.bias.view(-1, shuffle**2)
        biases.copy_(biases.mean(1, keepdim=True).expand_as(biases))


class ParallelPath(nn.Module):
    """What a 1x1 convolution's weight (O, I, 1, 1) learns beside itself: a path through 2 max(O, I) channels.

    The sum of both is again a 1x1 convolution, so that the path exists in training alone. It starts at zero. More
    parameters for the same function are easier to optimise (Guo et al. 2020, "ExpandNets").
    """

    def __init__(self, weight: Tensor, generator: torch.Generator | None = None) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        inner = torch.randn(2 * max(outputs, inputs), inputs, generator=generator) / math.sqrt(inputs)
        self.inner = nn.Parameter(inner.to(weight))
        self.outer = nn.Parameter(weight.new_zeros(outputs, len(inner)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.outer @ self.inner)[..., None, None]


def widen_pointwise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give all 1x1 convolutions a `ParallelPath`; their `weight` is from then on the sum, computed when it is read."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            parametrize.register_parametrization(module, "weight", ParallelPath(module.weight, generator))
