"""Colours: flat ones stay exact, shifts and grids go, and detail is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import upscaler

from sr_cli.inference import colours
from sr_cli.inference.colours import REACH, keep_colours
from sr_cli.inference.tiling import Tile


@settings(max_examples=30)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    st.floats(-0.05, 0.05),
)
def test_a_shifted_flat_colour_comes_back(height: int, width: int, colour: list[float], shift: float) -> None:
    rgb = torch.tensor(colour).view(1, 3, 1, 1).expand(2, 3, height, width)
    shifted = rgb.repeat_interleave(4, 2).repeat_interleave(4, 3) + shift
    assert (keep_colours(shifted, rgb) - rgb[:, :, :1, :1]).abs().max() < 1e-6


def test_nothing_changes_where_nothing_drifted() -> None:
    small = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    detail = torch.tensor([[0.1, -0.1] * 2, [-0.1, 0.1] * 2] * 2).repeat(24, 24)
    large = large * 0.6 + 0.2 + detail  # zero mean in each block
    assert (keep_colours(large, small * 0.6 + 0.2) - large).abs().max() < 1e-6


def test_a_grid_on_flat_areas_goes_and_detail_stays() -> None:
    """Flat on the left, noise on the right, and everywhere a pattern of 4x4 with zero mean."""
    rgb = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    rgb[..., :32] = 0.75
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(64, 128) * 0.03
    output = rgb.repeat_interleave(4, 2).repeat_interleave(4, 3) + pattern
    kept = keep_colours(output, rgb)
    assert (kept[..., : 4 * 24] - 0.75).abs().max() < 1e-6
    assert (kept[..., 4 * 32 :] - output[..., 4 * 32 :]).abs().max() < 1e-6
    steps = (kept - output).abs().amax((0, 1, 2))[4 * 23 : 4 * 33]
    assert steps.diff().abs().max() < 0.03 / 8, "the change is gradual"


def test_influence_ends_at_the_reach() -> None:
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    output = torch.full((1, 3, 256, 256), 0.5)
    changed = output.clone()
    changed[..., 128:132, 128:132] = 0.9  # one input pixel, at 32
    difference = (keep_colours(changed, rgb) - keep_colours(output, rgb)).abs().amax((0, 1, 2))
    difference[128:132] = 0
    touched = difference.nonzero().flatten()
    # One pixel more than the smoothing, for the linear enlargement.
    assert touched.min() >= 4 * (32 - REACH - 1) and touched.max() < 4 * (32 + REACH + 2)
    assert difference.max() < 0.4 / 40


@settings(max_examples=30)
@given(st.data(), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_cores_are_cut_out_of_the_whole(data: st.DataObject, height: int, width: int, channels_last: bool) -> None:
    core = Tile(0, 0, data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    tops, lefts = st.integers(0, height - core.height), st.integers(0, width - core.width)
    cores = [replace(core, top=data.draw(tops), left=data.draw(lefts)) for _ in range(2)]
    random = torch.Generator().manual_seed(height * width)
    rgb = torch.rand(2, 3, height, width, generator=random)
    rgb[..., : width // 2] = 0.25
    output = torch.rand(2, 3, 4 * height, 4 * width, generator=random)
    if channels_last:
        rgb, output = (t.to(memory_format=torch.channels_last) for t in (rgb, output))
    whole = keep_colours(output, rgb)
    for cut, full, place in zip(keep_colours(output, rgb, cores), whole, cores, strict=True):
        bottom, right = place.top + place.height, place.left + place.width
        expected = full[:, 4 * place.top : 4 * bottom, 4 * place.left : 4 * right]
        assert (cut - expected).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_flat_pictures_are_exact_with_any_weights(dtype: type, channels: int) -> None:
    top = np.iinfo(dtype).max
    for value in (0, 1, top // 3, top - 1, top):
        flat = np.full((9, 13, channels), value, dtype)
        assert (upscaler().upscale(flat).pixels == value).all()


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.sampled_from([1, 2, 3, 4, 8]))
def test_reduction_and_enlargement_are_those_of_torch(height: int, width: int, margin: int, scale: int) -> None:
    small = torch.rand(2, 3, height + 2 * margin, width + 2 * margin, generator=torch.Generator().manual_seed(margin))
    large = F.interpolate(small, scale_factor=scale, mode="bilinear", align_corners=False)
    cut = scale * margin
    inner = large[:, :, cut : large.shape[2] - cut, cut : large.shape[3] - cut]
    cores = [Tile(margin, margin, height, width)] * 2
    assert (colours._enlarged(small, scale, cores) - inner).abs().max() < 1e-6
    assert (colours._reduced(large, scale) - F.avg_pool2d(large, scale)).abs().max() < 1e-6
