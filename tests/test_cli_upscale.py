"""`srup upscale` as a person types it: results, refusals, exit codes, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_models import SMALL, _with_weights

from sr_cli.__main__ import run

Srup = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_writes_beside_the_input(srup: Srup, photo: Path) -> None:
    result = srup("upscale", photo, "-m", "bicubic")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert Image.open(photo.with_name("photo_bicubic_x4.png")).size == (68, 48)


def test_bundled_weights_need_no_network(srup: Srup, photo: Path, tmp_path: Path) -> None:
    result = srup("upscale", photo, "-o", tmp_path / "out.png", "--json", "--offline")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)["results"][0]
    assert record["status"] == "done"
    assert (record["width"], record["height"]) == (68, 48)
    assert record["tiles"] == 1
    assert Path(record["output"]) == tmp_path / "out.png"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["upscale", "--help"], ["upscale", "PHOTO", "-m", "lanczos"]]
)
def test_torch_is_not_imported_without_need(arguments: list[str], photo: Path, srup: Srup) -> None:
    script = (
        "import sys\nfrom sr_cli.__main__ import run\n"
        f"code = run({[str(photo) if a == 'PHOTO' else a for a in arguments]!r})\n"
        "heavy = {'torch', 'torchvision', 'huggingface_hub', 'scipy'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, (code, heavy)\n"
    )
    import subprocess

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("srup: error: ")
    return err


def _bad_files(folder: Path) -> dict[str, Path]:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    files = {name: folder / name for name in ("empty.jpg", "text.jpg", "cut.jpg", "cut.png")}
    files["empty.jpg"].touch()
    files["text.jpg"].write_text("not a picture")
    for name in ("cut.jpg", "cut.png"):
        image.save(files[name])
        files[name].write_bytes(files[name].read_bytes()[: files[name].stat().st_size // 2])
    files["folder"] = folder / "folder.png"
    files["folder"].mkdir()
    files["missing"] = folder / "missing.jpg"
    return files


@pytest.mark.parametrize("kind", ["empty.jpg", "text.jpg", "cut.jpg", "cut.png", "missing"])
def test_unreadable_input_is_3(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _bad_files(tmp_path)[kind]
    before = sorted(tmp_path.iterdir())
    assert run(["upscale", str(path), "-m", "bicubic"]) == 3
    assert path.name in _one_line(capsys)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "out.xyz"], 2, "xyz"),
        (["-o", "missing/out.png"], 6, "missing"),
        (["-m", "nonsense"], 4, "nonsense"),
        (["-m", "missing.safetensors"], 4, "missing.safetensors"),
        (["--misspelt"], 2, "misspelt"),
        (["--device", "cuda:7", "-m", "small.safetensors"], 2, "cuda:7"),
        (["--precision", "fp7", "-m", "small.safetensors"], 2, "fp7"),
        (["--tile", "-3"], 2, "tile"),
        (["--overwrite", "--skip-existing"], 2, "contradict"),
        (["--quality", "0"], 2, "quality"),
        (["-o", "photo.png"], 2, "input itself"),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    words: str,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(dict(_with_weights(SMALL["mesrgan"]).state_dict()), tmp_path / "small.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert run(["upscale", str(photo), *arguments]) == code
    assert words in _one_line(capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_existing_output_is_kept_unless_asked(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    out.write_text("precious")
    command = ["upscale", str(photo), "-m", "bicubic", "-o", str(out)]
    assert run(command) == 6
    assert "--overwrite" in _one_line(capsys)
    assert run([*command, "--skip-existing"]) == 0
    assert out.read_text() == "precious"
    assert run([*command, "--overwrite"]) == 0
    assert Image.open(out).size == (68, 48)


def test_one_failure_among_several_is_1(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jpg").write_text("no")
    assert run(["upscale", str(tmp_path / "bad.jpg"), str(photo), "-m", "bicubic", "--json"]) == 1
    records = json.loads(capsys.readouterr().out)["results"]
    assert [record["status"] for record in records] == ["failed", "done"]
    assert "bad.jpg" in records[0]["error"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "other tensors"])
def test_damaged_weights_are_4(damage: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(dict(_with_weights(SMALL["mesrgan"]).state_dict()), path)
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:4] + b"\xff\xff" + data[6:])
    elif damage == "text":
        path.write_text("weights, honestly")
    else:
        save_file({"foo.bar": torch.zeros(3)}, path)
    assert run(["upscale", str(photo), "-m", str(path), "-o", str(tmp_path / "out.png")]) == 4
    assert "weights.safetensors" in _one_line(capsys)
    assert not (tmp_path / "out.png").exists()


def test_json_lines_tell_the_whole_story(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(dict(_with_weights(SMALL["srgan"]).state_dict()), tmp_path / "w.safetensors")
    code = run(["upscale", str(photo), "-m", str(tmp_path / "w.safetensors"), "--tile", "8", "--json-lines"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == ["started"] + ["progress"] * 6 + ["done"]


def test_control_characters_in_names_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["upscale", str(tmp_path / "a\x1b[31m.png"), "-m", "bicubic"]) == 3
    assert "\x1b" not in _one_line(capsys)


def test_published_low_resolution_images(srup: Srup, shared: Path, tmp_path: Path) -> None:
    """The first of Set5 through the command line: well above bicubic's 31.8 dB for this image."""
    lr = tmp_path / "lr.png"
    shutil.copy(shared / "data/test/Set5/img_001_SRF_4_LR.png", lr)
    assert srup("upscale", lr, "-m", "mesrgan:pixel", "-o", tmp_path / "sr.png").returncode == 0
    hr = np.asarray(Image.open(shared / "data/test/Set5/img_001_SRF_4_HR.png").convert("RGB"), float)
    sr = np.asarray(Image.open(tmp_path / "sr.png"), float)
    luma = ((hr - sr) @ np.array([65.481, 128.553, 24.966]) / 255)[4:-4, 4:-4]
    assert 10 * np.log10(255**2 / np.mean(luma**2)) > 33.0
