"""The discriminators of the GAN stage: one answer for a patch, for each 8x8 pixels, or for each pixel."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sr_cli.models.base import LEAKY_SLOPE, Normalise, init_he

HIDDEN = 1024  #: Width of the first linear layer.
STRIDE = 16  #: Pixels between what two neighbours of the last feature map look at; sides must be multiples of it.


class _Strided(nn.Module):
    """3x3 convolutions, every other one with stride 2, each but the first with BatchNorm.

    `forward` takes RGB in 0..1, (N, 3, H, W), and gives the features (N, widths[-1], H/n, W/n).
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for index, (before, width) in enumerate(itertools.pairwise([3, *widths])):
            self.convs.append(nn.Conv2d(before, width, 3, stride=1 + index % 2, padding=1, bias=index == 0))
            self.norms.append(nn.BatchNorm2d(width, track_running_stats=False) if index else nn.Identity())

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.normalise(rgb)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), LEAKY_SLOPE)
        return x

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; with a `generator` the draw is reproducible."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_he(module, LEAKY_SLOPE, 1.0, generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                with torch.no_grad():
                    module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
                    module.bias.zero_()


class Discriminator(_Strided):
    """Tells photos from generated images: VGG-style, strided, BatchNorm (Ledig et al. 2017, fig. 4).

    The features are pooled to one vector before the linear layers, so that any patch does.

    `forward` takes RGB in 0..1, (N, 3, H, W) with H and W multiples of 16, and gives logits (N, 1):
    the sigmoid that ends SRGAN's discriminator is part of the loss.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__([features * n for n in (1, 1, 2, 2, 4, 4, 8, 8)])
        self.hidden = nn.Linear(8 * features, HIDDEN)
        self.logit = nn.Linear(HIDDEN, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = F.leaky_relu(self.hidden(super().forward(rgb).mean((2, 3))), LEAKY_SLOPE)
        logits: Tensor = self.logit(x)
        return logits


class PatchDiscriminator(_Strided):
    """Tells photos from generated images in each neighbourhood: the first six layers of `Discriminator`, not pooled.

    A PatchGAN (Isola et al. 2017, section 3.2.2) on overlapping neighbourhoods of 45 pixels. With BatchNorm it learns
    within some hundred steps, with spectral normalisation it stays at chance (docs/training.md).
    `forward` takes RGB in 0..1, (N, 3, H, W) with H and W multiples of 8, and gives logits (N, 1, H/8, W/8).
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__([features * n for n in (1, 1, 2, 2, 4, 4)])
        self.logit = nn.Conv2d(4 * features, 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        logits: Tensor = self.logit(super().forward(rgb))
        return logits


class UnetDiscriminator(nn.Module):
    """Tells photos from generated images pixel by pixel: a U-Net with spectral normalisation.

    Wang et al. 2021 (Real-ESRGAN), section 3.4; three halvings, bilinear doublings, skip connections by addition.
    `forward` takes RGB in 0..1, (N, 3, H, W) with H and W multiples of 8, and gives logits (N, 1, H, W).
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        widths = [features, 2 * features, 4 * features, 8 * features]
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([_normalised(a, b, 4, stride=2) for a, b in pairs])
        self.up = nn.ModuleList([_normalised(b, a, 3) for a, b in reversed(pairs)])
        self.last = nn.ModuleList([_normalised(features, features, 3) for _ in range(2)])
        self.logit = nn.Conv2d(features, 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = F.leaky_relu(self.head(self.normalise(rgb)), LEAKY_SLOPE)
        skipped = []
        for conv in self.down:
            skipped.append(x)
            x = F.leaky_relu(conv(x), LEAKY_SLOPE)
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), LEAKY_SLOPE) + skipped.pop()
        for conv in self.last:
            x = F.leaky_relu(conv(x), LEAKY_SLOPE)
        logits: Tensor = self.logit(x)
        return logits

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; with a `generator` the draw is reproducible."""
        for module in self.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            normalised = hasattr(module, "parametrizations")
            weight = module.parametrizations.weight.original if normalised else module.weight  # type: ignore[union-attr]
            with torch.no_grad():
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)  # type: ignore[operator,index]
                if module.bias is not None:
                    module.bias.zero_()
            if normalised:
                _restart_power_iteration(module, generator)


def _normalised(channels: int, out_channels: int, side: int, stride: int = 1) -> nn.Module:
    """Build a convolution without bias whose largest singular value is held at 1 (Miyato et al. 2018)."""
    conv = nn.Conv2d(channels, out_channels, side, stride=stride, padding=1, bias=False)
    return spectral_norm(conv)


@torch.no_grad()
def _restart_power_iteration(conv: nn.Conv2d, generator: torch.Generator | None) -> None:
    """Draw the vectors of the power iteration, which come from torch's global generator otherwise."""
    norm = conv.parametrizations.weight[0]  # type: ignore[union-attr,index]
    original = conv.parametrizations.weight.original.flatten(1)  # type: ignore[union-attr,operator]
    left = F.normalize(torch.randn(original.shape[0], generator=generator), dim=0)
    right = left
    for _ in range(15):
        right = F.normalize(original.t() @ left, dim=0)
        left = F.normalize(original @ right, dim=0)
    norm._u.copy_(left)  # type: ignore[union-attr]  # private: torch gives it no other name
    norm._v.copy_(right)  # type: ignore[union-attr]  # private: torch gives it no other name


DISCRIMINATORS: dict[str, type[Discriminator] | type[PatchDiscriminator] | type[UnetDiscriminator]] = {
    "vgg": Discriminator,
    "patch": PatchDiscriminator,
    "unet": UnetDiscriminator,
}
