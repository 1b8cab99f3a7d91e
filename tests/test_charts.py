"""Charts: scales with distinct round labels, shapes where their values are, SVG and PNG that other programs read."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sr_cli.errors import OutputError, UsageError
from sr_cli.pages import charts
from sr_cli.pages.charts import BarPanel, CurvePanel, Point
from sr_cli.pages.drawing import Drawing
from tools import make_curves

SVG = "{http://www.w3.org/2000/svg}"
BARS = [
    BarPanel("fp32 eager", ["batch 1", "batch 2"], [[12.0, 24.0], [None, 99.0]]),
    BarPanel("a < b & c", ["batch 1"], [[3.0], [4.0]]),
]


def parsed(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(drawing.svg())


def texts(root: ElementTree.Element, **attributes: str) -> list[str]:
    return [e.text or "" for e in root.iter(f"{SVG}text") if all(e.get(k) == v for k, v in attributes.items())]


@given(st.floats(-1000, 1000), st.floats(0, 1000), st.booleans())
def test_linear_axes_have_few_distinct_round_labels(low: float, span: float, whole: bool) -> None:
    axis = charts.linear_axis(low, low + span, whole=whole)
    assert axis.low <= low + 1e-6 and axis.high >= low + span - 1e-6
    assert 2 <= len(axis.ticks) <= 8
    assert len(set(axis.labels)) == len(axis.labels)
    assert all(
        float(label) == pytest.approx(tick, abs=1e-9) for label, tick in zip(axis.labels, axis.ticks, strict=True)
    )
    if whole:
        assert all(tick == int(tick) for tick in axis.ticks)


@given(st.floats(1e-6, 1e6), st.floats(1, 1e6))
def test_logarithmic_axes_too(low: float, ratio: float) -> None:
    axis = charts.logarithmic_axis(low, low * ratio)
    assert 0 < axis.place(low) <= axis.place(low * ratio) < 1
    assert 2 <= len(axis.ticks) <= 8
    assert len(set(axis.labels)) == len(axis.labels)
    assert all(0 <= axis.place(tick) <= 1 for tick in axis.ticks)
    assert all(
        float(label) == pytest.approx(tick, rel=1e-5) for label, tick in zip(axis.labels, axis.ticks, strict=True)
    )


def test_bars_are_valid_svg_and_png(tmp_path: Path) -> None:
    drawing = charts.bars("Title", "ms", ["one", "two"], BARS)
    for name in ("chart.svg", "chart.png"):
        drawing.save(tmp_path / name)
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    bars = [r for r in root.iter(f"{SVG}rect") if r.get("fill") == charts.PALETTE[0]]
    # A legend's square, then three bars; twice the value is higher on the page.
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert len(bars) == 4 and heights[2] > heights[1]
    assert "a < b & c, ms" in texts(root)
    with Image.open(tmp_path / "chart.png") as image:
        assert image.format == "PNG" and image.width > 400


def test_charts_that_cannot_be_written(tmp_path: Path) -> None:
    drawing = charts.bars("", "ms", ["one", "two"], BARS)
    with pytest.raises(UsageError, match=r"svg or \.png"):
        drawing.save(tmp_path / "chart.pdf")
    with pytest.raises(OutputError, match="cannot write"):
        drawing.save(tmp_path / "none" / "chart.svg")


def test_curves_go_through_their_points(tmp_path: Path) -> None:
    panel = CurvePanel(
        "loss", {"a": [(0, 0.1), (50, 1.0), (100, 10.0)], "b": [(100, 1.0), (200, 1.0)]}, logarithmic=True
    )
    drawing = charts.curves("Run", "step", [panel])
    root = parsed(drawing)
    lines = [line for line in root.iter(f"{SVG}polyline") if line.get("stroke") in charts.PALETTE]
    a, b = ([tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()] for line in lines)
    assert a[1][0] == pytest.approx((a[0][0] + a[2][0]) / 2, abs=0.2)
    assert a[1][1] == pytest.approx((a[0][1] + a[2][1]) / 2, abs=0.2), "tenfold is equally far both times"
    assert b[0] == pytest.approx((a[2][0], a[1][1]), abs=0.2)
    drawing.save(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        found = image.getpixel((round(2 * a[1][0]), round(2 * a[1][1])))
    assert "#{:02x}{:02x}{:02x}".format(*found) == charts.PALETTE[0]


def test_a_curve_of_one_point_is_seen_and_labels_do_not_repeat() -> None:
    root = parsed(
        charts.curves("Run", "step", [CurvePanel("PSNR", {"EMA": [(2, 27.0)]}), CurvePanel("none", {"x": []})])
    )
    (dot,) = root.iter(f"{SVG}circle")
    assert dot.get("fill") == charts.PALETTE[0]
    across = texts(root, **{"text-anchor": "middle"})
    assert across == ["0", "1", "2", "step"]
    up = texts(root, **{"text-anchor": "end"})
    assert len(set(up)) == len(up) >= 3
    assert texts(root, **{"font-weight": "bold"}) == ["PSNR"], "a panel without points is left out"


def test_values_that_have_no_logarithm_are_left_out() -> None:
    root = parsed(charts.curves("Run", "step", [CurvePanel("loss", {"a": [(1, 0.0), (2, 1.0), (3, 2.0)]}, True)]))
    (line,) = [line for line in root.iter(f"{SVG}polyline") if line.get("stroke") in charts.PALETTE]
    assert len(line.get("points", "").split()) == 2


def test_better_points_are_higher_and_cheaper_ones_further_left() -> None:
    shown = [Point("<fast>", 2, 28.0, "28 & 2", "#000001"), Point("slow", 200, 29.0, "", "#000002")]
    root = parsed(charts.points("PSNR", "milliseconds", shown))
    dots = {dot.get("fill"): dot for dot in root.iter(f"{SVG}circle")}
    fast, slow = dots["#000001"], dots["#000002"]
    assert float(fast.get("cx", 0)) < float(slow.get("cx", 0))
    assert float(fast.get("cy", 0)) > float(slow.get("cy", 0))
    assert fast.findtext(f"{SVG}title") == "28 & 2"
    assert "<fast>" in texts(root)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
def test_labels_are_moved_apart(positions: list[float]) -> None:
    placed = sorted(charts.spread(positions, 0, 200))
    assert all(after - before >= 15 - 1e-6 for before, after in itertools.pairwise(placed))
    assert placed[-1] <= 200 + 1e-6


def test_the_parts_of_a_stage_follow_each_other() -> None:
    parts = [
        {"stage": "a", "core_hours": 2.0, "psnr_y": [[50, 28.0], [100, 29.0]]},
        {"stage": "b", "core_hours": 1.0, "psnr_y": [[10, 27.0]]},
        {"stage": "a", "core_hours": 3.0, "niqe": [[10, 7.0]]},
        {"stage": "a", "core_hours": 0.5, "psnr_y": [[10, 29.5]]},
    ]
    assert make_curves.curves(parts, "psnr_y") == {"a": [(1.0, 28.0), (2.0, 29.0), (2.5, 29.5)], "b": [(1.0, 27.0)]}
    assert make_curves.curves(parts, "niqe") == {"a": [(3.0, 7.0)]}
