"""The discriminator of the GAN stage (Ledig et al. 2017, fig. 4): VGG-style, strided, BatchNorm.

The features are pooled to one vector before the linear layers, so that any patch does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE, Normalise, init_he

HIDDEN = 1024
"""Width of the first linear layer."""
STRIDE = 16
"""Pixels between what two neighbours of the last feature map look at; sides must be multiples of it."""


class Discriminator(nn.Module):
    """Tells photographs from generated pictures.

    `forward` takes RGB in 0..1, (N, 3, H, W) with H and W multiples of 16, and gives logits (N, 1):
    the sigmoid that ends SRGAN's discriminator is part of the loss.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        widths = [features * n for n in (1, 1, 2, 2, 4, 4, 8, 8)]
        self.normalise = Normalise()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels = 3
        for index, width in enumerate(widths):
            first = index == 0
            self.convs.append(nn.Conv2d(channels, width, 3, stride=1 + index % 2, padding=1, bias=first))
            self.norms.append(nn.Identity() if first else nn.BatchNorm2d(width, track_running_stats=False))
            channels = width
        self.hidden = nn.Linear(channels, HIDDEN)
        self.logit = nn.Linear(HIDDEN, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.normalise(rgb)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), LEAKY_SLOPE)
        x = F.leaky_relu(self.hidden(x.mean((2, 3))), LEAKY_SLOPE)
        logits: Tensor = self.logit(x)
        return logits

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws fresh weights; with a `generator` the draw is reproducible."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_he(module, LEAKY_SLOPE, 1.0, generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                with torch.no_grad():
                    module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
                    module.bias.zero_()
