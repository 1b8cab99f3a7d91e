"""`srup upscale` as a person types it: results, refusals, exit codes, and nothing half-written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sr_cli.__main__ import run
from sr_cli.storage.remote import NamedBytes
from tests.batches import end_at_photo
from tests.networks import SMALL, with_weights

Srup = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_writes_beside_the_input(srup_here: Srup, photo: Path) -> None:
    result = srup_here("upscale", photo, "-m", "bicubic")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert Image.open(photo.with_name("photo_bicubic_x4.png")).size == (68, 48)


def test_bundled_weights_need_no_network(srup_here: Srup, photo: Path, tmp_path: Path) -> None:
    result = srup_here("upscale", photo, "-o", tmp_path / "out.png", "--json", "--offline")
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
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_upscaling_needs_no_torchvision(photo: Path) -> None:
    script = (
        "import sys\nsys.modules['torchvision'] = None\nfrom sr_cli.__main__ import run\n"
        f"sys.exit(run(['upscale', {str(photo)!r}, '--backend', 'eager', '-o', {str(photo.with_name('out.png'))!r}]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert Image.open(photo.with_name("out.png")).size == (68, 48)


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
        (["-o", "out"], 2, "no suffix"),
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
    save_file(dict(with_weights(SMALL["mesrgan"]).state_dict()), tmp_path / "small.safetensors")
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
    save_file(dict(with_weights(SMALL["mesrgan"]).state_dict()), path)
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
    save_file(dict(with_weights(SMALL["srgan"]).state_dict()), tmp_path / "w.safetensors")
    code = run(["upscale", str(photo), "-m", str(tmp_path / "w.safetensors"), "--tile", "8", "--json-lines"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == ["started"] + ["progress"] * 6 + ["done", "summary"]


@pytest.mark.parametrize("mode", ["--json", "--json-lines"])
def test_an_interrupted_job_still_tells_what_it_did(
    mode: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photo, tmp_path / "b.png")
    end_at_photo(2, KeyboardInterrupt, monkeypatch)
    assert run(["upscale", str(photo), str(tmp_path / "b.png"), "-m", "bicubic", mode, "-o", f"{tmp_path}/out/"]) == 130
    out = capsys.readouterr().out
    if mode == "--json":
        document = json.loads(out)
        assert document["ending"] == "interrupted" and [result["status"] for result in document["results"]] == ["done"]
    else:
        events = [json.loads(line) for line in out.splitlines()]
        assert sorted(event["event"] for event in events if event.get("index") == 1) == ["interrupted", "started"]
        assert events[-1] == {
            "event": "summary",
            "ending": "interrupted",
            "count": 2,
            "done": 1,
            "skipped": 0,
            "failed": 0,
        }


def test_control_characters_in_names_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["upscale", str(tmp_path / "a\x1b[31m.png"), "-m", "bicubic"]) == 3
    assert "\x1b" not in _one_line(capsys)


def test_published_low_resolution_images(srup_here: Srup, shared: Path, tmp_path: Path) -> None:
    """The first of Set5 through the command line: well above bicubic's 31.8 dB for this image."""
    lr = tmp_path / "lr.png"
    shutil.copy(shared / "data/test/Set5/img_001_SRF_4_LR.png", lr)
    assert srup_here("upscale", lr, "-m", "mesrgan:pixel", "-o", tmp_path / "sr.png").returncode == 0
    hr = np.asarray(Image.open(shared / "data/test/Set5/img_001_SRF_4_HR.png").convert("RGB"), float)
    sr = np.asarray(Image.open(tmp_path / "sr.png"), float)
    luma = ((hr - sr) @ np.array([65.481, 128.553, 24.966]) / 255)[4:-4, 4:-4]
    assert 10 * np.log10(255**2 / np.mean(luma**2)) > 33.0


# Pipes


def _piped(data: bytes, *arguments: str, cwd: Path) -> CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "sr_cli", "upscale", *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=120, cwd=cwd, env=environment)


@pytest.fixture
def piped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., CompletedProcess[bytes]]:
    """As `_piped`, in this process."""

    def piped(data: bytes, *arguments: str) -> CompletedProcess[bytes]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(NamedBytes(data, "<stdin>")))
        code = run(["upscale", *arguments])
        return CompletedProcess(arguments, code, *capfdbinary.readouterr())

    return piped


@pytest.mark.parametrize(("format", "signature"), [(None, b"\x89PNG"), ("jpg", b"\xff\xd8\xff"), ("webp", b"RIFF")])
def test_from_standard_input_to_standard_output(
    format: str | None, signature: bytes, photo: Path, tmp_path: Path, piped: Callable[..., CompletedProcess[bytes]]
) -> None:
    arguments = ["-", "-o", "-", "-m", "bicubic"]
    if format is None:  # through real pipes
        result = _piped(photo.read_bytes(), *arguments, cwd=tmp_path)
    else:
        result = piped(photo.read_bytes(), *arguments, "--format", format)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(signature)
    assert result.stderr == b""
    assert Image.open(io.BytesIO(result.stdout)).size == (68, 48)


def test_from_standard_input_to_a_file_and_a_folder(
    photo: Path, tmp_path: Path, piped: Callable[..., CompletedProcess[bytes]]
) -> None:
    data = photo.read_bytes()
    assert piped(data, "-", "-o", "out.jpg", "-m", "bicubic").returncode == 0
    assert Image.open(tmp_path / "out.jpg").size == (68, 48)
    assert piped(data, "-", "photo.png", "-o", "out", "-m", "bicubic").returncode == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"stdin_bicubic_x4.png", "photo_bicubic_x4.png"}


@pytest.mark.parametrize(
    ("data", "arguments", "code", "word"),
    [
        (b"", ["-", "-o", "-"], 3, b"empty"),
        (b"no picture", ["-", "-o", "-"], 3, b"standard input"),
        (b"", ["-"], 2, b"-o"),
        (b"", ["-", "-o", "-", "--json"], 2, b"--json"),
        (b"", ["-", "-o", "-", "--json-lines"], 2, b"--json"),
        (b"", ["-", "photo.png", "-o", "-"], 2, b"standard output"),
        (b"", ["-", "-o", "-", "--format", "bmp"], 2, b"bmp"),
    ],
)
def test_pipes_that_make_no_sense(
    data: bytes,
    arguments: list[str],
    code: int,
    word: bytes,
    photo: Path,
    piped: Callable[..., CompletedProcess[bytes]],
) -> None:
    result = piped(data, *arguments, "-m", "bicubic")
    assert (result.returncode, result.stdout) == (code, b"")
    assert result.stderr.count(b"\n") == 1 and word in result.stderr


def test_a_reader_that_has_gone_is_no_traceback(photo: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    picture.save(tmp_path / "large.png")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = f"{sys.executable} -m sr_cli upscale large.png -m bicubic -o - | head -c 10 > head"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "Traceback" not in result.stderr
    assert (tmp_path / "head").read_bytes()[1:4] == b"PNG"


# Events, notes, terminals

_RESULT = {
    "input": str,
    "output": str,
    "status": str,
    "width": int,
    "height": int,
    "tiles": int,
    "seconds": float,
}
_MADE_BY = {
    "model": str,
    "stage": type(None),  # the weights of this test are in no manifest
    "weights_sha256": str,
    "fidelity": type(None),
    "ensemble": bool,
    "device": str,
    "precision": str,
    "backend": str,
    "tile": int,
    "version": str,
}
_COMMON = {"event": str, "input": str, "index": int, "count": int}
SCHEMA = {
    "started": _COMMON,
    "progress": {**_COMMON, "done": int, "total": int, "batch": float},
    "done": {**_COMMON, **_RESULT, **_MADE_BY},
    "skipped": {**_COMMON, **_RESULT, "reason": str},
    "failed": {**_COMMON, **_RESULT, "error": str, "exit_code": int},
    "summary": {"event": str, "ending": str, "count": int, "done": int, "skipped": int, "failed": int},
}
"""As docs/upscale.md has it; `losses`, a list of str, may be there as well."""


def test_json_lines_follow_the_documented_schema(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(dict(with_weights(SMALL["srgan"]).state_dict()), tmp_path / "w.safetensors")
    (tmp_path / "bad.png").write_text("no")
    shutil.copy(photo, tmp_path / "clear.png")
    command = ["upscale", "photo.png", "bad.png", "clear.png", "-m", "w.safetensors", "--tile", "8", "-o", "out"]
    seen = set()
    for extra in ([], ["--skip-existing"]):
        assert run([*command, "--json-lines", *extra]) == 1
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for event in events:
            shape = {key: type(value) for key, value in event.items() if key != "losses"}
            assert shape == SCHEMA[event["event"]], event
            assert event["count"] == 3 and 0 <= event.get("index", 0) < 3
            seen.add(event["event"])
        for index in range(3):
            kinds = [event["event"] for event in events if event.get("index") == index]
            assert kinds[0] == "started" and kinds[-1] in ("done", "skipped", "failed")
            assert set(kinds[1:-1]) <= {"progress"}
        assert events[-1]["event"] == "summary"
    assert seen == set(SCHEMA)


def test_the_documentation_names_every_event_and_key() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs/upscale.md").read_text("utf-8")
    for event, keys in SCHEMA.items():
        assert f"`{event}`" in text
        for key in keys:
            assert f"`{key}`" in text, key


def test_quiet_and_verbose(photo: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["upscale", str(photo), "-m", "bicubic", "-o", str(tmp_path / "1.png"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(["upscale", str(photo), "-m", "bicubic", "-o", str(tmp_path / "2.png")]) == 0
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["upscale", str(photo), "-m", "bicubic", "-o", str(tmp_path / "3.png"), "-v"]) == 0
    assert "bicubic on cpu" in capsys.readouterr().err


def test_a_summary_lists_the_failures(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bad", "worse"):
        (tmp_path / f"{name}.jpg").write_text("no")
    assert run(["upscale", str(tmp_path), "-m", "bicubic", "-o", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().err
    assert text.splitlines()[-1] == "1 done, 2 failed"
    for name in ("bad.jpg", "worse.jpg"):
        assert text.count(name) == 1


@pytest.mark.needs("posix")
@pytest.mark.parametrize("no_colour", ["1", ""])
def test_a_terminal_gets_a_bar_and_colours_only_if_wanted(no_colour: str, photo: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    if no_colour:
        environment["NO_COLOR"] = no_colour
    shutil.copy(photo, tmp_path / "b.png")
    command = [sys.executable, "-m", "sr_cli", "upscale", str(photo), str(tmp_path / "b.png"), "-m", "bicubic"]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # a closed terminal ends like this
            while block := os.read(ours, 4096):
                shown += block
    os.close(ours)
    assert process.returncode == 0
    assert b"2/2" in shown
    coloured = re.search(rb"\x1b\[[0-9;]*(3[0-8]|9[0-7])[0-9;]*m", shown)
    assert bool(coloured) != bool(no_colour), shown


@pytest.mark.parametrize("mode", [[], ["--json"], ["--json-lines"], ["--dry-run"]])
def test_names_are_never_printed_raw(
    mode: list[str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a\x1b[31m.png", "b\u202egnp.exe.png", "c\x9b31m.png", "d\nnew line.png", "e\udcff.png", "fine é.png"]
    for name in names:
        shutil.copy(photo, folder / name)
    assert run(["upscale", str(folder), "-m", "bicubic", "-o", str(tmp_path / "out"), *mode]) == 0
    out, err = capsys.readouterr()
    printed = out + err
    assert all(character == "\n" or character.isprintable() for character in printed), printed
    if mode == ["--json"]:
        assert [record["input"] for record in json.loads(out)["results"]] == [str(folder / name) for name in names]


# Shell completion


@pytest.mark.parametrize(
    ("words", "offered"),
    [("srup up", "upscale"), ("srup upscale --max-s", "--max-side"), ("srup upscale -m lan", "lanczos")],
)
def test_shell_completion(words: str, offered: str, srup: Srup) -> None:
    count = str(len(words.split()) - 1)
    result = srup(_SRUP_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count)
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, [offered], "")
    assert "complete" in srup("--show-completion", SHELL="/bin/bash").stdout
