"""The dry run: it says what the run then does, and touches nothing."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import save_file
from test_upscale_batch import picture, tree, upscale

from sr_cli import images
from sr_cli.__main__ import run as command
from sr_cli.inference import memory
from sr_cli.upscale.estimate import Estimate, estimate
from sr_cli.upscale.events import exit_code
from sr_cli.upscale.options import UpscaleOptions
from tests.networks import SMALL, with_weights


def foresee(*inputs: Any, to: Any = None, **wish: Any) -> Estimate:
    return estimate(inputs, to, UpscaleOptions(**{"model": "bicubic", **wish}))


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "small.safetensors"
    save_file(dict(with_weights(SMALL["mesrgan"]).state_dict()), path)
    return str(path)


@pytest.mark.parametrize("wish", [{}, {"scale": 2.5}, {"scale": 8}, {"width": 30}, {"max_side": 20}, {"tile": 16}])
def test_sizes_and_tiles_are_those_of_the_run(wish: dict[str, Any], weights: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "sub/c.webp"):
        picture(tmp_path / "in" / name, size=(21, 17))
    wish |= {"model": weights, "recursive": True}
    foreseen = foresee(tmp_path / "in", to=tmp_path / "out", **wish)
    assert not (tmp_path / "out").exists()
    results = upscale(tmp_path / "in", to=tmp_path / "out", **wish)
    assert [file.output for file in foreseen.files] == [result.output for result in results]
    for file, result in zip(foreseen.files, results, strict=True):
        assert (file.width, file.height, file.tiles) == (result.width, result.height, result.tiles)
        assert file.seconds > 0 and file.disk_bytes > 0
        assert file.memory_bytes > 4 * (21 * 17 + result.width * result.height)


def _bad(folder: Path) -> None:
    picture(folder / "fine.png")
    picture(folder / "wide.webp", size=(5000, 2))
    picture(folder / "wide.jpg", size=(17000, 2))
    picture(folder / "large.png", size=(90, 90))
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "pages.tiff", save_all=True, append_images=frames[1:])


def test_what_would_fail_is_what_fails(tmp_path: Path) -> None:
    _bad(tmp_path / "in")
    wish: dict[str, Any] = {"max_pixels": 40_000, "max_output_pixels": 100_000}
    foreseen = foresee(tmp_path / "in", to=tmp_path / "out", **wish)
    assert {file.input.name for file in foreseen.files if file.status == "failed"} == {
        "wide.webp",
        "wide.jpg",
        "large.png",
        "text.png",
        "empty.png",
    }
    results = upscale(tmp_path / "in", to=tmp_path / "out", **wish)
    for file, result in zip(foreseen.files, results, strict=True):
        assert file.exit_code == result.exit_code, (file, result)
        if file.status == "failed":
            assert file.error == result.error
    assert exit_code(foreseen.files) == exit_code(results) == 1


def test_done_files_are_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    upscale(tmp_path / "in", to=tmp_path / "out")
    picture(tmp_path / "in/b.png")
    assert [file.status for file in foresee(tmp_path / "in", to=tmp_path / "out").files] == ["skipped", "planned"]


@pytest.mark.parametrize(("orientation", "size"), [(1, (12, 20)), (3, (12, 20)), (6, (20, 12)), (8, (20, 12))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_headers_are_read_as_the_pictures_are(
    suffix: str, orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (12, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    header = images.probe(tmp_path / f"a.{suffix}")
    photo = images.read(tmp_path / f"a.{suffix}")
    assert header.sizes == ((photo.width, photo.height),) == (size,)
    assert header.kind == "still"


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_frames_are_counted(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    header, sequence = images.probe(tmp_path / f"a.{suffix}"), images.read_all(tmp_path / f"a.{suffix}")
    assert len(header.sizes) == len(sequence.frames) == 3
    assert header.kind == sequence.kind
    (file,) = foresee(tmp_path / f"a.{suffix}").files
    assert file.frames == 3
    (result,) = upscale(tmp_path / f"a.{suffix}")
    assert result.status == "done" and result.output == file.output
    assert result.output.suffix == f".{suffix}"


def test_sixteen_bits_take_more(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", size=(40, 40))
    photo = images.read(tmp_path / "in/a.png")
    images.write(images.Photo(photo.pixels.astype("uint16") * 257), tmp_path / "in/b.png")
    shallow, deep = foresee(tmp_path / "in").files
    assert deep.memory_bytes > shallow.memory_bytes * 1.4
    assert deep.disk_bytes > shallow.disk_bytes * 1.8


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        picture(tmp_path / f"in/{name}.png", size=(60, 60))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 250_000))
    files = foresee(tmp_path / "in", to=tmp_path / "out").files
    assert [(file.status, file.exit_code) for file in files] == [("planned", 0), ("planned", 0), ("failed", 6)]


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 50_000)
    (file,) = foresee(picture(tmp_path / "a.png", size=(60, 60))).files
    assert (file.status, file.exit_code) == ("failed", 5)


def test_command_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _bad(tmp_path / "in")
    before = tree(tmp_path), os.listdir(tmp_path)
    arguments = ["upscale", str(tmp_path / "in"), "-m", "bicubic", "-o", str(tmp_path / "out"), "--dry-run"]
    assert command([*arguments, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["dry_run"] is True
    assert len(document["results"]) == 7
    by_name = {Path(record["input"]).name: record for record in document["results"]}
    assert by_name["fine.png"]["status"] == "planned"
    assert (by_name["fine.png"]["width"], by_name["fine.png"]["height"]) == (36, 28)
    assert "16,383" in by_name["wide.webp"]["error"] and "65,500" in by_name["wide.jpg"]["error"]
    assert document["total"]["files"] == sum(r["status"] == "planned" for r in document["results"])
    assert command(arguments) == 1
    out, err = capsys.readouterr()
    assert "fine_bicubic_x4.png" in out and "text.png" in err
    assert (tree(tmp_path), os.listdir(tmp_path)) == before


def test_a_dry_run_divides_the_batch_among_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one queue does: who is free first takes the next photo; the whole takes as long as the last worker."""
    for index in range(7):
        picture(tmp_path / f"in/{index}.png", size=(300, 300) if index == 0 else (30, 30))
    plain, found = (foresee(tmp_path / "in", to=tmp_path / "out", devices=devices) for devices in (None, "cpu:2"))
    assert not plain.workers and [worker.name for worker in found.workers] == ["cpu 1", "cpu 2"]
    assert [worker.files for worker in found.workers] == [1, 6]
    assert [worker.pixels for worker in found.workers] == [90_000, 5_400]
    assert found.seconds == max(worker.seconds for worker in found.workers)
    arguments = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", "bicubic", "--dry-run"]
    assert command([*arguments, "--devices", "cpu:2", "--shard", "1/1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [worker["files"] for worker in document["workers"]] == [1, 6]
    assert [shard["shard"] for shard in document["shards"]] == ["1/1"]
    assert command([*arguments, "--devices", "cpu:2"]) == 0
    assert "worker" in capsys.readouterr().out
