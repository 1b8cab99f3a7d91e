"""Layers that more than one generator family uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.base import LEAKY_SLOPE, Prelu


class DenseBlock(nn.Module):
    """Residual dense block (Wang et al. 2018, ESRGAN, fig. 4) over five layers given by the caller.

    Layer i sees the block's input and the outputs of all layers before it; the last layer's output
    is scaled and added to the input. Shapes (N, features, H, W) in and out. `activate` puts a
    leaky ReLU after all layers but the last, as ESRGAN does; MESRGAN's bottlenecks end linearly.
    """

    def __init__(self, layers: list[nn.Module], activate: bool, residual_scaling: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activate = activate
        self.residual_scaling = residual_scaling

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in list(self.layers)[:-1]:
            y = layer(seen)
            # One after the other: OpenVINO can then compute each where it belongs (inference/backends/openvino.py).
            seen = torch.cat([seen, F.leaky_relu(y, LEAKY_SLOPE, inplace=True) if self.activate else y], 1)
        y = self.layers[-1](seen)
        return (y if self.residual_scaling == 1.0 else y * self.residual_scaling).add_(x)

    def fold_(self) -> None:
        """Move the residual scaling into the last layer's weights."""
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
        self.activations = nn.ModuleList([Prelu() for _ in range(stages)])

    def forward(self, x: Tensor) -> Tensor:
        for conv, activation in zip(self.convs, self.activations, strict=True):
            x = activation(F.pixel_shuffle(conv(x), 2))
        return x

    def shuffled_convs(self) -> list[tuple[nn.Conv2d, int]]:
        return [(conv, 2) for conv in self.convs if isinstance(conv, nn.Conv2d)]

    def init_identity(self, slope: float) -> None:
        """Pass the image on, see `init_identity`; `slope` is that of the activation before the first stage."""
        for conv, activation in zip(self.convs, self.activations, strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
            init_identity(conv, slope, shuffle=2)
            slope = activation.weight.item()


@torch.no_grad()
def equal_subpixels(conv: nn.Conv2d, shuffle: int = 2) -> None:
    """Make the weights of a convolution equal for all pixels that the PixelShuffle after it puts side by side.

    Training then starts without a pattern on the upsampler's grid (Aitken et al. 2017, section 3.2).
    """
    first = conv.weight[:: shuffle**2].clone()
    conv.weight.copy_(first.repeat_interleave(shuffle**2, 0))


IDENTITY_CHANNELS = 6  #: Channels that `init_identity` takes: red, green and blue, and their negatives.


@torch.no_grad()
def init_identity(conv: nn.Conv2d, slope: float = 1.0, shuffle: int = 1) -> None:
    """Set initial weights that pass the image on, so that training starts near its enlargement.

    The first six channels between two such convolutions hold RGB and its negative: after an activation with
    `slope` for negative values (1: none) the one minus the other is still 1 + slope times the image. A
    convolution of three inputs takes the image from them, one of three outputs gives it back and keeps its other
    weights. With `shuffle` 2 it enlarges linearly for the PixelShuffle(2) that follows.
    """
    inputs, side = conv.in_channels, conv.kernel_size[0]
    read = torch.zeros(3, inputs)
    read[:, :3] = torch.eye(3)
    if inputs > 3:
        read[:, 3:IDENTITY_CHANNELS] = -torch.eye(3)
        read /= 1 + slope
    give = torch.eye(3) if conv.out_channels == 3 else torch.cat([torch.eye(3), -torch.eye(3)])
    # Output pixels are a quarter of an input pixel to either side of its centre.
    taps = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]]) if shuffle == 2 else torch.tensor([[0.0, 1.0, 0.0]])
    kernel = F.pad(torch.einsum("iy,jx->ijyx", taps, taps), [(side - 3) // 2] * 4)
    weight = torch.einsum("oc,cn,ijyx->oijnyx", give, read, kernel).reshape(-1, inputs, side, side)
    rows = conv.weight[: len(weight)]
    if conv.out_channels == 3:
        rows += weight
    else:
        rows.copy_(weight)


def fold_batchnorm(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Fold a BatchNorm in evaluation mode into `conv` before it; return the identity that takes its place."""
    if isinstance(norm, nn.Identity):
        return norm
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(gain) if conv.bias is None else conv.bias.double()
    bias = (bias - norm.running_mean.double()) * gain + norm.bias.double()
    conv.weight.data = (conv.weight.double() * gain.view(-1, 1, 1, 1)).to(conv.weight.dtype)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    return nn.Identity()


def bicubic_phases(scale: int) -> Tensor:
    """Return the weights (scale^2, 1, 5, 5) that give all phases of bicubic enlargement (cubic, a = -0.5) at once.

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
    taps = torch.tensor([[cubic(k - c) for k in range(-2, 3)] for c in centres], dtype=torch.float64, device="cpu")
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
        # bf16 has 8 bits: enough for the detail that a network adds, not for the image it is added to.
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(padded, self.kernel.to(x.dtype), groups=self.channels)
