"""`srup models` as typed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sr_cli import __main__, hub
from tests.fake_hub import COMMIT, FakeHub
from tests.test_rrdbnet import new_style, old_style
from tests.test_weights_runs import make_run


@dataclass
class Result:
    """What a command line gave."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line inside this process, through the error boundary: importing torch takes seconds."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = __main__.run([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return call


def document(result) -> dict:
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    return json.loads(result.stdout)


def test_list_and_info(run, tmp_path: Path) -> None:
    listed = document(run("models", "list", "--json"))["models"]
    by_name = {model["name"]: model for model in listed}
    assert {"srgan", "esrgan", "mesrgan", "mesrgan-poster", "remacri", "nickelback"} <= by_name.keys()
    assert by_name["remacri"]["stages"] == ["gan"]
    assert by_name["remacri"]["bundled"] is False
    assert by_name["nickelback"]["weights"][0]["licence"] == "GPL-3.0-only"
    assert [name for name, model in by_name.items() if model["default"]] == ["mesrgan"]
    assert by_name["mesrgan"]["style"] == {"natural": "photo", "crisp": "gan"}
    text = run("models", "list")
    assert text.returncode == 0
    for line in (
        r"^mesrgan \(default\) +faithful +removes noise and JPEG artefacts; also mesrgan:photo +bundled",
        r"^mesrgan:pixel +faithful +clean sources only +bundled",
        r"^mesrgan:gan +crisp +.*; --style crisp +bundled",
        r"^mesrgan-poster +no weights yet",
        r"^bicubic +soft +any scale +built in",
        r"^lanczos +soft +a little sharper; any scale",
        r"^faithful: keeps to what is there$",
        r"^crisp: invents plausible texture$",
    ):
        assert re.search(line, text.stdout, re.MULTILINE), (line, text.stdout)
    assert text.stdout.splitlines()[2].startswith("mesrgan (default)")
    info = document(run("models", "info", "mesrgan-poster", "--json"))
    assert info["config"]["expansion"] == 2
    assert info["multiplications"] > 5_000_000
    info = document(run("models", "info", "mesrgan:gan", "--json"))
    assert (info["stage"], [weight["stage"] for weight in info["weights"]]) == ("gan", ["gan"])
    assert "\n  stage: photo\n" in run("models", "info", "mesrgan").stdout
    assert "\n  stage: photo\n" not in run("models", "info", "mesrgan:gan").stdout
    assert document(run("models", "info", "bicubic", "--json"))["look"].startswith("soft")
    make_run(tmp_path / "run")
    info = document(run("models", "info", tmp_path / "run", "--json"))
    assert (info["family"], info["stage"], info["training"]["steps"]) == ("mesrgan", "pixel", 500)
    save_file(old_style(new_style(6, 3, 8, 4), 6, 3), tmp_path / "8x.safetensors")
    info = document(run("models", "info", tmp_path / "8x.safetensors", "--json"))
    assert (info["family"], info["scale"], info["config"]["blocks"]) == ("rrdbnet", 8, 6)
    assert "receptive radius" in run("models", "info", tmp_path / "8x.safetensors").stdout


def test_a_model_from_a_run_upscales(run, tmp_path: Path) -> None:
    from PIL import Image

    make_run(tmp_path / "run")
    added = document(run("models", "add", tmp_path / "run", "--name", "mine", "--json"))
    assert (added["name"], added["stages"], added["origin"]) == ("mine", ["pixel"], "user")
    Image.new("RGB", (10, 8), (200, 100, 50)).save(tmp_path / "in.png")
    result = run("upscale", tmp_path / "in.png", "-m", "mine", "-o", tmp_path / "out.png")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (40, 32)
    assert document(run("models", "verify", "mine", "--json"))["results"][0]["status"] == "ok"
    assert len(document(run("models", "remove", "mine", "--json"))["deleted"]) == 1


def test_download_add_publish_through_the_hub(run, fake_hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hub, "BACKOFF", 0.001)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    save_file(new_style(1, 2, 8, 4), tmp_path / "x.safetensors")
    fake_hub.files["a/b/x.safetensors"] = (tmp_path / "x.safetensors").read_bytes()
    assert run("models", "add", "hf:a/b/x.safetensors", "--name", "thing").returncode == 0
    removed = document(run("models", "remove", "thing", "--json"))
    assert len(removed["deleted"]) == 1
    assert run("models", "add", f"hf:a/b@{COMMIT}/x.safetensors", "--name", "thing").returncode == 0
    fake_hub.fault("GET", status=503)
    files = document(run("models", "download", "thing", "--json"))["files"]
    assert Path(files[0]["path"]).read_bytes() == fake_hub.files["a/b/x.safetensors"]
    published = run("models", "publish", "thing", "--repo", "me/mine", "--json")
    assert document(published)["commit"] == COMMIT
    assert "verysecret" not in published.stdout + published.stderr
    fake_hub.fault("POST", status=403, times=100)
    failed = run("models", "publish", "thing", "--repo", "me/mine")
    assert failed.returncode == 4
    assert "verysecret" not in failed.stdout + failed.stderr


def test_convert_and_export(run, tmp_path: Path) -> None:
    torch.save({"params_ema": new_style(1, 2, 8, 4), "epoch": 3}, tmp_path / "in.pth")
    done = document(run("models", "convert", tmp_path / "in.pth", tmp_path / "out.safetensors", "--json"))
    assert (done["unwrapped"], done["dropped"], done["family"]) == (["params_ema"], ["epoch (int)"], "rrdbnet")
    done = document(run("models", "export", tmp_path / "out.safetensors", tmp_path / "back.pth", "--json"))
    assert done["format"] == "basicsr"
    assert torch.load(tmp_path / "back.pth", weights_only=True)["params"].keys() == new_style(1, 2, 8, 4).keys()


class _Malice:
    def __reduce__(self):
        return os.system, ("touch victim",)


WRONG = [
    (["info", "mesrgn"], 4, "did you mean mesrgan"),
    (["info", "missing.safetensors"], 4, "no weights file missing.safetensors"),
    (["info", "empty.safetensors"], 4, "not a readable safetensors file"),
    (["info", "remacri:best"], 4, "no stage 'best'"),
    (["download", "mesrgan-poster"], 4, "no weights yet for mesrgan-poster"),
    (["download"], 2, "name the models"),
    (["download", "remacri", "--offline"], 4, "offline mode forbids"),
    (["download", "remacri"], 4, "offline mode forbids"),
    (["convert", "evil.pth", "out.safetensors"], 4, "evil.pth is refused: it asks for posix.system"),
    (["convert", "evil.pth", "empty.safetensors"], 4, "evil.pth is refused"),
    (["add", "empty.safetensors"], 2, "--name"),
    (["remove", "mesrgan-poster"], 2, "nothing to remove"),
    (["verify", "nonsense"], 4, "unknown model"),
    (["publish", "mesrgan-poster", "--repo", "a/b"], 4, "no weights to publish"),
    (["lsit"], 2, "lsit"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
def test_what_goes_wrong_is_one_line_and_the_documented_code(run, tmp_path: Path, arguments, code, message) -> None:
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save({"params": _Malice()}, tmp_path / "evil.pth")
    result = run("models", *arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_manifest_with_a_missing_field_is_named(run, tmp_path: Path) -> None:
    from sr_cli.weights import manifest

    manifest.user_path().parent.mkdir(parents=True)
    manifest.user_path().write_text('{"schema": 1, "models": {"mine": {"summary": "x"}}}')
    for arguments in (["models", "list"], ["upscale", "x.png", "-m", "mine"]):
        result = run(*arguments)
        assert result.returncode in (3, 4)
        assert len(result.stderr.strip().splitlines()) == 1
    assert "manifest.json: model 'mine': field 'config' is missing" in run("models", "list").stderr


def test_damage_is_found(run, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert run("models", "add", tmp_path / "run", "--name", "mine").returncode == 0
    path = next(tmp_path.rglob("mine-pixel.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    result = run("models", "verify", "--json")
    assert result.returncode == 4
    assert {r["name"]: r["status"] for r in json.loads(result.stdout)["results"]}["mine"] == "damaged"
    assert "mine:pixel" in result.stderr


def test_models_list_needs_no_torch(srup, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    result = srup("models", "list", PYTHONPATH=f"{tmp_path}:{Path(__file__).resolve().parents[1]}")
    assert result.returncode == 0, result.stderr
