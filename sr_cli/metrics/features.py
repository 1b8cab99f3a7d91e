"""Distance between the feature maps that a classifier makes of two images; less is better.

Training minimises it (the feature or perceptual loss), `srup eval` reports it as the metric `features`.
Needs torch.
"""

from __future__ import annotations

import math
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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
    and layers' scales then do not matter, and a pixel-stage generator is at about 0.4. The loss is the mean over the
    `sizes` at which the classifier sees the images; with `drawn` it is that at one size a step, between the smallest
    and the largest.
    """

    def __init__(
        self, net: FeatureNet, distance: str, relative: bool, sizes: Sequence[float] = (1.0,), drawn: bool = False
    ) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.sizes, self.drawn = sizes, drawn
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[distance]
        self.relative = relative
        self.power = {"l1": 1, "l2": 2}[distance]

    def forward(self, output: Tensor, target: Tensor, step: int = 0) -> Tensor:
        return torch.stack([self._distance(*maps) for maps in self._maps(output, target, step)]).mean()

    def with_texture(self, output: Tensor, target: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """Compute the distance of the maps, and that of their `texture`; only for a network that is fit for it."""
        windows = self.net.texture_windows
        assert windows is not None
        pairs = list(self._maps(output, target, step))
        textures = [texture(mine, theirs, windows) for mine, theirs in pairs]
        return torch.stack([self._distance(*maps) for maps in pairs]).mean(), torch.stack(textures).mean()

    def _seen(self, step: int) -> Sequence[float]:
        if not self.drawn:
            return self.sizes
        return [random.Random(step).uniform(min(self.sizes), max(self.sizes))]

    def _maps(self, output: Tensor, target: Tensor, step: int) -> Iterator[tuple[Maps, Maps]]:
        """Compute the maps of both images at each of the sizes."""
        for size in self._seen(step):
            mine, theirs = (self.net.crop(_resized(rgb, size), step) for rgb in (output, target))
            with torch.no_grad():
                wanted = self.net(theirs)
            yield self.net(mine), wanted

    def _distance(self, output: Maps, target: Maps) -> Tensor:
        distances = []
        for mine, theirs in zip(output.compared, target.compared, strict=True):
            mine, theirs = mine.float(), theirs.float()
            distance = self.distance(mine, theirs)
            distances.append(distance / theirs.abs().pow(self.power).mean() if self.relative else distance)
        return torch.stack(distances).mean()


class FeatureDistance:
    """The metric `features`: the relative L1 `FeatureLoss` of a whole image against its reference."""

    def __init__(self, net: FeatureNet) -> None:
        self.net = net
        self._loss = FeatureLoss(net, "l1", relative=True)

    def __call__(self, output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Return the distance of two images (H, W, 3) of one size. Raises ValueError where they are too small."""
        if min(output.shape[:2]) < self.net.min_side:
            raise ValueError(f"smaller than {self.net.min_side} pixels a side, too small for {type(self.net).__name__}")
        with torch.inference_mode():
            return float(self._loss(to_tensor(output), to_tensor(reference)))


def _resized(rgb: Tensor, size: float) -> Tensor:
    """Resize (N, 3, H, W) to (N, 3, size H, size W) by bicubic interpolation."""
    return rgb if size == 1.0 else F.interpolate(rgb, scale_factor=size, mode="bicubic", antialias=size < 1)


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """Return (H, W, 3) in 0..255 as a batch of one, (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255


class Maps(NamedTuple):
    """What a classifier makes of images."""

    first: Tensor  #: Map of the first layer, after its activation.
    compared: list[Tensor]  #: The maps to compare, before their activations.


_TEXTURE_FLOOR = 0.2
"""Share of the mean strength of all windows' texture that counts as each window's own: flat windows do not matter."""


def texture(output: Maps, target: Maps, windows: tuple[int, int]) -> Tensor:
    """Compare local texture: covariances of the channels within windows of the first two maps.

    Mean of the absolute differences, relative to the target's covariances; `windows` are the sides in cells of each
    map. It asks for texture of the target's kind and strength without asking for its place (Sajjadi et al. 2017,
    "EnhanceNet", section 4.2.3, there with Gram matrices).
    """
    distances = []
    for mine, theirs, side in zip(
        (output.first, output.compared[0]), (target.first, target.compared[0]), windows, strict=True
    ):
        wanted = _covariances(theirs, side)
        strength = wanted.abs().mean((1, 2))
        difference = (_covariances(mine, side) - wanted).abs().mean((1, 2))
        distances.append((difference / (strength + _TEXTURE_FLOOR * strength.mean())).mean())
    return torch.stack(distances).mean()


def _covariances(maps: Tensor, side: int) -> Tensor:
    """Compute the channels' covariances within windows of (N, C, H, W): (windows, C, C)."""
    side = min(side, *maps.shape[2:])
    images, channels, rows, columns = (*maps.shape[:2], maps.shape[2] // side, maps.shape[3] // side)
    cells = maps[:, :, : rows * side, : columns * side].reshape(images, channels, rows, side, columns, side)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side**2)
    cells = (cells - cells.mean(2, keepdim=True)) / side
    return (cells @ cells.transpose(1, 2)).float()


class FeatureNet(nn.Module):
    """A classifier's convolutions."""

    min_side = 16  #: Smallest input side, in pixels.
    texture_windows: tuple[int, int] | None = None
    """Sides of the windows of `texture` in cells of its two maps; None where they are not fit for it."""

    def crop(self, rgb: Tensor, step: int) -> Tensor:
        """Cut out what of a patch is shown to the network at a step."""
        return rgb

    def forward(self, rgb: Tensor) -> Maps:
        """Compute the maps of RGB in 0..1, (N, 3, H, W)."""
        raise NotImplementedError


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(FeatureNet):
    """VGG19 up to conv5_4 (Simonyan and Zisserman 2015, table 1, E): torchvision's, its last ReLU left out."""

    LAYERS = 35

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = _torchvisions("vgg19")[: self.LAYERS]
        self.normalise = Normalise(_IMAGENET_MEAN, _IMAGENET_STD)
        _load(self, weights)

    def forward(self, rgb: Tensor) -> Maps:
        first = self.features[:2](self.normalise(rgb))
        return Maps(first, [self.features[2:](first)])


class SqueezeNet(FeatureNet):
    """SqueezeNet 1.1's convolutions (Iandola et al. 2016; version 1.1 of their release): torchvision's.

    Compares fire3 (stride 4: texture), fire5 (stride 8) and fire9 (stride 16: parts of objects), all
    before activation. Strided layers see some pixels more often than others, which would print their
    grid into the generator's output; so each step shows the network another offset of the patch.

    Two layouts of weights are known: the release's names (`fire2.squeeze1x1.weight`; input BGR in
    0..255 with the mean subtracted) and torchvision's (`features.3.squeeze.weight`; RGB normalised).
    """

    min_side = 32
    texture_windows = (12, 6)  #: 24 pixels: the maps have strides of 2 and 4.
    SHIFTS = 4
    RELEASE = ("conv1", None, None, "fire2", "fire3", None, "fire4", "fire5", None, "fire6", "fire7", "fire8", "fire9")
    """The release's names of the layers of torchvision's `features`."""
    MAPS = (RELEASE.index("fire3"), RELEASE.index("fire5"), RELEASE.index("fire9"))

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = _torchvisions("squeezenet1_1")
        for position in self.MAPS:
            fire = self.features[position]
            fire.expand1x1_activation, fire.expand3x3_activation = nn.Identity(), nn.Identity()
        self.normalise = Normalise(_IMAGENET_MEAN, _IMAGENET_STD)
        if any(key.startswith("fire") for key in weights):
            # The mean of the release's training script, here in RGB order.
            self.normalise = Normalise((123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255))
            weights = self._from_release(weights)
        _load(self, weights)

    @classmethod
    def _from_release(cls, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the release's weights torchvision's names and order of colours."""
        renamed = {}
        for key, value in weights.items():
            layer, _, rest = key.partition(".")
            if layer in cls.RELEASE:
                rest = rest.replace("squeeze1x1.", "squeeze.")
                renamed[f"features.{cls.RELEASE.index(layer)}.{rest}"] = (
                    value.flip(1) if key == "conv1.weight" else value  # BGR to RGB
                )
        return renamed

    def crop(self, rgb: Tensor, step: int) -> Tensor:
        top, left = step % self.SHIFTS, step // self.SHIFTS % self.SHIFTS
        height, width = (side - self.SHIFTS + 1 for side in rgb.shape[2:])
        return rgb[:, :, top : top + height, left : left + width]

    def forward(self, rgb: Tensor) -> Maps:
        x = first = self.features[:2](self.normalise(rgb))
        compared = []
        for position, layer in enumerate(self.features[2:], 2):
            x = layer(x)
            if position in self.MAPS:
                compared.append(x)
                x = F.relu(x)
        return Maps(first, compared)


class Normalise(nn.Module):
    """Shifts and scales RGB, (N, 3, H, W)."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        # On the CPU even where the network is built on the meta device: no file brings these values.
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu").view(1, 3, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    def forward(self, rgb: Tensor) -> Tensor:
        return (rgb - self.mean) / self.std


def _torchvisions(name: str) -> nn.Sequential:
    """Build the convolutions of torchvision's classifier, on the meta device: they take no memory yet."""
    from torchvision import models  # type: ignore[import-untyped]  # which upscaling does without

    with torch.device("meta"):
        features: nn.Sequential = models.get_model(name, weights=None).features
    return features


def _load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    wanted = {key: weights[key] for key in module.state_dict() if key in weights}  # files hold the classifier as well
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    state_dicts.check_fit(module, shapes, "the file", f"the feature network {type(module).__name__}")
    state_dicts.assign(module, wanted)


NETS: dict[str, type[Vgg19] | type[SqueezeNet]] = {"vgg19": Vgg19, "squeezenet1_1": SqueezeNet}


def feature_net(name: str, path: Path | None = None, offline: bool = False) -> FeatureNet:
    """Load `vgg19` or `squeezenet1_1`, from a file (.safetensors, .npz or torch's .pth) or through torchvision.

    Raises WeightsError when the file cannot be read or does not fit, or the download fails.
    """
    weights = _read(path) if path else _download(name, offline)
    try:
        return NETS[name](weights)
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


def published(name: str) -> tuple[str, float, Path]:
    """Return the address and size in MB of a classifier's ImageNet weights, and their file if they are here."""
    from torchvision.models import get_model_weights  # type: ignore[import-untyped]

    weights = get_model_weights(name).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    return weights.url, weights.meta["_file_size"], file


def missing_megabytes(name: str) -> int:
    """Return how much has to be downloaded of a network's weights, in MB; 0 if they are here."""
    _, megabytes, file = published(name)
    return 0 if file.exists() else math.ceil(megabytes)


def _download(name: str, offline: bool) -> dict[str, Tensor]:
    url, _, file = published(name)
    try:
        if offline and not file.exists():
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
