"""Checkpoints of others: RRDBNet in all key styles, and BasicSR's SRResNet, against straightforward networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_cli import inference, models, weights
from sr_cli.errors import WeightsError
from sr_cli.models import rrdbnet
from sr_cli.models.msrresnet import MsrresnetConfig
from sr_cli.models.rrdbnet import RrdbnetConfig

SMALL = {"features": 8, "growth": 4}


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights under which activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (1.5 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return state


def new_style(blocks: int, doublings: int, features: int, growth: int, unshuffle: int = 1) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"conv_first": (features, 3 * unshuffle**2, 3, 3)}
    for i in range(blocks):
        for j in range(1, 4):
            for k in range(1, 6):
                out = growth if k < 5 else features
                shapes[f"body.{i}.rdb{j}.conv{k}"] = (out, features + (k - 1) * growth, 3, 3)
    names = ["conv_body", *[f"conv_up{n}" for n in range(1, doublings + 1)], "conv_hr"]
    shapes.update(dict.fromkeys(names, (features, features, 3, 3)))
    return draw({**shapes, "conv_last": (3, features, 3, 3)})


def old_style(new: Mapping[str, Tensor], blocks: int, doublings: int) -> dict[str, Tensor]:
    """The original code's names, spelt out: activations and enlargements are counted in its sequence."""
    names = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    position = 2
    for n in range(1, doublings + 1):
        names[f"conv_up{n}"] = f"model.{position + 1}"
        position += 3
    names["conv_hr"], names["conv_last"] = f"model.{position}", f"model.{position + 2}"
    for i in range(blocks):
        for j in range(1, 4):
            for k in range(1, 6):
                names[f"body.{i}.rdb{j}.conv{k}"] = f"model.1.sub.{i}.RDB{j}.conv{k}.0"
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in new.items()}


def older_style(new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the first ESRGAN release."""
    swaps = [
        ("body.", "RRDB_trunk."),
        (".rdb", ".RDB"),
        ("conv_body", "trunk_conv"),
        ("conv_up", "upconv"),
        ("conv_hr", "HRconv"),
    ]
    renamed = {}
    for key, value in new.items():
        for a, b in swaps:
            key = key.replace(a, b) if not key.startswith("conv_body") or a == "conv_body" else key
        renamed[key] = value
    return renamed


def reference(state: Mapping[str, Tensor], x: Tensor, blocks: int, doublings: int, unshuffle: int = 1) -> Tensor:
    """The published network, written down as its paper draws it."""

    def conv(name: str, y: Tensor) -> Tensor:
        return F.conv2d(y, state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), padding=1)

    lrelu = nn.LeakyReLU(0.2)
    first = trunk = conv("conv_first", F.pixel_unshuffle(x, unshuffle))
    for i in range(blocks):
        group = trunk
        for j in range(1, 4):
            seen = [trunk]
            for k in range(1, 5):
                seen.append(lrelu(conv(f"body.{i}.rdb{j}.conv{k}", torch.cat(seen, 1))))
            trunk = trunk + 0.2 * conv(f"body.{i}.rdb{j}.conv5", torch.cat(seen, 1))
        trunk = group + 0.2 * trunk
    y = first + conv("conv_body", trunk)
    for n in range(1, doublings + 1):
        y = lrelu(conv(f"conv_up{n}", y.repeat_interleave(2, -1).repeat_interleave(2, -2)))
    return conv("conv_last", lrelu(conv("conv_hr", y)))


def same(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Compared in double precision, where two correct ways of computing hardly differ."""
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def load(state: Mapping[str, Tensor], folder: Path) -> weights.LoadedModel:
    save_file(dict(state), folder / "4x-Anything.safetensors")
    return weights.load(folder / "4x-Anything.safetensors")


STYLES = {"new": lambda s, b, d: s, "old": old_style, "older": lambda s, b, d: older_style(s)}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("scale", "blocks"),
    [(1, 6), (2, 6), (4, 6), (8, 6), (4, 23), *(pytest.param(s, 23, marks=pytest.mark.slow) for s in (1, 2, 8))],
)
def test_agrees_with_the_published_network(tmp_path: Path, style: str, blocks: int, scale: int) -> None:
    doublings = scale.bit_length() - 1
    state = new_style(blocks, doublings, **SMALL)
    loaded = load(STYLES[style](state, blocks, doublings), tmp_path)
    assert loaded.generator.config == RrdbnetConfig(blocks=blocks, scale=scale, **SMALL)
    x = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    with torch.inference_mode():
        expected = reference(state, x, blocks, doublings)
        assert expected.shape[-2:] == (7 * scale, 9 * scale)
        same(loaded.generator(x.float()), expected, 1e-3)
        same(loaded.generator.double()(x), expected)
        same(loaded.generator.fold()(x), expected)


@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4)])
@pytest.mark.parametrize("style", STYLES)
def test_agrees_where_pixels_are_folded_into_channels(tmp_path: Path, style: str, scale: int, unshuffle: int) -> None:
    state = new_style(6, 2, unshuffle=unshuffle, **SMALL)
    loaded = load(STYLES[style](state, 6, 2), tmp_path)
    assert loaded.generator.config == RrdbnetConfig(blocks=6, scale=scale, unshuffle=unshuffle, **SMALL)
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    with torch.inference_mode():
        same(loaded.generator.double()(x), reference(state, x, 6, 2, unshuffle))
        odd = loaded.generator(x[..., :7, :10])
    assert odd.shape[-2:] == (7 * scale, 10 * scale)


def test_the_published_size(tmp_path: Path) -> None:
    state = new_style(1, 2, 64, 32)
    loaded = load(state, tmp_path)
    assert loaded.generator.config == RrdbnetConfig(blocks=1)
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    with torch.inference_mode():
        same(loaded.generator.double()(x), reference(state, x, 1, 2))
    full = models.create(RrdbnetConfig())
    assert models.count_parameters(full) == 16_697_987  # the paper's 16.7 M
    dense = 9 * (32 * (64 + 96 + 128 + 160) + 64 * 192)
    assert models.count_multiplications(full) == 9 * 64 * (3 + 64 + 4 * 64 + 16 * (64 + 64 + 3)) + 23 * 3 * dense


def test_every_known_network_loads_from_its_own_names(tmp_path: Path) -> None:
    for config in (
        RrdbnetConfig(2, **SMALL),
        RrdbnetConfig(2, scale=1, unshuffle=4, **SMALL),
        MsrresnetConfig(2, 8, 3),
    ):
        generator = models.create(config)
        generator.reset_parameters()
        assert load(generator.state_dict(), tmp_path).generator.config == config
        assert models.config_from_dict(config.to_dict()) == config


def test_export_names_are_basicsrs() -> None:
    state = new_style(2, 2, **SMALL)
    found = models.recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert found is not None
    back = rrdbnet.to_basicsr({found.names[key]: tensor for key, tensor in state.items()})
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


@pytest.mark.parametrize(
    "config",
    [RrdbnetConfig(1, 4, 2, scale, unshuffle) for scale, unshuffle in ((4, 1), (1, 1), (8, 1), (2, 2), (1, 4))]
    + [MsrresnetConfig(2, 4, scale) for scale in (2, 3, 4)],
    ids=str,
)
def test_receptive_radius_is_not_too_small_and_not_wasteful(config: models.GeneratorConfig) -> None:
    generator = models.create(config).double().eval()
    generator.reset_parameters(torch.Generator().manual_seed(0))
    for parameter in generator.parameters():
        parameter.data.abs_()  # so that nothing cancels
    radius, scale, step = generator.receptive_radius, generator.scale, generator.alignment
    needed = 0
    for shift in range(step):
        side = 2 * (radius + 2 * step) + step
        centre = radius + 2 * step + shift
        x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        generator(x)[..., centre * scale : (centre + 1) * scale, centre * scale : (centre + 1) * scale].sum().backward()
        assert x.grad is not None
        rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        needed = max(needed, int(centre - rows.min()), int(rows.max() - centre))
    assert needed <= radius <= needed + step


@pytest.mark.parametrize(
    "config",
    [RrdbnetConfig(1, 8, 4, 2, 2), RrdbnetConfig(1, 8, 4, 1, 4), RrdbnetConfig(1, 8, 4, 8), MsrresnetConfig(2, 8, 3)],
    ids=str,
)
def test_runs_through_the_tiled_engine(config: models.GeneratorConfig, tmp_path: Path) -> None:
    """With the whole receptive field as overlap, tiles give what one pass over the whole picture gives."""
    generator = models.create(config)
    generator.reset_parameters(torch.Generator().manual_seed(0))
    save_file(generator.state_dict(), tmp_path / "x.safetensors")
    pixels = np.random.default_rng(0).random((37, 50, 3), dtype=np.float32)
    whole, tiled = (
        inference.Upscaler(str(tmp_path / "x.safetensors"), device="cpu", tile=tile, overlap="full")
        .upscale(pixels)
        .pixels
        for tile in (0, 18)
    )
    assert whole.shape == (37 * generator.scale, 50 * generator.scale, 3)
    assert np.abs(whole - tiled).max() < 1e-4


def srresnet(blocks: int, scale: int, features: int) -> dict[str, Tensor]:
    step = 2 if scale == 4 else scale
    shapes: dict[str, tuple[int, ...]] = {"conv_first": (features, 3, 3, 3)}
    for i in range(blocks):
        for name in ("conv1", "conv2"):
            shapes[f"body.{i}.{name}"] = (features, features, 3, 3)
    shapes["upconv1"] = (features * step**2, features, 3, 3)
    if scale == 4:
        shapes["upconv2"] = shapes["upconv1"]
    return draw({**shapes, "conv_hr": (features, features, 3, 3), "conv_last": (3, features, 3, 3)})


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_srresnet_agrees_with_basicsrs(tmp_path: Path, scale: int) -> None:
    state = srresnet(3, scale, 8)
    loaded = load(state, tmp_path)
    assert loaded.generator.config == MsrresnetConfig(3, 8, scale)

    def conv(name: str, y: Tensor) -> Tensor:
        return F.conv2d(y, state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), padding=1)

    lrelu = nn.LeakyReLU(0.1)
    x = torch.rand(1, 3, 6, 7, dtype=torch.float64)
    y = lrelu(conv("conv_first", x))
    for i in range(3):
        y = y + conv(f"body.{i}.conv2", torch.relu(conv(f"body.{i}.conv1", y)))
    for name in ("upconv1", "upconv2") if scale == 4 else ("upconv1",):
        y = lrelu(nn.PixelShuffle(2 if scale == 4 else scale)(conv(name, y)))
    expected = conv("conv_last", lrelu(conv("conv_hr", y)))
    expected = expected + nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)(x)
    with torch.inference_mode():
        same(loaded.generator.double()(x), expected)


def test_near_misses_are_named(tmp_path: Path) -> None:
    state = new_style(2, 2, **SMALL)
    with pytest.raises(WeightsError, match=r"missing trunk\.1\.1\.layers\.2\.bias"):
        load({key: value for key, value in state.items() if key != "body.1.rdb2.conv3.bias"}, tmp_path)
    with pytest.raises(WeightsError, match=r"unexpected body\.0\.rdb1\.conv1x1\.weight"):
        load({**state, "body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}, tmp_path)
    gray = {**state, "conv_first.weight": torch.zeros(8, 1, 3, 3)}
    with pytest.raises(WeightsError, match=r"not an architecture that srup knows; its first tensors are body\.0\.rdb1"):
        load(gray, tmp_path)
