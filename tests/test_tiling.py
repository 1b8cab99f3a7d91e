"""Tiles cover the picture, in one size, in reading order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_cli.inference import tiling

_side = st.integers(1, 300)


@given(
    height=_side, width=_side, tile=st.integers(1, 320), overlap=st.integers(0, 40), align=st.sampled_from([1, 2, 4])
)
def test_cores_cover_the_picture_and_stay_inside(height: int, width: int, tile: int, overlap: int, align: int) -> None:
    plan = tiling.plan(height, width, tile, overlap, align)
    covered = np.zeros((height, width), bool)
    for t in plan.tiles:
        assert t.top >= 0 and t.top + t.height <= height
        assert t.left >= 0 and t.left + t.width <= width
        covered[t.top : t.top + t.height, t.left : t.left + t.width] = True
        assert t.top % align == t.left % align == 0
        assert (t.height, t.width) == (plan.tiles[0].height, plan.tiles[0].width)
    assert covered.all()


@given(
    height=_side, width=_side, tile=st.integers(1, 320), overlap=st.integers(0, 40), align=st.sampled_from([1, 2, 4])
)
def test_windows_have_one_size_and_show_what_is_around_a_core(
    height: int, width: int, tile: int, overlap: int, align: int
) -> None:
    plan = tiling.plan(height, width, tile, overlap, align)
    assert overlap <= plan.overlap < overlap + align
    for core in plan.tiles:
        window = plan.window_of(core)
        assert (window.height, window.width) == plan.window
        assert window.top % align == window.left % align == 0
        for start, length, side, near, far in (
            (core.top, core.height, height, window.top, window.top + window.height),
            (core.left, core.width, width, window.left, window.left + window.width),
        ):
            assert 0 <= near <= max(0, start - overlap)
            assert min(side, start + length + overlap) <= far <= side


@given(height=_side, width=_side, tile=st.integers(1, 320))
def test_cores_have_one_size_not_above_the_wish(height: int, width: int, tile: int) -> None:
    plan = tiling.plan(height, width, tile, 3)
    assert len({(t.height, t.width) for t in plan.tiles}) == 1
    assert max(plan.tiles[0].height, plan.tiles[0].width) <= tile
    rows = {(t.top, t.top + t.height) for t in plan.tiles}
    columns = {(t.left, t.left + t.width) for t in plan.tiles}
    assert plan.window == (
        max(sum(0 <= row < height for row in range(top - 3, bottom + 3)) for top, bottom in rows),
        max(sum(0 <= column < width for column in range(left - 3, right + 3)) for left, right in columns),
    )
    assert len(plan.tiles) == -(-height // tile) * -(-width // tile)
    assert [(t.top, t.left) for t in plan.tiles] == sorted((t.top, t.left) for t in plan.tiles)


@given(height=_side, width=_side)
def test_zero_means_the_whole_picture(height: int, width: int) -> None:
    assert tiling.plan(height, width, 0, 8).tiles == (tiling.Tile(0, 0, height, width),)


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"), [(0, 5, 4, 1), (5, 0, 4, 1), (5, 5, -1, 0), (5, 5, 4, -1)]
)
def test_nonsense_is_refused(height: int, width: int, tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="tile"):
        tiling.plan(height, width, tile, overlap)
