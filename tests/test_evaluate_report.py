"""The report page: escaped, self-contained, and working in a real browser on a desktop and a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_cli.evaluate import crops, report
from sr_cli.evaluate import job as evaluate
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.results import Evaluation
from tests.browser import Browser, running
from tests.test_datasets import png

HOSTILE = "<img src=x onerror=alert(1)> & 'name' \"x\".png"


def photo(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((192, 160), Image.Resampling.BICUBIC).save(path, "PNG")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Two interpolations on two folders, with names that would be code if they were not escaped."""
    root = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(("a.png", "b.png", "c.png", "d.png", HOSTILE)):
        photo(root / "first set" / name, seed)
    photo(root / "second<script><b>" / "only.png", 9)
    (root / "first set" / "tiny.png").write_bytes(png(12, 12))
    (root / "first set" / "broken.png").write_bytes(b"nothing")
    options = EvalOptions(
        models=("bicubic", "lanczos"),
        data=(root / "first set", root / "second<script><b>"),
        metrics=("psnr_y", "ssim_y", "rmse", "niqe"),
        for_report=True,
        offline=True,
    )
    return evaluate.run(options, lambda _: None)


@pytest.fixture
def page(evaluation: Evaluation, tmp_path: Path) -> Path:
    path = tmp_path / "r.html"
    report.write_report(evaluation, path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


def test_self_contained_and_escaped(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<img" not in text
    assert "<script><b>" not in text
    assert all(found == "data:image/png;base64," for found in re.findall(r"url\(([^,)]*,?)", text))
    assert "@import" not in text


def test_crops_are_stored_once(evaluation: Evaluation, page: Path) -> None:
    images = re.findall(r"base64,([^)]*)\)", page.read_text("utf-8"))
    assert len(images) == len(set(images))


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser: Browser, page: Path, width: int) -> None:
    shown = browser.open(page, width, 900, phone=width < 500)
    seen: dict[str, Any] = shown.js(
        """(() => {
        const crops = [...document.querySelectorAll(".crop")];
        return {
          inner: innerWidth,
          overflow: document.documentElement.scrollWidth - innerWidth,
          heading: document.querySelector("h1").textContent,
          crops: crops.length,
          empty: crops.filter((c) => c.offsetWidth < 60 || c.offsetHeight < 5
            || !getComputedStyle(c).backgroundImage.startsWith("url(")).length,
          circles: document.querySelectorAll("svg circle").length,
          outside: [...document.querySelectorAll("svg")].filter((svg) => {
            const box = svg.getBBox(); return box.x < -1 || box.x + box.width > svg.viewBox.baseVal.width + 1;
          }).length,
          rows: document.querySelectorAll("#images tbody tr").length,
          notes: document.querySelector("ul.note").textContent,
          headings: [...document.querySelectorAll("h3")].map((h) => h.textContent).join("|"),
          remote: document.querySelectorAll("[src], [href], link, iframe, object").length,
          columns: new Set([...document.querySelector(".strip").children].map((f) => Math.round(f.offsetLeft))).size,
        }; })()
        """
    )
    assert shown.errors == []
    assert shown.requests == []
    assert seen["inner"] == width
    assert seen["overflow"] <= 0
    assert "first set and second<script><b>" in seen["heading"]
    assert seen["crops"] >= 3 * 6
    assert seen["empty"] == 0
    assert seen["remote"] == 0
    assert seen["circles"] == 4
    assert seen["outside"] == 0
    assert seen["rows"] == 2 * 8
    assert "broken.png" in seen["notes"]
    assert "11x11" in seen["notes"]
    assert HOSTILE in seen["headings"]
    assert "models differ most" in seen["headings"]
    assert seen["columns"] == (3 if width > 700 else 2)


def test_sorting_and_filtering(browser: Browser, page: Path) -> None:
    shown = browser.open(page)
    seen = shown.js(
        """(() => {
        const column = (i) => [...document.querySelectorAll("#images tbody tr")].map((r) => r.cells[i].textContent);
        const heads = document.querySelectorAll("#images th button");
        heads[3].click();
        const up = column(3);
        const pressed = heads[3].closest("th").getAttribute("aria-sort");
        heads[3].click();
        const down = column(3);
        heads[1].click();
        const names = column(1);
        const filter = document.querySelector("#filter");
        filter.value = "LANCZOS a.png";
        filter.dispatchEvent(new Event("input"));
        const visible = [...document.querySelectorAll("#images tbody tr")].filter((r) => !r.hidden).length;
        return { up, down, names, pressed, visible, status: document.querySelector("#shown").textContent }; })()
        """
    )
    assert shown.errors == []
    up = [float(value) for value in seen["up"] if value != "–"]
    assert up == sorted(up)
    assert seen["up"][-2:] == ["–", "–"]
    assert [v for v in seen["down"] if v != "–"] == [v for v in seen["up"] if v != "–"][::-1]
    assert seen["down"][-2:] == ["–", "–"], "what has no value stays at the end"
    assert seen["names"] == sorted(seen["names"], key=str.lower)
    assert seen["pressed"] == "ascending"
    assert (seen["visible"], seen["status"]) == (1, "1 of 16 rows")


def test_one_model_and_no_value_at_all(evaluation: Evaluation) -> None:
    alone = replace(evaluation, results=evaluation.results[:1], crops={})
    assert "Every image" in report.render(alone)
    nothing = replace(alone.results[0], metrics=dict.fromkeys(alone.metrics), images=())
    assert "Every image" in report.render(replace(alone, results=(nothing,)))


def test_crops_are_where_the_models_differ() -> None:
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (320, 400, 3), dtype=np.uint8)
    near, far = hr.copy(), hr.copy()
    far[200:260, 300:380] = 0
    crop = crops.choose(hr, {"near": near, "far": far})
    assert (crop.width, crop.height) == (128, 128)
    assert crop.left <= 300
    assert crop.left + crop.width >= 380
    assert crop.top <= 200
    assert crop.top + crop.height >= 260
    assert list(crop.pictures) == ["HR", "near", "far"]


@pytest.mark.parametrize("size", [(4, 4), (12, 300), (130, 40), (128, 128)])
def test_crops_of_small_images(size: tuple[int, int]) -> None:
    hr = np.zeros((*size, 3), np.uint8)
    crop = crops.choose(hr, {"m": hr + 1})
    assert (crop.height, crop.width) == (min(size[0], 128), min(size[1], 128))
    assert crop.top + crop.height <= size[0]
    assert crop.left + crop.width <= size[1]
