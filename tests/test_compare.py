"""The compare job: where pictures differ, tiles within a budget, what is refused, and what the page carries."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from safetensors.torch import save_file
from test_fidelity import fine_tuned, home, register

from sr_cli import images
from sr_cli.compare import job, methods, page, sheet, tiles
from sr_cli.compare import job as compare
from sr_cli.compare.job import for_display
from sr_cli.errors import InputError, OutputError, UsageError, WeightsError
from sr_cli.metrics import differences
from tests.networks import SMALL, with_weights

__all__ = ["home"]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = Image.fromarray(noise(max(2, height // 16), max(2, width // 16), seed))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(smooth(40, 60)).save(path)
    return path


@pytest.fixture
def models(home: Path) -> Path:
    """`first` with pixel and GAN stages, `second` with a pixel stage, in the user's manifest."""
    pixel = with_weights(SMALL["mesrgan"])
    register(home, "first", {"pixel": (pixel, None), "gan": (fine_tuned(pixel), "pixel")}, "pixel")
    register(home, "second", {"pixel": (with_weights(SMALL["esrgan"]), None)}, "pixel")
    return home


def run(photo: Path, *models: str, **options: Any) -> compare.Comparison:
    outputs = {key: options.pop(key) for key in ("output", "png") if key in options}
    return compare.run(photo, compare.CompareOptions(models, device="cpu", **options), lambda event: None, **outputs)


def record_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


# ---- Where they differ ------------------------------------------------------------------------------------------


def test_the_most_different_place_comes_first() -> None:
    first = smooth(512, 640)
    second = first.copy()
    second[64:192, 384:512] ^= 0x40
    second[320:448, 0:128] ^= 0x10
    found = differences.find([first, first, second], 2)
    assert [(spot.left, spot.top, spot.side) for spot in found] == [(384, 64, 128), (0, 320, 128)]
    assert found[0].difference > found[1].difference > 5
    assert found[0].of(second).shape == (128, 128, 3)


@settings(max_examples=40)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 9))
def test_spots_lie_inside_and_apart(height: int, width: int, count: int) -> None:
    found = differences.find([noise(height, width), noise(height, width, 1)], count)
    assert len(found) <= count and (found or not count)
    taken = np.zeros((height, width), int)
    for spot in found:
        assert spot.left >= 0 and spot.top >= 0
        assert spot.of(taken).shape == (spot.side, spot.side)
        taken[spot.top : spot.top + spot.side, spot.left : spot.left + spot.side] += 1
    assert taken.max() <= 1


def test_the_difference_map_is_a_mean_of_ranges() -> None:
    gray = [np.full((8, 8, 3), value, np.uint8) for value in (10, 40, 25)]
    gray[2][:, 4:] = 250
    assert differences.difference_map(gray, 4).tolist() == [[30, 240], [30, 240]]


# ---- Tiles ------------------------------------------------------------------------------------------------------


def decode(data: bytes | None) -> np.ndarray:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_small_pictures_are_stored_without_loss() -> None:
    pictures = [smooth(150, 200), smooth(600, 800, 1), smooth(600, 800, 2)]
    pyramid = tiles.build(pictures, 10**7)
    assert (pyramid.quality, pyramid.coverage) == (100, 1.0)
    full = pyramid.pictures[2][0]
    assert (full.width, full.height, len(full.tiles)) == (800, 600, 4)
    corners = [(0, 0), (0, 512), (512, 0), (512, 512)]
    for (top, left), tile in zip(corners, full.tiles, strict=True):
        up, back = max(0, top - tiles.MARGIN), max(0, left - tiles.MARGIN)
        expected = pictures[2][up : top + 512 + tiles.MARGIN, back : left + 512 + tiles.MARGIN]
        assert np.array_equal(decode(tile), expected)
    assert len(pyramid.pictures[0]) == 1
    coarse = pyramid.pictures[1][1]
    assert (coarse.width, coarse.height) == (200, 150)
    expected = pictures[1].reshape(150, 4, 200, 4, 3).mean(axis=(1, 3))
    assert np.abs(decode(coarse.tiles[0]) - expected).max() <= 1


def size(pyramid: tiles.Pyramid) -> int:
    levels = [level for picture in pyramid.pictures for level in picture]
    return sum(len(tile or "") for level in levels for tile in level.record()["tiles"])


@pytest.mark.parametrize("avif", [pytest.param(True, marks=pytest.mark.needs("avif")), False])
@pytest.mark.parametrize("budget", [300_000, 60_000])
def test_less_room_lowers_the_quality(budget: int, avif: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles.features, "check", lambda _name: avif)
    pictures = [noise(16, 24), *(smooth(300, 400, seed) for seed in range(3))]
    pictures[2] = pictures[2] ^ (noise(300, 400) & 7)
    steps: list[tuple[int, int]] = []
    pyramid = tiles.build(pictures, budget, lambda *step: steps.append(step))
    assert pyramid.quality < 100 and size(pyramid) <= budget
    assert pyramid.format == Image.open(io.BytesIO(pyramid.pictures[1][0].tiles[0] or b"")).format
    assert pyramid.format == ("AVIF" if avif else "WEBP")
    assert steps[-1][0] == steps[-1][1]


def test_without_room_the_least_different_tiles_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "_LOSSLESS_BYTES", 10**9)
    monkeypatch.setattr(tiles, "LOSSY", {tiles.lossy_format(): (60,)})
    base = smooth(128, 256)
    other = base.copy()
    other[64:, 64:128] ^= noise(64, 64) & 63  # the tile of row 1, column 1
    pictures = [noise(16, 24), base, base, other]
    enough = size(tiles.build(pictures, 10**9))
    pyramid = tiles.build(pictures, int(0.85 * enough))
    assert 0 < pyramid.coverage < 1 and size(pyramid) <= 0.85 * enough
    kept = [tile is not None for tile in pyramid.pictures[3][0].tiles]
    assert kept[5] and not all(kept)
    with pytest.raises(UsageError, match="--max-mb"):
        tiles.build(pictures, 1000)
    assert all(tile is not None for picture in pyramid.pictures for tile in picture[-1].tiles)


# ---- The page ---------------------------------------------------------------------------------------------------

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;'\"__DATA__.png"


def test_names_are_escaped() -> None:
    text = page.render(HOSTILE, 3, {"name": HOSTILE, "line": "\u2028"})
    assert text.count("</script>") == 2 and "<img" not in text
    title = re.search(r"<title>(.*?)</title>", text)
    assert title and html.unescape(title[1]) == f"{HOSTILE}: 3 models compared"
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data and json.loads(data[1]) == {"name": HOSTILE, "line": "\u2028"}


@pytest.mark.usefixtures("models")
def test_what_the_page_carries(photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(with_weights(SMALL["srgan"]).state_dict(), path)
    result = run(photo, "first", "second:pixel", "lanczos", str(path), png=tmp_path / "sheet.png")
    assert result.page == tmp_path / "photo_compare.html"
    assert result.page_bytes == result.page.stat().st_size
    assert [layer.label for layer in result.layers] == [
        "Original", "Bicubic", "first:pixel", "second:pixel", "Lanczos", "weights",
    ]  # fmt: skip
    record = record_of(result.page)
    assert (record["width"], record["height"], record["scale"], record["quality"]) == (240, 160, 4, 100)
    bicubic = base64.b64decode(record["layers"][1]["levels"][0]["tiles"][0])
    expected = Image.open(photo).resize((240, 160), Image.Resampling.BICUBIC)
    assert np.array_equal(decode(bicubic), np.asarray(expected))
    assert record["layers"][2]["parameters"] > 1000 and record["layers"][2]["seconds"] > 0
    spot = record["spots"][0]
    assert len(spot["crops"]) == 6 and spot["side"] == 128
    crop = decode(base64.b64decode(spot["crops"][1].removeprefix("data:image/webp;base64,")))
    box = (spot["left"], spot["top"], spot["left"] + 128, spot["top"] + 128)
    assert np.array_equal(crop, np.asarray(expected.crop(box)))
    assert Image.open(tmp_path / "sheet.png").width > 6 * 256
    assert "http" not in re.sub(r"http-equiv", "", result.page.read_text("utf-8"))


@pytest.mark.usefixtures("models")
def test_a_model_at_several_fidelities(photo: Path) -> None:
    result = run(photo, "first", "bicubic", fidelities=(0.0, 0.5, 1.0))
    labels = [layer.label for layer in result.layers[2:]]
    assert labels == ["first, fidelity 0", "first, fidelity 0.5", "first, fidelity 1"]
    assert result.layers[3].command == f"srup upscale {photo} -m first --fidelity 0.5"
    with pytest.raises(UsageError, match="second has none"):
        run(photo, "second", fidelities=(0.5,), overwrite=True)


@pytest.mark.usefixtures("models")
def test_without_models_those_whose_files_are_there(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {n: e for n, e in methods.weights.read_manifest().models.items() if n in ("first", "second", "remacri")}
    monkeypatch.setattr(methods.weights, "read_manifest", lambda: methods.weights.Manifest(entries))
    assert [layer.model for layer in run(photo).layers] == ["nearest", "bicubic", "first", "second"]
    assert len(run(photo, fidelities=(0.5,), overwrite=True).layers) == 3
    del entries["first"], entries["second"]
    with pytest.raises(WeightsError, match="-m"):
        run(photo, overwrite=True)


@pytest.mark.usefixtures("models")
def test_without_models_the_default_one_comes_first_with_all_its_stages(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "DEFAULT_MODEL", "second")
    entries = {n: e for n, e in methods.weights.read_manifest().models.items() if n in ("first", "second")}
    monkeypatch.setattr(methods.weights, "read_manifest", lambda: methods.weights.Manifest(entries))
    assert methods.bundled(compare.CompareOptions()) == ["second:pixel", "first:pixel"]
    monkeypatch.setattr(methods, "DEFAULT_MODEL", "first")
    assert methods.bundled(compare.CompareOptions()) == ["first:pixel", "first:gan", "second:pixel"]
    assert methods.bundled(compare.CompareOptions(fidelities=(0.5,))) == ["first"]


@pytest.mark.usefixtures("models")
def test_each_command_makes_the_picture_that_is_shown(tmp_path: Path, srup_here: Any, models: Path) -> None:
    photo = tmp_path / "a photo.png"
    Image.fromarray(smooth(40, 60)).save(photo)
    weights = tmp_path / "my weights.safetensors"
    save_file(with_weights(SMALL["srgan"]).state_dict(), weights)
    result = run(photo, "first:gan", str(weights), ensemble=True)
    record = record_of(result.page)
    assert [layer["command"] for layer in record["layers"]][:2] == [None, f"srup upscale '{photo}' -m bicubic"]
    for layer in record["layers"][1:]:
        command = shlex.split(layer["command"])
        done = srup_here(*command[1:], "-o", tmp_path / "out.png", "--overwrite", SRUP_HOME=str(models))
        assert done.returncode == 0, done.stderr
        shown = decode(base64.b64decode(layer["levels"][0]["tiles"][0]))
        assert np.abs(np.asarray(Image.open(tmp_path / "out.png")).astype(int) - shown).max() <= 1


def test_progress_is_of_the_whole_job(photo: Path) -> None:
    events: list[compare.CompareEvent] = []
    compare.run(photo, compare.CompareOptions(("lanczos",)), events.append)
    assert {event.steps for event in events} == {3}
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert (events[0].done, events[-1].done, events[-1].label) == (0, 3, "writing the page")
    assert list(dict.fromkeys(event.label for event in events)) == ["Bicubic", "Lanczos", "writing the page"]


def test_crop(photo: Path) -> None:
    result = run(photo, "lanczos", crop=(50, 10, 30, 20))
    assert (result.width, result.height) == (40, 80)
    for crop in [(60, 0, 1, 1), (0, 40, 1, 1), (0, 0, 0, 1)]:
        with pytest.raises(UsageError, match="60x40"):
            run(photo, "lanczos", crop=crop, overwrite=True)


def test_pictures_of_another_scale_are_shown_at_the_largest(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling:
        scale = 2

        def upscale(self, pixels: np.ndarray, progress: object = None) -> Any:
            from sr_cli.inference import EngineResult, Setup

            setup = Setup("cpu", "fp32", "eager", 0, 0)

            return EngineResult(pixels.repeat(2, 0).repeat(2, 1), 1, 1, 0, 0, setup)

    layer = methods.Layer("double", "x", scale=2)
    sources = [methods.interpolation("bicubic", photo), methods.Method(Doubling(), layer)]  # type: ignore[arg-type]
    monkeypatch.setattr(methods, "load", lambda options, photo: sources)
    result = run(photo, "whatever")
    assert (result.width, result.scale, result.layers[2].scale) == (240, 4, 2)


def test_large_pictures_are_kept_on_disk(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(photo, "lanczos").page.read_bytes()
    monkeypatch.setattr(job, "_IN_MEMORY", 0)
    second = run(photo, "lanczos", overwrite=True).page.read_bytes()
    assert [s["crops"] for s in record_of(photo.with_name("photo_compare.html"))["spots"]]
    assert abs(len(first) - len(second)) < 100  # only the times differ


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 3)])
def test_tiny_photos(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(noise(*size)).save(tmp_path / "tiny.png")
    result = run(tmp_path / "tiny.png", "lanczos", png=tmp_path / "sheet.png")
    assert result.spots and result.sheet


# ---- What the browser is shown ----------------------------------------------------------------------------------


def test_transparency_is_laid_on_white() -> None:
    alpha = np.array([[0, 255]], np.uint8)
    shown = for_display(images.Photo(np.full((1, 2, 3), 10, np.uint8), alpha=alpha))
    assert shown.tolist() == [[[255] * 3, [10] * 3]]


def test_gray_and_16_bits_become_rgb_of_8() -> None:
    shown = for_display(images.Photo(np.full((1, 2, 1), 65535, np.uint16)))
    assert shown.dtype == np.uint8 and shown.shape == (1, 2, 3) and (shown == 255).all()


def test_other_colour_spaces_become_srgb() -> None:
    pixels = noise(4, 4)
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(for_display(images.Photo(pixels, icc_profile=same)).astype(int) - pixels).max() <= 1
    swapped = _profile_with_swapped_red_and_blue(same)
    shown = for_display(images.Photo(pixels, icc_profile=swapped))
    assert np.abs(shown.astype(int) - pixels[:, :, ::-1]).max() <= 2
    assert np.array_equal(for_display(images.Photo(pixels, icc_profile=b"nonsense")), pixels)


def _profile_with_swapped_red_and_blue(profile: bytes) -> bytes:
    """An RGB profile whose first channel is blue: the tags rXYZ and bXYZ exchange names (ICC.1:2022, 7.3)."""
    count = int.from_bytes(profile[128:132], "big")
    tags = [profile[132 + 12 * i : 144 + 12 * i] for i in range(count)]
    names = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}
    table = b"".join(names.get(tag[:4], tag[:4]) + tag[4:] for tag in tags)
    return profile[:132] + table + profile[132 + 12 * count :]


def test_sheet_cuts_long_names() -> None:
    crops = [[noise(16, 16)] * 3]
    drawn = sheet.draw("a very long name " * 20, ["short", "an extremely long label of a model", "x"], crops)
    assert drawn.shape[1] == 2 * 32 + 3 * 32 + 2 * 12


# ---- Refusals and the command line ------------------------------------------------------------------------------


def test_refusals_come_before_the_work(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "photo_compare.html").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        run(photo, "lanczos")
    assert (tmp_path / "photo_compare.html").read_text() == "mine"
    with pytest.raises(UsageError, match=r"\.html"):
        run(photo, "lanczos", output=tmp_path / "page.png")
    with pytest.raises(UsageError, match=r"\.png"):
        run(photo, "lanczos", output=tmp_path / "page.html", png=tmp_path / "sheet.jpg")
    with pytest.raises(OutputError, match="does not exist"):
        run(photo, "lanczos", output=tmp_path / "nowhere" / "page.html")
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "none.png", "lanczos")
    with pytest.raises(UsageError, match="--max-mb must be at least 1"):
        compare.CompareOptions(max_mb=1e-5)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.usefixtures("models")
def test_a_model_named_twice(photo: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        run(photo, "first", "first:pixel")


def test_files_of_one_name_are_told_apart_by_their_folders(photo: Path, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "pixel.best.safetensors" for folder in ("run-1", "run-2")]
    for path in paths:
        path.parent.mkdir()
        save_file(with_weights(SMALL["mesrgan"]).state_dict(), path)
    labels = [layer.label for layer in run(photo, *map(str, paths)).layers]
    assert labels[2:] == ["run-1/pixel.best", "run-2/pixel.best"]
    with pytest.raises(UsageError, match="twice"):
        run(photo, str(paths[0]), str(paths[0]), overwrite=True)


def test_command_line(srup_here: Any, photo: Path, models: Path, tmp_path: Path) -> None:
    environment = {"SRUP_HOME": str(models)}
    done = srup_here(
        "compare", photo, "-m", "first", "-m", "lanczos", "-o", "out.html", "--png", "sheet.png", "--json",
        "--crop", "0,0,40,30", **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["page_bytes"] == (tmp_path / "out.html").stat().st_size
    assert [layer["label"] for layer in document["layers"]] == ["Original", "Bicubic", "first:pixel", "Lanczos"]
    again = srup_here("compare", photo, "-m", "lanczos", "-o", "out.html")
    assert again.returncode == 6 and "already exists" in again.stderr
    wrong = srup_here("compare", photo, "-m", "lanczos", "--crop", "1,2,3")
    assert wrong.returncode == 2 and "X,Y,W,H" in wrong.stderr
    plain = srup_here("compare", photo, "-m", "lanczos")
    assert plain.returncode == 0 and not plain.stdout
    summary = r"^compared 1 model on photo\.png in .* s: open .*photo_compare\.html in a browser \("
    assert re.search(summary, plain.stderr, re.MULTILINE)


def test_checksums_of_the_test_weights_differ(models: Path) -> None:
    files = list((models / "weights").iterdir())
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == len(files) == 3
