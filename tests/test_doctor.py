"""srup doctor: complete, and honest about what is broken."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from test_fidelity import home, register

from sr_cli import doctor, inference
from sr_cli.errors import UsageError
from sr_cli.inference import setup
from sr_cli.weights import Manifest, manifest
from tests.networks import SMALL, with_weights

__all__ = ["home"]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the user's models, since what is bundled changes; and no backend that takes seconds to convert a network."""
    monkeypatch.setattr(manifest, "builtin_path", lambda: manifest.user_path())
    monkeypatch.setattr(setup.backends, "choose", lambda *_arguments: "eager")


@pytest.fixture
def mine(home: Path) -> Path:
    register(home, "mine", {"pixel": (with_weights(SMALL["mesrgan"]), None)}, "pixel")
    return home


def test_all_is_well(mine: Path) -> None:
    found = doctor.examine()
    assert found.problems == () and found.exit_code == 0
    assert {"srup", "python", "torch", "pillow", "safetensors"} <= found.versions.keys()
    assert found.devices[0].name == "cpu" and found.devices[0].free_bytes > 0
    assert found.choice and found.choice.threads >= 1
    assert found.backends["eager"] is None
    assert [(r.name, r.stage, r.status) for r in found.weights] == [("mine", "pixel", "ok")]
    assert found.self_test.ok and found.self_test.model == "mine:pixel"
    assert found.places[0].path == mine and found.places[0].size > 1000


def test_without_weights_random_ones_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.registry.manifest, "read_manifest", Manifest)
    found = doctor.examine()
    assert found.exit_code == 0 and found.self_test.ok and "random" in found.self_test.model


def test_damaged_weights(mine: Path) -> None:
    path = mine / "weights" / "mine-pixel.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = doctor.examine()
    assert found.exit_code == 4 and "mine:pixel" in found.problems[0]
    assert found.self_test.ok and "random" in found.self_test.model


def test_a_broken_manifest(mine: Path) -> None:
    (mine / "manifest.json").write_text("{")
    found = doctor.examine()
    assert found.exit_code == 1 and "manifest.json" in found.problems[0]
    assert found.self_test.ok


@pytest.mark.usefixtures("mine")
def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_devices", lambda: (_ for _ in ()).throw(ImportError("libcudart.so: not found")))
    found = doctor.examine()
    assert found.exit_code == 1 and found.choice is None
    assert "libcudart" in found.problems[0] and found.self_test.model == "bicubic"


@pytest.mark.usefixtures("mine")
def test_an_upscale_that_fails_or_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = inference.Upscaler.upscale

    def failing(self: inference.Upscaler, *arguments: Any) -> Any:
        raise UsageError("no kernel\nfor this device")

    monkeypatch.setattr(inference.Upscaler, "upscale", failing)
    found = doctor.examine()
    assert found.exit_code == 1 and found.problems == ("self-test: no kernel for this device",)

    def wrong(self: inference.Upscaler, pixels: Any, *arguments: Any) -> Any:
        result = real(self, pixels, *arguments)
        if self.setup.tile:
            result.pixels[0, 0] ^= 128
        return result

    monkeypatch.setattr(inference.Upscaler, "upscale", wrong)
    assert "128 of 255" in doctor.examine().problems[0]


def test_command_line(srup_here: Any, mine: Path) -> None:
    done = srup_here("doctor", "--json", SRUP_HOME=str(mine))
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["ok"] else 4), done.stderr
    assert {"versions", "devices", "choice", "backends", "places", "weights", "self_test"} <= document.keys()
    assert {"mine:pixel"} <= {f"{w['name']}:{w['stage']}" for w in document["weights"]}
    (mine / "weights" / "mine-pixel.safetensors").write_bytes(b"nothing")
    done = srup_here("doctor", SRUP_HOME=str(mine))
    assert done.returncode == 4
    assert "mine:pixel" in done.stderr and "mine:pixel: damaged" in done.stdout
    assert "Self-test\n  ok" in done.stdout and "All is well" not in done.stdout
    assert sys.version.split()[0] in done.stdout


@pytest.mark.usefixtures("mine")
def test_a_full_disk_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    found = doctor.examine()
    assert found.exit_code == 1 and "full: 0 B are free" in found.problems[0]


def test_a_home_that_cannot_be_written_is_not_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SRUP_HOME", str(tmp_path / "file/home"))
    found = doctor.examine()
    assert found.exit_code == 1
    assert any("cannot be written to; set SRUP_HOME" in problem for problem in found.problems)
    assert len(found.places) == 2


def test_a_file_that_vanishes_while_it_looks(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.walk

    def walk(folder: Path) -> Any:
        for root, folders, files in real(folder):
            yield root, folders, [*files, "gone.safetensors"]

    monkeypatch.setattr(os, "walk", walk)
    assert doctor.examine().problems == ()
