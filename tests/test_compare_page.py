"""The compare page in a real browser: it loads by itself, and everything on it does what it says."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, Page, running
from PIL import Image, ImageFilter

from sr_cli.compare import job as compare
from sr_cli.compare import methods
from sr_cli.inference import EngineResult, Setup

HOSTILE = "<img src=x onerror=alert(1)> & 'ünï\"cödé'.png"
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 220)}
WIDTH, HEIGHT = 1280, 800

SETUP = Setup("cpu", "fp32", "eager", 0, 0)


class Paint:
    """Stands for a model: a flat colour, with one square of noise where the models differ."""

    scale = 4

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.colour = colour

    def upscale(self, pixels: np.ndarray, _progress: object = None) -> EngineResult:
        height, width = pixels.shape[0] * 4, pixels.shape[1] * 4
        painted = np.full((height, width, 3), self.colour, np.uint8)
        square = painted[256:384, 640:768]
        square[:] = np.random.default_rng(sum(self.colour)).integers(0, 256, square.shape)
        return EngineResult(painted, 1, 1, 0, 0, SETUP)


def make(folder: Path, name: str = "photo.png", size: tuple[int, int] = (300, 200), **options: Any) -> Path:
    """A page whose pictures are the photo (checkerboard), bicubic, and the flat colours."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    board = (((rows + columns) % 2) * 255).astype(np.uint8)
    Image.fromarray(board).save(folder / name)
    sources = [methods.interpolation("bicubic", Path(name))]
    for label, colour in COLOURS.items():
        costs = {"device": "cpu", "precision": "fp32", "parameters": 10**6, "weights_bytes": 10**6}
        layer = methods.Layer(label, label, "pixel", command=f"srup upscale '{name}' -m {label}", **costs)  # type: ignore[arg-type]
        sources.append(methods.Method(Paint(colour), layer))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "load", lambda _options, _photo: sources)
        return compare.run(folder / name, compare.CompareOptions(**options), lambda _event: None).page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("page"))


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    page = browser.open(file, WIDTH, HEIGHT)
    settle(page)
    page.js("comparison.state.left = 1; comparison.redraw(); 0")  # bicubic, which is grey, against red
    yield page
    assert page.errors == [] and page.requests == []
    page.close()


def settle(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
    page.wait("document.getElementById('stage').dataset.ready === 'true'")
    page.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")


def state(page: Page, name: str) -> Any:
    return page.js(f"comparison.state.{name}")


def colour_at(page: Page, across: float, down: float) -> tuple[int, ...]:
    """The colour of the stage's canvas at a share of its width and height."""
    settle(page)
    values = page.js(
        "(() => { const c = document.getElementById('canvas');"
        f"return [...c.getContext('2d').getImageData(c.width * {across}, c.height * {down}, 1, 1).data]; }})()"
    )
    return tuple(values[:3])


def test_it_opens_without_errors_and_requests(page: Page) -> None:
    assert page.js("document.title") == "photo.png: 3 models compared"
    assert page.js("document.querySelector('h1').textContent") == "photo.png"
    assert page.js("document.querySelectorAll('#facts tr:not(.command)').length") == 4
    assert page.js("[...document.querySelectorAll('#spots img')].every((i) => i.complete && i.naturalWidth === 128)")
    assert page.js("document.querySelectorAll('#spots img').length") >= 5


def test_it_opens_on_the_original_against_the_first_model(browser: Browser, file: Path) -> None:
    page = browser.open(file, WIDTH, HEIGHT)
    settle(page)
    assert page.js("[left.value, right.value].map((i) => comparison.data.layers[i].label)") == ["Original", "red"]
    page.close()


def test_the_command_of_each_model_is_copied(page: Page) -> None:
    shown = page.js("[...document.querySelectorAll('#facts tr.command code')].map((code) => code.textContent)")
    assert shown == [f"srup upscale photo.png -m {name}" for name in ("bicubic",)] + [
        f"srup upscale 'photo.png' -m {name}" for name in COLOURS
    ]
    page.js("window.copied = []; 0")
    page.js("document.addEventListener('copy', () => copied.push(document.activeElement.value))")
    page.js("navigator.clipboard.writeText = (text) => { copied.push(text); return Promise.resolve(); }; 0")
    page.click("#facts tr.command:nth-of-type(4) button")
    page.wait("copied.length === 1")
    page.js("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); 0")
    page.click("#facts tr.command:nth-of-type(6) button")
    page.wait("copied.length === 2")
    assert page.js("copied") == ["srup upscale 'photo.png' -m red", "srup upscale 'photo.png' -m green"]
    assert page.js("document.activeElement.textContent").startswith("Cop")


def test_the_policy_forbids_the_network(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    assert page.js("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')") == "refused"
    assert any("Content Security Policy" in error for error in page.errors)
    page.close()


def test_the_divider_by_keys(page: Page) -> None:
    page.key("b")
    settle(page)
    assert page.js("[left.value, right.value].map((i) => comparison.data.layers[i].label)") == ["Bicubic", "green"]
    page.js("document.getElementById('divider').focus()")
    assert colour_at(page, 0.6, 0.9) == pytest.approx(COLOURS["green"], abs=3)
    for _ in range(10):
        page.key("ArrowRight")
    settle(page)
    assert state(page, "split") == pytest.approx(0.7)
    assert page.js("divider.getAttribute('aria-valuenow')") == "70"
    assert (
        page.js("document.getElementById('divider').getAttribute('aria-valuetext')") == "70 % Bicubic, the rest green"
    )
    assert len(set(colour_at(page, 0.6, 0.9))) == 1  # bicubic, a gray
    page.key("Home")
    assert colour_at(page, 0.3, 0.9) == pytest.approx(COLOURS["green"], abs=3)
    page.key("End")
    settle(page)
    assert state(page, "split") == 1


def test_the_divider_by_dragging(page: Page) -> None:
    x, y = page.middle("#divider span")
    page.drag((x, y), (x - 300, y))
    settle(page)
    assert state(page, "split") == pytest.approx((x - 300 - 21) / (WIDTH - 42), abs=0.01)
    assert state(page, "fitted")


def test_space_shows_the_left_picture_while_it_is_held(page: Page) -> None:
    page.key("a")
    page.key("a")  # green on the left
    assert colour_at(page, 0.7, 0.9) == pytest.approx(COLOURS["red"], abs=3)
    page.key(" ", kind="down")
    assert colour_at(page, 0.7, 0.9) == pytest.approx(COLOURS["green"], abs=3)
    page.key(" ", kind="up")
    assert colour_at(page, 0.7, 0.9) == pytest.approx(COLOURS["red"], abs=3)


def test_choosing_and_swapping(page: Page) -> None:
    page.js("(() => { right.value = 4; right.dispatchEvent(new Event('change')); })()")
    assert colour_at(page, 0.7, 0.9) == pytest.approx(COLOURS["blue"], abs=3)
    page.click("#swap")
    assert colour_at(page, 0.3, 0.9) == pytest.approx(COLOURS["blue"], abs=3)
    page.key("x")
    page.key("B", shift=True)
    assert colour_at(page, 0.7, 0.9) == pytest.approx(COLOURS["green"], abs=3)
    for _ in range(3):
        page.key("b")
    settle(page)
    assert page.js("comparison.data.layers[right.value].model") == "bicubic"  # round and round


def test_zoom_by_keys_wheel_and_buttons(page: Page) -> None:
    fitted = state(page, "zoom")
    page.key("1")
    settle(page)
    assert state(page, "zoom") == 1 and page.js("one.getAttribute('aria-pressed')") == "true"
    page.key("+")
    settle(page)
    assert state(page, "zoom") == pytest.approx(1.25)
    page.key("8")
    settle(page)
    assert state(page, "zoom") == 8
    x = state(page, "x")
    page.key("ArrowRight", shift=True)
    settle(page)
    assert state(page, "x") == pytest.approx(x + 60 / 8)
    page.key("0")
    settle(page)
    assert state(page, "zoom") == fitted and state(page, "fitted")
    centre = page.middle("#stage")
    page.mouse("mouseWheel", *centre, deltaX=0, deltaY=-200)
    page.wait(f"comparison.state.zoom > {fitted * 1.2}")
    page.click("#fit")
    page.click("#in")
    settle(page)
    assert state(page, "zoom") == pytest.approx(fitted * 1.5)


def test_the_place_under_the_pointer_stays_there_while_zooming(page: Page) -> None:
    page.key("2")
    settle(page)
    left, top = page.js("(() => { const b = stage.getBoundingClientRect(); return [b.left, b.top]; })()")
    where = (left + 300, top + 200)
    page.mouse("mouseMoved", *where)
    before = page.js("({...comparison.state.pointer})")
    page.mouse("mouseWheel", *where, deltaX=0, deltaY=-150)
    page.wait("comparison.state.zoom > 2.2")
    page.mouse("mouseMoved", *where)
    after = page.js("({...comparison.state.pointer})")
    assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]), abs=0.6)


def test_dragging_moves_the_picture_in_step_in_every_view(page: Page) -> None:
    page.key("4")
    page.key("v")
    settle(page)
    x = state(page, "x")
    centre = page.middle("#stage")
    page.drag((centre[0] - 200, centre[1]), (centre[0] - 280, centre[1]))
    settle(page)
    assert state(page, "x") == pytest.approx(x + 80 / 4, abs=0.5)
    assert page.js("[...document.querySelectorAll('.tag')].map((t) => t.textContent)") == ["Bicubic", "red"]
    page.key("v")
    settle(page)
    assert page.js("document.querySelectorAll('.tag').length") == 5


def test_single_pixels_are_squares_and_the_originals_are_four_times_as_large(page: Page) -> None:
    """At 8 device pixels a pixel the checkerboard of the original has squares of 32."""
    page.key("8")
    page.js("(() => { left.value = 0; left.dispatchEvent(new Event('change')); right.value = 0;"
            "right.dispatchEvent(new Event('change')); })()")  # fmt: skip
    settle(page)
    row = page.js("(() => { const c = document.getElementById('canvas');"
                  "const d = c.getContext('2d').getImageData(0, 100, c.width, 1).data;"
                  "return Array.from({length: c.width}, (_, i) => d[4 * i]); })()")  # fmt: skip
    assert set(row) == {0, 255}
    runs = [len(match[0]) for match in re.finditer(r"(.)\1*", "".join("01"[v > 0] for v in row))]
    assert set(runs[1:-1]) == {32}


def test_the_places_where_they_differ(page: Page) -> None:
    page.key("n")
    settle(page)
    assert (state(page, "x"), state(page, "y")) == (704, 320)  # the middle of the noise
    assert page.js("document.getElementById('live').textContent") == "Place 1 of " + str(
        page.js("comparison.data.spots.length")
    )
    page.key("0")
    page.click("#spots button[data-spot='0']:nth-child(5)")
    settle(page)
    assert (state(page, "x"), state(page, "y"), state(page, "right")) == (704, 320, 4)
    page.key("p")
    settle(page)
    assert state(page, "spot") == page.js("comparison.data.spots.length") - 1


def test_the_loupe_names_the_colours(page: Page) -> None:
    page.key("l")
    x, y = page.middle("#stage")
    page.mouse("mouseMoved", x + 30, y + 150)
    settle(page)
    assert page.js("getComputedStyle(document.getElementById('loupe')).display") != "none"
    assert "red 220, 30, 30" in page.js("document.getElementById('colours').textContent")
    page.key("l")
    settle(page)
    assert page.js("getComputedStyle(document.getElementById('loupe')).display") == "none"


def test_help_and_theme(page: Page) -> None:
    page.key("?")
    assert page.js("keys.open") and page.js("document.activeElement.id") == "close"
    page.key("Escape")
    page.wait("!keys.open")
    backgrounds = []
    for theme in ("light", "dark", None):
        backgrounds.append(page.js("getComputedStyle(document.body).backgroundColor"))
        page.key("t")
        page.wait(f"document.documentElement.dataset.theme === {f'{theme!r}' if theme else 'undefined'}")
    assert backgrounds[0] == backgrounds[1] != backgrounds[2]


def test_keys_stay_with_the_control_that_has_the_focus(page: Page) -> None:
    page.js("right.focus()")
    page.key("l")
    page.key("ArrowDown")
    settle(page)
    assert not state(page, "loupe") and state(page, "fitted")


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_nothing_is_cut_off_at_any_width(browser: Browser, file: Path, width: int) -> None:
    page = browser.open(file, width, 800, phone=width < 500, scale=2 if width < 500 else 1)
    settle(page)
    assert page.js("document.documentElement.scrollWidth") <= width
    outside = page.js(
        "[...document.querySelectorAll('header *, .toolbar *, .zoom *, .status')].filter((e) => e.offsetParent"
        f" && (e.getBoundingClientRect().right > {width} || e.getBoundingClientRect().left < 0)).map((e) => e.id)"
    )
    assert outside == []
    if width < 500:  # large enough for fingers
        assert page.js("[...document.querySelectorAll('header button, .card button[id], select')].every("
                       "(e) => e.getBoundingClientRect().height >= 44)")  # fmt: skip
    assert page.errors == [] and page.requests == []
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_of_text(browser: Browser, file: Path, dark: bool) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3) for every visible text outside of the pictures."""
    page = browser.open(file, dark=dark)
    settle(page)
    pairs = page.js(
        """(() => {
        const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
        return [...document.querySelectorAll('body *')].filter((e) => e.offsetParent && !e.closest('#stage, #live') &&
            [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((e) => [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, back(e)]);
        })()"""
    )
    assert len(pairs) > 20

    def luminance(colour: str) -> float:
        values = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for text, ink, paper in pairs:
        light, dim = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= 4.5, (text, ink, paper)
    page.close()


def test_everything_has_a_name_for_screen_readers(browser: Browser, file: Path) -> None:
    page = browser.open(file)
    settle(page)
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "slider", "image", "region", "application", "table", "heading"}
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles - {"table"} and not node["name"].get("value")
    ]
    assert unnamed == []
    assert {"slider", "combobox", "application"} <= {n["role"]["value"] for n in nodes if not n.get("ignored")}
    page.close()


def test_motion_only_where_it_is_welcome(browser: Browser, file: Path) -> None:
    calm = browser.open(file, calm=True)
    settle(calm)
    calm.js("new Promise((done) => { dispatchEvent(new Event('x')); requestAnimationFrame(() => done(0)); })")
    calm.key("n")
    settle(calm)
    assert state(calm, "x") == 704
    calm.close()
    lively = browser.open(file, calm=False)
    settle(lively)
    lively.key("n")
    lively.wait("comparison.state.x === 704")
    lively.close()


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(make(tmp_path, HOSTILE, (40, 30)))
    settle(page)
    assert page.js("document.querySelector('h1').textContent") == HOSTILE
    assert page.js("document.querySelectorAll('img:not(#spots img)').length") == 0
    assert page.errors == [] and page.requests == []
    page.close()


def test_a_large_photo_stays_responsive(browser: Browser, tmp_path: Path) -> None:
    """Megapixels of output in tiles: few are decoded at a time, and reduced ones serve the whole view."""
    file = make(tmp_path, size=(600, 400), max_mb=1.5)
    assert file.stat().st_size <= 1_500_000
    page = browser.open(file, WIDTH, HEIGHT)
    settle(page)
    longest = page.js(
        "Math.max(...comparison.data.layers.flatMap((layer) => layer.levels)"
        ".flatMap((level) => level.tiles.map((tile) => tile ? tile.length : 0)))"
    )
    assert longest < 500_000
    assert page.js("comparison.data.layers[2].levels.map((l) => l.tiles.length)") == [20, 2, 1]
    page.key("3")
    assert colour_at(page, 0.75, 0.2) == pytest.approx(COLOURS["red"], abs=4)
    assert page.errors == []
    page.close()


def test_what_is_drawn_is_seen(browser: Browser, file: Path) -> None:
    """A screenshot, since a canvas could be right and hidden."""
    page = browser.open(file, WIDTH, HEIGHT)
    settle(page)
    image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    red = np.abs(image - COLOURS["red"]).max(axis=2) < 8
    assert red[:, : WIDTH // 2].sum() == 0
    assert red[:, WIDTH // 2 :].mean() > 0.2
    page.close()


def test_tiles_meet_without_a_gap_or_a_shift(browser: Browser, tmp_path: Path) -> None:
    """At 1:1 the canvas shows the very pixels of a lossless picture, across the tiles' seams."""
    page = browser.open(make(tmp_path, size=(280, 180)), 1000, 1000)
    settle(page)
    page.key("1")
    page.key("a")  # anything but the divider's default: bicubic everywhere
    page.js("(() => { left.value = 1; left.dispatchEvent(new Event('change')); })()")
    page.key("End")
    page.js("comparison.state.split = 1; comparison.state.x = 560; comparison.state.y = 500; comparison.redraw()")
    settle(page)
    shown = page.js(
        "(() => { const c = document.getElementById('canvas'), r = Math.round;"
        "const x = r(c.width / 2 - comparison.state.x + 500), y = r(c.height / 2 - comparison.state.y + 450);"
        "return [...c.getContext('2d').getImageData(x, y, 24, 100).data]; })()"
    )
    pixels = np.array(shown, np.uint8).reshape(100, 24, 4)[:, :, :3]
    photo = Image.open(tmp_path / "photo.png").convert("RGB")
    expected = np.asarray(photo.resize((1120, 720), Image.Resampling.BICUBIC))[450:550, 500:524]
    assert np.array_equal(pixels, expected)
    page.close()


class Sharpen:
    """As sharp as a trained model, in no time: Lanczos and an unsharp mask."""

    scale = 4

    def __init__(self, percent: int) -> None:
        self.percent = percent

    def upscale(self, pixels: np.ndarray, _progress: object = None) -> EngineResult:
        large = Image.fromarray(pixels).resize((pixels.shape[1] * 4, pixels.shape[0] * 4), Image.Resampling.LANCZOS)
        return EngineResult(np.asarray(large.filter(ImageFilter.UnsharpMask(3, self.percent, 0))), 1, 1, 0, 0, SETUP)


@pytest.mark.parametrize(
    "crop", [(300, 500, 330, 240), pytest.param(None, marks=pytest.mark.slow)], ids=["part", "whole photo"]
)
def test_a_real_photo_with_four_models(
    browser: Browser, shared: Path, tmp_path: Path, crop: tuple[int, int, int, int] | None
) -> None:
    """Below 10 MB, and screenshots at desktop and phone width show left and right what they should."""
    photo = shared / "data" / "val" / "budgie__noche-bogota.jpg"
    sources = [methods.interpolation("bicubic", photo)]
    for percent in (80, 120, 160, 200):
        sources.append(methods.Method(Sharpen(percent), methods.Layer(f"sharpened by {percent}", "x")))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "load", lambda _options, _photo: sources)
        options = compare.CompareOptions(crop=crop)
        result = compare.run(photo, options, lambda _event: None, output=tmp_path / "page.html")
    assert len(result.layers) == 6 and result.coverage == 1
    assert result.page_bytes == result.page.stat().st_size <= 10_000_000
    whole = Image.open(photo).convert("RGB")
    x, y, width, height = crop or (0, 0, *whole.size)
    pixels = np.asarray(whole.crop((x, y, x + width, y + height)))
    left, right = (source.upscaler.upscale(pixels).pixels for source in sources[:2])
    for width, height, phone in ((1440, 900, False), (390, 844, True)):
        page = browser.open(result.page, width, height, phone=phone)
        settle(page)
        box = page.js(
            "(() => { const b = stage.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        zoom = state(page, "zoom")
        size = round(result.width * zoom), round(result.height * zoom)
        x, y = round(box[0] + box[2] / 2 - size[0] / 2), round(box[1] + box[3] / 2 - size[1] / 2)
        seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB").crop((x, y, x + size[0], y + size[1]))
        # A band below the labels and above the buttons, away from the divider and its handle.
        top, bottom = int(0.6 * size[1]), int(0.8 * size[1])
        for picture, start, stop in ((left, 0.05, 0.4), (right, 0.6, 0.95)):
            reduced = Image.fromarray(picture).resize(size, Image.Resampling.BOX)
            columns = slice(int(start * size[0]), int(stop * size[0]))
            # The browser reduces with another filter: compared a little blurred.
            one, other = (np.asarray(i.filter(ImageFilter.GaussianBlur(2)), int) for i in (seen, reduced))
            assert other[top:bottom, columns].std() > 20
            assert np.abs(one - other)[top:bottom, columns].mean() < 4
        assert page.errors == [] and page.requests == []
        page.close()
