"""Batches: what is found, how outputs are named, what a journal remembers, who does what."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sr_cli import inference
from sr_cli.errors import OutOfMemory, OutputError, SrupError, UsageError, WeightsError
from sr_cli.storage import Claims, Prefetch
from sr_cli.upscale import checks
from sr_cli.upscale import inputs as planning
from sr_cli.upscale.batch import run
from sr_cli.upscale.estimate import estimate
from sr_cli.upscale.events import ImageResult, UpscaleEvent, exit_code
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.naming import Namer
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.pipeline import WriterPool
from sr_cli.upscale.tally import Tally
from sr_cli.upscale.worker import Worker, make_upscaler
from tests.batches import end_at_photo, statuses

BICUBIC = UpscaleOptions(model="bicubic")


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def upscale(*inputs: Any, to: Any = None, options: UpscaleOptions = BICUBIC, **changes: Any) -> list[ImageResult]:
    return run(inputs, to, replace(options, **changes), lambda event: None)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Sizes


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({}, (36, 28)),
        ({"scale": 2.5}, (22, 18)),
        ({"scale": 1}, (9, 7)),
        ({"scale": 8}, (72, 56)),
        ({"scale": 16}, (144, 112)),
        ({"width": 30}, (30, 23)),
        ({"height": 21}, (27, 21)),
        ({"width": 30, "height": 14}, (18, 14)),
        ({"max_side": 20}, (20, 16)),
        ({"max_side": 100}, (36, 28)),
        ({"scale": 8, "max_side": 5}, (5, 4)),
    ],
)
def test_any_size(wish: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    (result,) = upscale(picture(tmp_path / "a.png"), to=tmp_path / "b.png", **wish)
    assert (result.width, result.height) == size
    assert Image.open(tmp_path / "b.png").size == size


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(1, 16))
def test_sizes_follow_the_factor(width: int, height: int, scale: float) -> None:
    wide, high = UpscaleOptions(scale=scale).size_of(width, height)
    assert abs(wide - width * scale) <= 0.5 and abs(high - height * scale) <= 0.5


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 80000), st.integers(1, 80000))
def test_boxes_are_kept(width: int, height: int, box_width: int, box_height: int) -> None:
    options = UpscaleOptions(width=box_width, height=box_height)
    try:
        wide, high = options.size_of(width, height)
    except UsageError:
        assert box_width > 16 * width and box_height > 16 * height
        return
    assert wide <= box_width and high <= box_height
    assert wide == box_width or high == box_height


@pytest.mark.parametrize(
    "wish",
    [
        {"scale": 0.5},
        {"scale": 17},
        {"scale": float("nan")},
        {"width": 0},
        {"max_side": -1},
        {"scale": 2, "width": 9},
        {"format": "bmp"},
    ],
)
def test_senseless_wishes_are_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        UpscaleOptions(**wish)


def test_exactly_4_is_the_models_own_result(tmp_path: Path) -> None:
    """No resampling where none is needed."""
    source = picture(tmp_path / "a.png")
    upscale(source, to=tmp_path / "b.png", scale=4)
    expected = inference.Upscaler("bicubic").upscale(np.asarray(Image.open(source))).pixels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)


# Finding


def test_folders_are_mirrored(tmp_path: Path) -> None:
    for name in ("a.jpg", "trip to ö/b.png", "写真/深い/c.webp", ".hidden/d.png", ".e.png", "notes.txt"):
        path = tmp_path / "in" / name
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            picture(path)
    results = upscale(tmp_path / "in", to=tmp_path / "out", recursive=True)
    assert statuses(results) == ["done"] * 3
    assert tree(tmp_path / "out") == {
        "a_bicubic_x4.jpg",
        "trip to ö/b_bicubic_x4.png",
        "写真/深い/c_bicubic_x4.webp",
    }


def test_without_recursive_only_the_folder_itself(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/sub/b.png")
    assert len(upscale(tmp_path / "in", to=tmp_path / "out")) == 1
    assert tree(tmp_path / "out") == {"a_bicubic_x4.png"}


def test_loops_of_links_end(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "elsewhere/b.png")
    (tmp_path / "in/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/self.png").symlink_to(tmp_path / "in/self.png")
    (tmp_path / "in/broken.png").symlink_to(tmp_path / "nowhere.png")
    results = upscale(tmp_path / "in", to=tmp_path / "out", recursive=True)
    assert statuses(results) == ["done", "done"]
    assert tree(tmp_path / "out") == {"a_bicubic_x4.png", "other/b_bicubic_x4.png"}


@pytest.mark.parametrize("pattern", ["*.png", "**/*.png", "in*/[ab].png", "in?1/a.png"])
def test_patterns_that_no_shell_expanded(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("top.png", "in 1/a.png", "in 1/b.png", "in 1/c.jpg"):
        picture(tmp_path / name)
    found = {str(result.input) for result in upscale(pattern, to="out")}
    assert (
        found
        == {
            "*.png": {"top.png"},
            "**/*.png": {"top.png", "in 1/a.png", "in 1/b.png"},
            "in*/[ab].png": {"in 1/a.png", "in 1/b.png"},
            "in?1/a.png": {"in 1/a.png"},
        }[pattern]
    )


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    results = upscale(picture(tmp_path / "[a]*.png"))
    assert statuses(results) == ["done"]
    assert (tmp_path / "[a]*_bicubic_x4.png").exists()


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/shut/b.png")
    real = os.scandir

    def scandir(path: Any) -> Any:  # permissions do not stop the superuser, under whom tests may run
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done, failed = upscale(tmp_path / "in", to=tmp_path / "out", recursive=True)
    assert (done.status, failed.status) == ("done", "failed")
    assert failed.error is not None and "shut: cannot list this folder: Permission denied" in failed.error


@pytest.mark.parametrize("name", ["empty", "nothing*.png", "missing.png"])
def test_nothing_there_is_one_failure(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (result,) = upscale(tmp_path / name, to=f"{tmp_path}/out/")
    assert (result.status, result.exit_code) == ("failed", 3)
    assert not (tmp_path / "out").exists()


def test_a_second_run_does_not_enlarge_the_first_ones_outputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    upscale(tmp_path)
    before = tree(tmp_path)
    assert statuses(upscale(tmp_path)) == ["skipped"]
    assert statuses(upscale(tmp_path, options=UpscaleOptions(model="lanczos"))) == ["done"]
    assert tree(tmp_path) - before == {"a_lanczos_x4.jpg"}
    assert statuses(upscale(tmp_path / "a_lanczos_x4.jpg")) == ["done"], "by its name it is an input like any other"


def test_output_folder_inside_the_input_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "out/old.png")
    assert [r.input.name for r in upscale(tmp_path, to=tmp_path / "out", recursive=True)] == ["a.png"]


def test_the_same_file_twice_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    assert len(upscale("a.png", "./a.png", tmp_path / "a.png", to="out")) == 1


# Naming


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{stem}{ext}", "a b.PNG"),
        ("{stem}_{model}_x{scale}{ext}", "a b_bicubic_x4.PNG"),
        ("{model}/{stem}-{size}{ext}", "bicubic/a b-x4.PNG"),
        ("{parent} {name}{ext}", "in a b.PNG.PNG"),
        ("{{{stem}}}.webp", "{a b}.webp"),
    ],
)
def test_templates(template: str, name: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "in/a b.PNG")
    upscale(source, to=f"{tmp_path}/out/", name=template)
    assert tree(tmp_path / "out") == {name}


@pytest.mark.parametrize(
    "template",
    [
        "../{stem}{ext}",
        "/tmp/{stem}{ext}",
        "a/../../{stem}{ext}",
        "..\\{stem}{ext}",
        "C:{stem}{ext}",
        "C:\\{stem}{ext}",
        "\\\\server\\{stem}{ext}",
        "{stem.__class__}{ext}",
        "{0}{ext}",
        "{}{ext}",
        "{stem!r}{ext}",
        "{stem:>99999}{ext}",
        "{unknown}{ext}",
        "{stem",
        "{stem}\n{ext}",
        "",
        "{stem}.bmp",
        "{stem}",
    ],
)
def test_templates_that_are_refused(template: str, tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    before = tree(tmp_path)
    with pytest.raises(UsageError):
        upscale(tmp_path / "in/a.png", to=f"{tmp_path}/out/", name=template)
    assert tree(tmp_path) == before


def test_scale_in_a_template_needs_a_scale() -> None:
    with pytest.raises(UsageError, match="size"):
        Namer(UpscaleOptions(width=900, name="{stem}_{scale}{ext}"))
    assert Namer(UpscaleOptions(scale=2.5, name="{stem}_{scale}{ext}"))(Path("a.png")) == Path("a_2.5.png")


@settings(max_examples=300)
@given(st.text(min_size=1).filter(lambda text: "/" not in text and "\0" not in text))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    """A template with folders cannot be led astray by an input's own name."""
    namer = Namer(UpscaleOptions(model="bicubic", name="{stem}/{parent}/{name}{ext}"))
    try:
        made = namer(Path("/photos") / name)
    except OutputError:
        return
    assert not made.is_absolute() and ".." not in made.parts


@pytest.mark.parametrize("names", [("a.bmp", "a.png"), ("x/a.png", "y/a.png")])
def test_collisions_are_found_before_work_starts(names: tuple[str, str], tmp_path: Path) -> None:
    sources = [picture(tmp_path / name) for name in names]
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="both become"):
        upscale(*sources, to=tmp_path / "out")
    assert tree(tmp_path) == before
    assert statuses(upscale(*sources, to=tmp_path / "out", name="{parent}-{name}{ext}")) == ["done", "done"]


def test_no_input_is_overwritten(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)
    link = tmp_path / "link.png"
    link.symlink_to(one)
    before = {path: path.read_bytes() for path in (one, other)}
    for inputs, output in [([one], one), ([one, other], None), ([link], one)]:
        with pytest.raises(UsageError, match="input"):
            upscale(*inputs, to=output, overwrite=True, name=None if output else "b{ext}")
    assert {path: path.read_bytes() for path in (one, other)} == before


def test_an_output_replaces_a_link_and_never_writes_through_it(tmp_path: Path) -> None:
    source, precious = picture(tmp_path / "a.png"), picture(tmp_path / "precious.png", 5)
    before = precious.read_bytes()
    (tmp_path / "out.png").symlink_to(precious)
    assert statuses(upscale(source, to=tmp_path / "out.png")) == ["failed"]
    assert statuses(upscale(source, to=tmp_path / "out.png", overwrite=True)) == ["done"]
    assert precious.read_bytes() == before and not (tmp_path / "out.png").is_symlink()


def test_links_do_not_lead_outputs_out_of_their_folder(tmp_path: Path) -> None:
    picture(tmp_path / "in/sub/a.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    (result,) = upscale(tmp_path / "in", to=tmp_path / "out", recursive=True)
    assert (result.status, result.exit_code) == ("failed", 6)
    assert not tree(tmp_path / "elsewhere")


@pytest.mark.parametrize("output", ["one.png", "-"])
def test_several_into_one_is_refused(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="2 inputs"):
        upscale(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"), to=output)


# Failures


def test_a_failure_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        picture(tmp_path / f"in/{index}.png", index)
    (tmp_path / "in/1.png").write_bytes(b"no picture")
    (tmp_path / "in/3.png").write_bytes((tmp_path / "in/3.png").read_bytes()[:60])
    original = inference.Upscaler.upscale

    def failing(self: inference.Upscaler, pixels: Any, *rest: Any) -> Any:
        if np.array_equal(pixels, np.asarray(Image.open(tmp_path / "in/2.png"))):
            raise OutOfMemory("out of memory, as arranged")
        if np.array_equal(pixels, np.asarray(Image.open(tmp_path / "in/4.png"))):
            raise ZeroDivisionError("a defect")
        return original(self, pixels, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(inference.Upscaler, "upscale", failing)
        results = upscale(tmp_path / "in", to=tmp_path / "out")
    assert statuses(results) == ["done", "failed", "failed", "failed", "failed", "done"]
    assert [result.exit_code for result in results] == [0, 3, 5, 3, 70, 0]
    assert exit_code(results) == 1
    assert tree(tmp_path / "out") == {"0_bicubic_x4.png", "5_bicubic_x4.png"}
    picture(tmp_path / "in/1.png", 1)
    picture(tmp_path / "in/3.png", 3)
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")).count("failed") == 0


def test_a_defect_of_ours_shows_with_a_single_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.Upscaler, "upscale", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        upscale(picture(tmp_path / "a.png"))


def test_all_failing_alike_share_their_code(tmp_path: Path) -> None:
    results = upscale(tmp_path / "a.png", tmp_path / "b.png")
    assert exit_code(results) == 3


@pytest.mark.parametrize(
    ("name", "size", "wish", "code"),
    [
        ("a.webp", (1500, 3), {"scale": 16}, 2),
        ("a.jpg", (5000, 3), {"scale": 16}, 2),
        ("a.png", (9, 7), {"width": 200}, 2),
        ("a.png", (9, 7), {"max_output_pixels": 1000}, 3),
        ("a.png", (9, 7), {"max_pixels": 60}, 3),
    ],
)
def test_what_is_too_large_is_refused_before_the_network(
    name: str, size: tuple[int, int], wish: dict[str, Any], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference.Upscaler, "upscale", lambda *_: pytest.fail("the network ran"))
    picture(tmp_path / "in" / name, size=size)
    (result,) = upscale(tmp_path / "in", to=tmp_path / "out", **wish)
    assert (result.status, result.exit_code) == ("failed", code)


# Resuming


def test_a_second_run_does_only_what_is_left(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"in/{index}.png", index)
    first = upscale(tmp_path / "in", to=tmp_path / "out")
    assert statuses(first) == ["done"] * 4
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/2_bicubic_x4.png").unlink()
    second = upscale(tmp_path / "in", to=tmp_path / "out")
    assert statuses(second) == ["skipped", "skipped", "done", "skipped"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}.keys() == kept.keys()


@pytest.mark.parametrize("change", ["input", "options", "output", "model"])
def test_what_changed_is_not_taken_for_done(change: str, tmp_path: Path) -> None:
    """Nor is it replaced: that takes --overwrite."""
    for index in range(2):
        picture(tmp_path / f"in/{index}.png", index)
    template = "{stem}{ext}"
    upscale(tmp_path / "in", to=tmp_path / "out", name=template)
    wish: dict[str, Any] = {"name": template}
    if change == "input":
        picture(tmp_path / "in/0.png", 99)
    elif change == "options":
        wish["scale"] = 3
    elif change == "model":
        wish["model"] = "lanczos"
    else:
        (tmp_path / "out/0.png").write_bytes((tmp_path / "out/0.png").read_bytes() + b"x")
    results = upscale(tmp_path / "in", to=tmp_path / "out", **wish)
    assert results[0].status == "failed" and results[0].exit_code == 6
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out", overwrite=True, **wish)) == ["done", "done"]
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out", **wish)) == ["skipped", "skipped"]


def test_an_output_folder_that_is_made_meanwhile_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture is checked while another's writer makes the folder for both."""
    real = os.path.lexists

    def lexists(path: Any) -> bool:
        Path(path).mkdir(exist_ok=True)
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os.path, "lexists", lexists)
        assert checks.existing_folder(tmp_path / "out/a.png") == tmp_path / "out"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        checks.existing_folder(tmp_path / "file/a.png")


def test_skip_existing_keeps_whatever_is_there(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_bicubic_x4.png").write_text("precious")
    results = upscale(tmp_path / "in", to=tmp_path / "out", skip_existing=True)
    assert statuses(results) == ["skipped", "done"]
    assert (tmp_path / "out/a_bicubic_x4.png").read_text() == "precious"


def _journal_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state/srup/journal").iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "binary", "nonsense", "missing", "folder"])
def test_a_damaged_journal_costs_no_file(damage: str, tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / f"in/{index}.png", index)
    upscale(tmp_path / "in", to=tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (journal,) = _journal_files(tmp_path)
    data = journal.read_bytes()
    if damage == "missing":
        journal.unlink()
    elif damage == "folder":
        journal.unlink()
        journal.mkdir()
    else:
        broken = {
            "cut": data[: len(data) - 40],
            "empty": b"",
            "binary": bytes(range(256)) * 9,
            "nonsense": b'[1]\n{"name": 3}\n{"name": "0_bicubic_x4.png", "key": 1, "size": [], "mtime_ns": null}\n'
            + b"[" * 100_000
            + b"\n",
        }
        journal.write_bytes(broken[damage])
    picture(tmp_path / "in/new.png", 7)
    results = upscale(tmp_path / "in", to=tmp_path / "out")
    assert results[3].status == "done"
    assert {result.exit_code for result in results if result.status == "failed"} <= {6}
    assert {path: path.read_bytes() for path in before} == before
    if damage == "cut":  # the line after the cut one is whole again
        assert sorted(statuses(results)[:3]) == ["failed", "skipped", "skipped"]
        assert statuses(upscale(tmp_path / "in", to=tmp_path / "out"))[3] == "skipped"


def test_a_journal_line_of_another_kind_is_not_believed(tmp_path: Path) -> None:
    picture(tmp_path / "in/0.png")
    upscale(tmp_path / "in", to=tmp_path / "out")
    (journal,) = _journal_files(tmp_path)
    (line,) = journal.read_text().splitlines()
    journal.write_text(json.dumps({**json.loads(line), "scale": 2}) + "\n")
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")) == ["failed"]
    journal.write_text(line + "\n")
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")) == ["skipped"]


def test_the_folder_of_a_drive_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(OutputError, match="does not exist"):
        checks.existing_folder(tmp_path / "out.png")


def test_a_cache_that_cannot_be_written_only_costs_the_journal(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png")
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")) == ["done", "done"]


def test_journal_lines_of_another_process_are_seen(tmp_path: Path) -> None:
    ours, theirs = Journals(), Journals()
    output = picture(tmp_path / "out/a.png")
    assert not ours.recognises(output, "key")
    theirs.record(output, "key", output)
    assert ours.recognises(output, "key") and not ours.recognises(output, "another")


# Two processes


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Started together on one folder, they do every picture, and none twice."""
    names = [f"{index:02}" for index in range(24)]
    for index, name in enumerate(names):
        picture(tmp_path / f"in/{name}.png", index, (90, 70))
    script = "from sr_cli.__main__ import main; main()"
    command = [sys.executable, "-c", script, "upscale", str(tmp_path / "in"), "-m", "bicubic", "--json"]
    both = [
        subprocess.Popen([*command, "-o", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    reports = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    done = [Path(r["input"]).stem for report in reports for r in report["results"] if r["status"] == "done"]
    assert sorted(done) == names
    assert tree(tmp_path / "out") == {f"{name}_bicubic_x4.png" for name in names}
    for name in names:
        with Image.open(tmp_path / f"out/{name}_bicubic_x4.png") as image:
            assert image.size == (360, 280)
            image.load()


def test_claimed_files_are_left_to_their_owner(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"in/{name}.png")
    target = tmp_path / "out/a_bicubic_x4.png"
    ready, taken = os.pipe()
    child = os.fork()
    if child == 0:
        claims = Claims()  # its locks end with it
        granted = claims.take(target)
        os.write(taken, b"y" if granted else b"n")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"y"
        assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")) == ["skipped", "done"]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert statuses(upscale(tmp_path / "in", to=tmp_path / "out")) == ["done", "skipped"], "a dead owner has none"


# Events and the pipeline


def test_events_of_a_batch(tmp_path: Path) -> None:
    for index in range(8):
        picture(tmp_path / f"in/{index}.png", index)
    (tmp_path / "in/5.png").write_text("no")
    events: list[UpscaleEvent] = []
    run([tmp_path / "in"], tmp_path / "out", BICUBIC, events.append)
    events = [event for event in events if event.kind not in ("detail", "summary")]
    shares = [event.batch for event in events]
    assert shares == sorted(shares) and shares[-1] == 1
    for index in range(8):
        kinds = [event.kind for event in events if event.index == index]
        assert kinds == ["started", "failed" if index == 5 else "done"]
    assert {event.count for event in events} == {8}


def test_prefetch_stays_within_its_bounds_and_in_order() -> None:
    made: list[int] = []

    def items() -> Any:
        for index in range(20):
            made.append(index)
            read[index].set()
            yield index

    read = [threading.Event() for _ in range(20)]
    with Prefetch(items(), 3) as ahead:
        for index in ahead:
            assert read[min(index + 2, 19)].wait(60), "it does not read ahead"
            assert made[-1] <= index + 4
    assert made == list(range(20))


def test_prefetch_hands_over_errors_and_stops() -> None:
    def failing() -> Any:
        yield 1
        raise KeyError("two")

    with pytest.raises(KeyError, match="two"), Prefetch(failing(), 2) as ahead:
        assert list(ahead)
    with Prefetch(iter(int, 1), 2) as endless:
        next(endless)
    assert not [thread for thread in threading.enumerate() if thread.name == "srup-read"]


def test_background_holds_no_more_than_its_limit() -> None:
    lock, held, most, done = threading.Lock(), 0, 0, []

    def work(index: int, amount: int) -> None:
        nonlocal held
        with lock:
            held -= amount
            done.append(index)

    with WriterPool(3, 100) as background:
        for index, amount in enumerate([40, 70, 30, 500, 60, 60, 10] * 5):
            background.reserve(amount)
            with lock:
                held += amount
                most = max(most, held if held != amount else 0)
            background.submit(lambda index=index, amount=amount: work(index, amount), amount)
    assert sorted(done) == list(range(35))
    assert most <= 100


def test_background_lets_errors_out() -> None:
    def fail() -> None:
        raise OutputError("lost")

    with pytest.raises(SrupError, match="lost"), WriterPool(1, 10) as background:  # noqa: PT012
        background.reserve(1)
        background.submit(fail, 1)


def test_one_model_for_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = inference.Upscaler.__init__
    monkeypatch.setattr(
        inference.Upscaler, "__init__", lambda self, *a, **k: (built.append(1), original(self, *a, **k))[1]
    )
    for index in range(12):
        picture(tmp_path / f"in/{index}.png", index)
    upscale(tmp_path / "in", to=tmp_path / "out")
    assert len(built) == 1


class _Interrupted:
    """A queue whose n-th call ends in a KeyboardInterrupt, before or after it has done its work."""

    def __init__(self, inner: Any, call: int, after: bool) -> None:
        self.inner, self.left, self.after = inner, call, after

    def _call(self, work: Callable[[], Any]) -> Any:
        if threading.current_thread().name == "srup-read":
            return work()
        self.left -= 1
        if self.left:
            return work()
        if self.after:
            work()
        raise KeyboardInterrupt

    def get(self) -> Any:
        return self._call(self.inner.get)

    def put(self, item: Any) -> None:
        self._call(lambda: self.inner.put(item))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [1, 2, 5])
@pytest.mark.parametrize("which", ["_queue", "_room"])
def test_reading_ahead_ends_wherever_a_signal_interrupts(which: str, call: int, after: bool) -> None:
    """A KeyboardInterrupt wherever the consumer waits for an item or gives a permit back."""
    prefetch = Prefetch(iter(range(50)), 1)
    setattr(prefetch, which, _Interrupted(getattr(prefetch, which), call, after))
    with contextlib.suppress(KeyboardInterrupt), prefetch as items:
        for _ in items:
            pass
    prefetch._thread.join(60)
    assert not prefetch._thread.is_alive(), "the thread that reads was never told to stop"


# How a job ends


def test_the_last_event_is_the_summary(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("no")
    events: list[UpscaleEvent] = []
    run([tmp_path / "in"], tmp_path / "out", BICUBIC, events.append)
    summary = events[-1].summary
    assert summary is not None and summary.ending == "complete" and summary.count == 2
    assert [result.status for result in summary.results] == ["done", "failed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_job_ends_every_input_it_began(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(5):
        picture(tmp_path / f"in/{index}.png", index)
    events: list[UpscaleEvent] = []
    end_at_photo(3, error, monkeypatch)
    with pytest.raises(error):
        run([tmp_path / "in"], tmp_path / "out", BICUBIC, events.append)
    ends = {"done", "skipped", "failed", "interrupted"}
    started = [event.index for event in events if event.kind == "started"]
    assert (
        started == [event.index for event in sorted(events, key=lambda e: e.index) if event.kind in ends] == [0, 1, 2]
    )
    summary = events[-1].summary
    assert summary is not None and summary.ending == "interrupted" and summary.count == 5
    assert {result.output.name for result in summary.results} == tree(tmp_path / "out")


def test_an_error_that_ends_the_job_is_told_as_well(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    events: list[UpscaleEvent] = []
    with pytest.raises(WeightsError):
        run([tmp_path / "a.png"], None, UpscaleOptions(model="nosuch"), events.append)
    assert events[-1].summary is not None and events[-1].summary.ending == "error"


# Names and places


def test_one_bad_name_stops_nothing(tmp_path: Path) -> None:
    """Names that only other systems dislike are fine; one that would leave the folder fails alone."""
    good = [picture(tmp_path / "in" / name, index) for index, name in enumerate((r"C:\x.png", r"..\y.png", "a:b.png"))]
    bad = good[0].rename(tmp_path / "in/...png")  # its stem is ".."
    picture(good[0])
    results = upscale(*good, bad, to=tmp_path / "out", name="{stem}/{stem}{ext}")
    assert [(result.status, result.exit_code) for result in results] == [("done", 0)] * 3 + [("failed", 6)]
    assert {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*.png")} == {
        path.stem for path in good
    }
    assert statuses(upscale(*good, bad, to=tmp_path / "flat")) == ["done"] * 4, "no folders, no danger"
    planned = estimate([*good, bad], tmp_path / "other", replace(BICUBIC, name="{stem}/{stem}{ext}"))
    assert [file.exit_code for file in planned.files] == [0, 0, 0, 6]


def test_what_a_template_makes_of_one_name_stops_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.bmp", 1)  # which is not written
    results = upscale(tmp_path / "in", to=tmp_path / "out", name="{name}")
    assert [(result.input.name, result.status, result.exit_code) for result in results] == [
        ("a.png", "done", 0),
        ("b.bmp", "failed", 2),
    ]


def test_a_name_too_long_is_known_before_the_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = picture(tmp_path / f"{'x' * 246}.png")
    (planned,) = estimate([source], None, BICUBIC).files
    assert planned.status == "failed" and planned.exit_code == 6 and "too long" in str(planned.error)
    monkeypatch.setattr(inference.Upscaler, "upscale", None)
    (result,) = upscale(source)
    assert result.status == "failed" and result.exit_code == 6 and "too long" in str(result.error)
    (missing,) = upscale(tmp_path / f"{'y' * 300}.png", to=tmp_path / "out.png")
    assert missing.exit_code == 3


def test_a_dangling_link_as_output(tmp_path: Path) -> None:
    source = picture(tmp_path / "in/a.png")
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere/b.png")
    (kept,) = upscale(source, to=link)
    assert kept.exit_code == 6 and "already exists" in str(kept.error)
    with pytest.raises(UsageError):
        upscale(tmp_path / "in", to=link)
    (result,) = upscale(source, to=link, overwrite=True)
    assert result.status == "done" and not link.is_symlink() and not (tmp_path / "nowhere").exists()


@pytest.mark.needs("posix")
@pytest.mark.parametrize("name", ["q.png", "q.gif"])
def test_a_named_pipe_is_read_once(name: str, tmp_path: Path) -> None:
    content = picture(tmp_path / "a.png").read_bytes()
    os.mkfifo(tmp_path / name)
    writer = threading.Thread(target=lambda: (tmp_path / name).write_bytes(content), daemon=True)
    writer.start()
    (result,) = upscale(tmp_path / name)
    writer.join(60)
    assert result.status == "done" and result.output.name == "q_bicubic_x4.png"


@pytest.mark.parametrize("given", ["file", "stdin"])
def test_the_output_of_a_single_file_is_no_input_of_a_batch(given: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    if given == "file":
        upscale(source, to=tmp_path / "large.png")
    else:
        run(["-"], tmp_path / "large.png", BICUBIC, lambda event: None, stdin=io.BytesIO(source.read_bytes()))
    results = upscale(tmp_path, to=None)
    assert [result.input.name for result in results] == ["a.png"]


def test_a_worker_does_the_part_of_a_batch_that_it_is_handed(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"in/{index}.png", index)
    batch = planning.plan([str(tmp_path / "in")], str(tmp_path / "out"), BICUBIC, Journals())
    upscaler = make_upscaler(BICUBIC)
    for part in (batch.tasks[:2], batch.tasks[2:]):
        handed = pickle.loads(pickle.dumps(replace(batch, tasks=part)))
        tally = Tally(handed.tasks, lambda event: None)
        Worker(BICUBIC, Journals(), handed.several, upscaler=upscaler).work(enumerate(handed.tasks), tally)
        assert statuses([tally.results[0], tally.results[1]]) == ["done", "done"]
    assert len(tree(tmp_path / "out")) == 4
