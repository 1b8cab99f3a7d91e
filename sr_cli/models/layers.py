"""Layers that more than one generator family uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE


class DenseBlock(nn.Module):
    """Residual dense block (Wang et al. 2018, ESRGAN, fig. 4) over five layers given by the caller.

    Layer i sees the block's input and the outputs of all layers before it; the last layer's output
    is scaled and added to the input. Shapes (N, features, H, W) in and out. `activate` puts a
    leaky ReLU behind all layers but the last, as ESRGAN does; MESRGAN's bottlenecks end linearly.
    """

    def __init__(self, layers: list[nn.Module], activate: bool, residual_scaling: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activate = activate
        self.residual_scaling = residual_scaling

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in list(self.layers)[:-1]:
            y = layer(torch.cat(seen, 1))
            seen.append(F.leaky_relu(y, LEAKY_SLOPE, inplace=True) if self.activate else y)
        y = self.layers[-1](torch.cat(seen, 1))
        return (y if self.residual_scaling == 1.0 else y * self.residual_scaling).add_(x)

    def fold_(self) -> None:
        """Moves the residual scaling into the last layer's weights."""
        last = self.layers[-1]
        conv = last if isinstance(last, nn.Conv2d) else last.project
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        with torch.no_grad():
            conv.weight.mul_(self.residual_scaling)
            conv.bias.mul_(self.residual_scaling)
        self.residual_scaling = 1.0


class Upsampler(nn.Module):
    """Doubles the size twice: conv3x3 64 to 256, PixelShuffle(2), PReLU (Ledig et al. 2017, fig. 4)."""

    def __init__(self, features: int, stages: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(features, 4 * features, 3, padding=1) for _ in range(stages)])
        self.activations = nn.ModuleList([nn.PReLU() for _ in range(stages)])

    def forward(self, x: Tensor) -> Tensor:
        for conv, activation in zip(self.convs, self.activations, strict=True):
            x = activation(F.pixel_shuffle(conv(x), 2))
        return x


def fold_batchnorm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution equal to `conv` followed by `norm` in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(gain) if conv.bias is None else conv.bias.double()
    bias = (bias - norm.running_mean.double()) * gain + norm.bias.double()
    conv.weight.data = (conv.weight.double() * gain.view(-1, 1, 1, 1)).to(conv.weight.dtype)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    return conv


def bicubic_phases(scale: int) -> Tensor:
    """Weights (scale^2, 1, 5, 5) that give all phases of bicubic enlargement (cubic, a = -0.5) at once.

    Row p = scale*i + j holds the taps of output pixel (i, j) within its input pixel, in the order that
    PixelShuffle expects. Away from the border (where the caller pads by replication) the result is
    Pillow's BICUBIC. Keys 1981, eq. 4 with a = -1/2.
    """

    def cubic(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    centres = [(phase + 0.5) / scale - 0.5 for phase in range(scale)]
    taps = torch.tensor([[cubic(k - c) for k in range(-2, 3)] for c in centres], dtype=torch.float64)
    kernel = torch.einsum("iy,jx->ijyx", taps, taps).reshape(scale**2, 1, 5, 5)
    return kernel.float()


class BicubicPhases(nn.Module):
    """Bicubic enlargement before its PixelShuffle: (N, C, H, W) to (N, C*scale^2, H, W)."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", bicubic_phases(scale).repeat(channels, 1, 1, 1), persistent=False)

    kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
        # bf16 has 8 bits: enough for the detail that a network adds, not for the picture it is added to.
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(padded, self.kernel.to(x.dtype), groups=self.channels)
