"""Distance between the feature maps that a classifier makes of two pictures; less is better.

Training minimises it (the feature or perceptual loss), `srup eval` reports it as the metric `features`.
Needs torch.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sr_cli import state_dicts
from sr_cli.errors import WeightsError


class FeatureLoss(nn.Module):
    """Distance between the feature maps of a classifier, its input RGB in 0..1, (N, 3, H, W).

    `relative` divides each map's distance by the mean magnitude of the photo's own map: the networks'
    and layers' scales then do not matter, and a pixel-stage generator is at about 0.4.
    """

    def __init__(self, net: FeatureNet, distance: str, relative: bool) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[distance]
        self.relative = relative
        self.power = {"l1": 1, "l2": 2}[distance]

    def forward(self, output: Tensor, target: Tensor, step: int = 0) -> Tensor:
        output, target = (self.net.crop(rgb, step) for rgb in (output, target))
        with torch.no_grad():
            wanted = self.net(target)
        total = output.new_zeros(())
        for mine, theirs in zip(self.net(output), wanted, strict=True):
            mine, theirs = mine.float(), theirs.float()
            distance = self.distance(mine, theirs)
            total = total + (distance / theirs.abs().pow(self.power).mean() if self.relative else distance)
        return total / len(wanted)


class FeatureDistance:
    """The metric `features`: the relative L1 `FeatureLoss` of a whole picture against its reference."""

    def __init__(self, net: FeatureNet) -> None:
        self.net = net
        self._loss = FeatureLoss(net, "l1", relative=True)

    def __call__(self, output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Return the distance of two pictures (H, W, 3) of one size. Raises ValueError where they are too small."""
        if min(output.shape[:2]) < self.net.min_side:
            raise ValueError(f"smaller than {self.net.min_side} pixels a side, too small for {type(self.net).__name__}")
        pictures = [torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255 for rgb in (output, reference)]
        with torch.inference_mode():
            return float(self._loss(*pictures))


class FeatureNet(nn.Module):
    """A classifier's convolutions; `forward` gives the maps to compare, before their activations."""

    min_side = 16
    """Smallest input side, in pixels."""

    def crop(self, rgb: Tensor, step: int) -> Tensor:
        """Cut out what of a patch is shown to the network at a step."""
        return rgb

    def forward(self, rgb: Tensor) -> list[Tensor]:
        raise NotImplementedError


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(FeatureNet):
    """VGG19 up to conv5_4 (Simonyan and Zisserman 2015, table 1, E), in torchvision's layer numbering."""

    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(*self.layers())
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        _load(self, {k: v for k, v in weights.items() if k.startswith("features.")})

    mean: Tensor
    std: Tensor

    @classmethod
    def layers(cls) -> list[nn.Module]:
        """Return the layers up to conv5_4, its ReLU left out."""
        layers: list[nn.Module] = []
        channels = 3
        for width in cls.WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        return layers[:-1]

    def forward(self, rgb: Tensor) -> list[Tensor]:
        return [self.features((rgb - self.mean) / self.std)]


class _Fire(nn.Module):
    """SqueezeNet's module (Iandola et al. 2016, section 3.1); gives its output before the last ReLU."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x))
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)


class SqueezeNet(FeatureNet):
    """SqueezeNet 1.1's convolutions (Iandola et al. 2016; version 1.1 of their release).

    Compares fire3 (stride 4: texture), fire5 (stride 8) and fire9 (stride 16: parts of objects), all
    before activation. Strided layers see some pixels more often than others, which would print their
    grid into the generator's output; so each step shows the network another offset of the patch.

    Two layouts of weights are known: the release's names (`fire2.squeeze1x1.weight`; input BGR in
    0..255 with the mean subtracted) and torchvision's (`features.3.squeeze.weight`; RGB normalised).
    """

    min_side = 32
    SHIFTS = 4
    MAPS = ("fire3", "fire5", "fire9")
    POOLED = ("fire3", "fire5")
    FIRES = (
        ("fire2", 64, 16, 64),
        ("fire3", 128, 16, 64),
        ("fire4", 128, 32, 128),
        ("fire5", 256, 32, 128),
        ("fire6", 256, 48, 192),
        ("fire7", 384, 48, 192),
        ("fire8", 384, 64, 256),
        ("fire9", 512, 64, 256),
    )
    TORCHVISION = (3, 4, 6, 7, 9, 10, 11, 12)
    """Positions of the fire modules in torchvision's `features`."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        for name, channels, squeeze, expand in self.FIRES:
            self.add_module(name, _Fire(channels, squeeze, expand))
        if any(key.startswith("features.") for key in weights):
            weights, mean, std = self._from_torchvision(weights), _IMAGENET_MEAN, _IMAGENET_STD
        else:  # The mean of the release's training script, here in RGB order.
            mean, std = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)
            weights = dict(weights)
            if "conv1.weight" in weights:
                weights["conv1.weight"] = weights["conv1.weight"].flip(1)  # BGR to RGB
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        _load(self, weights)

    mean: Tensor
    std: Tensor

    @classmethod
    def _from_torchvision(cls, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {"features.0.": "conv1."}
        for (name, *_), position in zip(cls.FIRES, cls.TORCHVISION, strict=True):
            names[f"features.{position}.squeeze."] = f"{name}.squeeze1x1."
            names[f"features.{position}.expand1x1."] = f"{name}.expand1x1."
            names[f"features.{position}.expand3x3."] = f"{name}.expand3x3."
        return {
            new + key.removeprefix(old): value
            for key, value in weights.items()
            for old, new in names.items()
            if key.startswith(old)
        }

    def crop(self, rgb: Tensor, step: int) -> Tensor:
        top, left = step % self.SHIFTS, step // self.SHIFTS % self.SHIFTS
        height, width = (side - self.SHIFTS + 1 for side in rgb.shape[2:])
        return rgb[:, :, top : top + height, left : left + width]

    def forward(self, rgb: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.conv1((rgb - self.mean) / self.std)), 3, 2, ceil_mode=True)
        maps = []
        for name, *_ in self.FIRES:
            y = self.get_submodule(name)(x)
            if name in self.MAPS:
                maps.append(y)
            x = F.relu(y)
            if name in self.POOLED:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return maps


def _load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    wanted = {key: weights[key] for key in module.state_dict() if key in weights}  # files hold the classifier as well
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    state_dicts.check_fit(module, shapes, "the file", f"the feature network {type(module).__name__}")
    state_dicts.assign(module, wanted)


_NETS: dict[str, type[Vgg19] | type[SqueezeNet]] = {"vgg19": Vgg19, "squeezenet1_1": SqueezeNet}


def feature_net(name: str, path: Path | None = None, offline: bool = False) -> FeatureNet:
    """Load `vgg19` or `squeezenet1_1`, from a file (.safetensors, .npz or torch's .pth) or through torchvision.

    Raises WeightsError when the file cannot be read or does not fit, or the download fails.
    """
    weights = _read(path) if path else _download(name, offline)
    try:
        return _NETS[name](weights)
    except WeightsError as error:
        raise WeightsError(f"{path or name}: {error}") from None


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        with state_dicts.opened(path) as file:
            return file.tensors()
    if path.suffix != ".npz":
        state = state_dicts.read_pickle(path)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise WeightsError(f"{path} holds no weights by name")
        return state
    try:
        with np.load(path) as arrays:  # allow_pickle is off
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"cannot read the feature weights {path}: {state_dicts.one_line(error)}") from None


def _published(name: str) -> tuple[str, float]:
    """Return the address and size in MB of a network's ImageNet weights, by torchvision's record."""
    from torchvision.models import SqueezeNet1_1_Weights, VGG19_Weights  # type: ignore[import-untyped]

    weights = VGG19_Weights.IMAGENET1K_V1 if name == "vgg19" else SqueezeNet1_1_Weights.IMAGENET1K_V1
    return weights.url, weights.meta["_file_size"]


def missing_megabytes(name: str) -> int:
    """Return how much has to be downloaded of a network's weights, in MB; 0 if they are here."""
    url, megabytes = _published(name)
    here = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    return 0 if here.exists() else math.ceil(megabytes)


def _download(name: str, offline: bool) -> dict[str, Tensor]:
    url, _ = _published(name)
    try:
        if offline and missing_megabytes(name):
            raise OSError("--offline forbids it")
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot download {name} from {url}: {error}; give its weights with --feature-weights FILE, "
            "or leave the feature loss out with --feature-net none"
        ) from None
    return state
