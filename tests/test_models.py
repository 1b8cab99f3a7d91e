"""The generators: their costs, their folding, their shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sr_cli import models
from sr_cli.models import base, layers, mesrgan
from sr_cli.models.esrgan import dense_block
from sr_cli.models.mesrgan import MesrganConfig
from sr_cli.training import parametrisation
from tests.networks import SMALL, with_weights


@pytest.mark.parametrize(
    ("name", "multiplications"),
    [("srgan", 2_218_176), ("esrgan", 5_241_024), ("mesrgan", 1_114_432)],
)
def test_multiplications_of_the_presets(name: str, multiplications: int) -> None:
    assert models.count_multiplications(models.create(models.PRESETS[name])) == multiplications


@pytest.mark.parametrize(
    ("block", "multiplications"),
    [
        (dense_block(64, 32), 239_616),
        (mesrgan._dense_block(MesrganConfig(expansion=1)), 124_544),
        (mesrgan._dense_block(MesrganConfig(expansion=2)), 249_088),
    ],
)
def test_multiplications_of_a_dense_block(block: layers.DenseBlock, multiplications: int) -> None:
    assert base.count_multiplications(block, channels=64) == multiplications


@pytest.mark.parametrize("name", ["srgan", "esrgan", "mesrgan-poster"])
@pytest.mark.parametrize("training", [True, False])
def test_training_starts_at_the_linear_enlargement(name: str, training: bool) -> None:
    """Pillow's, but for the small random part of the last layer."""
    model = models.create(SMALL[name]).train(training)
    model.reset_parameters(torch.Generator().manual_seed(1))
    random = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    small = Image.fromarray(random).resize((45, 36), Image.Resampling.BICUBIC)
    wanted = np.asarray(small.resize((180, 144), Image.Resampling.BILINEAR), np.float32)
    with torch.no_grad():
        output = model(torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)[None])
    difference = np.abs(255 * output[0].permute(1, 2, 0).numpy() - wanted)[20:-20, 20:-20]
    assert difference.mean() < 4
    assert np.abs(wanted - wanted.mean()).mean() > 40


@pytest.mark.parametrize("name", SMALL)
def test_folded_agrees_with_unfolded(name: str) -> None:
    model = with_weights(SMALL[name])
    rgb = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert (model.fold()(rgb) - model(rgb)).abs().max() < 1e-4
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.fold().modules())


@pytest.mark.parametrize("name", SMALL)
def test_output_is_four_times_the_input(name: str) -> None:
    model = with_weights(SMALL[name])
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 1, 5)).shape == (1, 3, 4, 20)


@pytest.mark.parametrize("name", SMALL)
def test_receptive_radius_is_not_too_small(name: str) -> None:
    """An input pixel just outside the radius changes nothing."""
    model = with_weights(SMALL[name]).double()
    radius = model.receptive_radius
    side = 2 * radius + 3
    rgb = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre = slice(4 * (radius + 1), 4 * (radius + 2))
    model(rgb)[:, :, centre, centre].sum().backward()
    seen = rgb.grad.abs().sum((0, 1)) > 0
    assert not seen[0].any() and not seen[-1].any() and not seen[:, 0].any() and not seen[:, -1].any()


def test_the_first_light_upsampler_has_the_form_of_two_stages() -> None:
    single = with_weights(SMALL["mesrgan-single"])
    torch.nn.init.normal_(single.tail.bias, generator=torch.Generator().manual_seed(4))
    light = models.create(SMALL["mesrgan"]).eval()
    light.load_state_dict(mesrgan.with_light_upsampler(single.state_dict()))
    rgb = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert (light(rgb) - single(rgb)).abs().max() < 1e-5
        assert (single.detail(rgb)).abs().max() > 0.1


def test_forms_of_the_upsampler_are_recognised() -> None:
    for name in ("mesrgan", "mesrgan-single", "mesrgan-poster"):
        state = models.create(SMALL[name]).state_dict()
        found = models.recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
        assert found is not None and found.config == SMALL[name]


def test_manifests_of_the_first_form_are_understood() -> None:
    values = {"family": "mesrgan", "blocks": 8, "features": 64, "growth": 32, "expansion": 1}
    assert models.config_from_dict({**values, "light_upsampler": True}) == MesrganConfig(upsampler="single")
    assert models.config_from_dict({**values, "light_upsampler": False}) == MesrganConfig(upsampler="full")


def test_fresh_light_upsampler_prints_no_grid() -> None:
    """What is added to the bicubic enlargement starts equal within each input pixel (Aitken et al. 2017)."""
    model = models.create(SMALL["mesrgan"])
    model.reset_parameters(torch.Generator().manual_seed(1))
    with torch.inference_mode():
        detail = model.detail(torch.full((1, 3, 48, 48), 0.3))[..., 80:112, 80:112]
    assert detail.abs().max() > 0 and (detail.amax((2, 3)) - detail.amin((2, 3))).max() < 1e-6


def test_configuration_survives_a_round_trip() -> None:
    for config in models.PRESETS.values():
        assert models.config_from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "values", [{"family": "nonsense"}, {}, {"family": "srgan", "blocks": 0}, {"family": "srgan", "x": 1}]
)
def test_nonsense_configuration_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"family|srgan"):
        models.config_from_dict(values)


def test_fresh_weights_are_reproducible() -> None:
    first, second = (with_weights(SMALL["mesrgan"]).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_bicubic_phases_are_pillows_bicubic() -> None:
    rng = np.random.default_rng(0)
    plane = rng.random((12, 15), np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((60, 48), Image.Resampling.BICUBIC))
    phases = layers.BicubicPhases(1, 4)(torch.from_numpy(plane)[None, None])
    actual = torch.nn.functional.pixel_shuffle(phases, 4)[0, 0].numpy()
    # Pillow drops taps beyond the border and renormalises; inside the two agree.
    np.testing.assert_allclose(actual[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_with_even_subpixels_a_constant_picture_has_no_pattern(name: str) -> None:
    model = with_weights(SMALL[name]).requires_grad_(False)
    border = 4 * model.receptive_radius
    flat = torch.full((1, 3, border // 2 + 2, border // 2 + 2), 0.4)

    def deviation() -> float:
        return float(model(flat)[:, :, border:-border, border:-border].std((2, 3)).max())

    for conv, _ in model.shuffled_convs():
        conv.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
    before = deviation()
    for conv, factor in model.shuffled_convs():
        parametrisation.even_subpixels(conv, factor)
    assert before > 1e-3
    assert deviation() < 1e-5


def test_even_subpixels_are_the_nearest_and_stay() -> None:
    conv = torch.nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        conv.weight.normal_(generator=torch.Generator().manual_seed(0))
    before = conv.weight.detach().clone()
    parametrisation.even_subpixels(conv, 2)
    change = conv.weight.detach() - before
    # The change is orthogonal to every direction in which even weights may move: those that keep the sums equal.
    direction = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    sums = direction.sum((3, 4), keepdim=True)
    direction -= (sums - sums.mean(1, keepdim=True)) / 9
    assert float((change * direction.flatten(0, 1)).sum()) == pytest.approx(0, abs=1e-4)
    once = conv.weight.detach().clone()
    parametrisation.even_subpixels(conv, 2)
    torch.testing.assert_close(conv.weight.detach(), once)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("values", [1, 6])
def test_prelu_learns_as_torchs_does(values: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 5, 7, generator=generator).to(dtype)
    towards = torch.randn(2, 6, 5, 7, generator=generator).to(dtype)
    results = []
    for activation in (base.Prelu(values), torch.nn.PReLU(values)):
        given = x.clone().requires_grad_()
        output = activation.to(dtype)(given)
        output.backward(towards)
        results.append((output, given.grad, activation.weight.grad))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
