"""From a training run's folder to the package's weights."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sr_cli import models, weights
from sr_cli.errors import WeightsError
from sr_cli.training.job import start_from
from sr_cli.weights import LoadedModel, manifest, provenance, registry
from tools import bundle

ROOT = Path(__file__).resolve().parents[1]
INFO = {
    "step": 500,
    "seconds": 5400.0,
    "config": {
        "seed": 3,
        "batch": 16,
        "patch": 128,
        "degrade": "none",
        "ema_decay": 0.999,
        "pixel": {"steps": 1000, "loss": "l1", "generator": {"lr": 1e-3, "schedule": "cosine"}},
        "gan": {"steps": 100, "content": "l1", "feature_net": "vgg19", "generator": {"lr": 1e-4, "schedule": "halve"}},
    },
    "data": ["/data/photos-a"],
    "commit": "abc",
}


def make_run(folder: Path, stage: str = "pixel", seed: int = 0, **info: Any) -> Path:
    generator = models.create(models.PRESETS["mesrgan"])
    generator.reset_parameters(torch.Generator().manual_seed(seed))
    folder.mkdir(exist_ok=True)
    save_file(
        generator.state_dict(), folder / f"{stage}.best.safetensors", metadata={"srup": json.dumps({**INFO, **info})}
    )
    (folder / f"{stage}.last.safetensors").write_bytes(b"all state, not to be read")
    return folder


def loaded_run(folder: Path, stage: str = "pixel", seed: int = 0, **info: Any) -> LoadedModel:
    return weights.load(f"{make_run(folder, stage, seed, **info)}:{stage}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "sr_cli").mkdir(parents=True)
    models_ = manifest.read_file(ROOT / "weights_manifest.json", ROOT / "sr_cli" / "bundled").models
    empty = {name: entry for name, entry in models_.items() if name == "remacri"}
    mesrgan = models_["mesrgan"]
    empty["mesrgan"] = manifest.ModelEntry(
        name="mesrgan", summary="x", config=mesrgan.config, scale=4, stages={}, folder=mesrgan.folder
    )
    (root / "weights_manifest.json").write_text(manifest.dump(empty), "utf-8")
    return root


def options(**changes: Any) -> argparse.Namespace:
    unsaid = ("overlap", "parent", "data", "recipe", "hardware", "hours", "scores", "bf16_share", "teacher_owner")
    defaults = {"blend": (None, 0.0), "style": [], "default": False, "licence": "MIT"}
    return argparse.Namespace(**{**dict.fromkeys(unsaid), **defaults, **changes})


def test_reads_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "run", "gan", parent_sha256="a" * 64)
    entry = registry.add(str(tmp_path / "run"), "mine")
    assert (entry.config, entry.scale) == (models.PRESETS["mesrgan"].to_dict(), 4)
    pixel, gan = entry.stages["pixel"].training, entry.stages["gan"].training
    assert pixel is not None and gan is not None
    assert (pixel.steps, pixel.hours, pixel.data) == (500, 1.5, "photos-a")
    assert "l1, Adam 0.001 cosine" in (pixel.recipe or "")
    assert entry.stages["gan"].parent_sha256 == "a" * 64
    assert "vgg19" in (gan.recipe or "")


def test_a_pixel_run_on_damaged_pictures_is_the_photo_stage(tmp_path: Path) -> None:
    make_run(tmp_path / "run", config={**INFO["config"], "degrade": "photo"})  # type: ignore[dict-item]
    assert list(provenance.best_files(tmp_path / "run")) == ["photo"]


def test_a_run_is_a_model_by_its_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "run", "gan", 1)
    loaded = weights.load(str(tmp_path / "run"))
    assert (loaded.name, loaded.stage) == ("run", "pixel")
    assert weights.load(f"{tmp_path}/run:gan").path.name == "gan.best.safetensors"
    with pytest.raises(WeightsError, match="has the stages gan, pixel, not photo"):
        weights.load(f"{tmp_path}/run:photo")
    with pytest.raises(WeightsError, match="not a training run"):
        weights.load(tmp_path)
    with pytest.raises(WeightsError, match="no weights file or training run"):
        weights.load(tmp_path / "nothing")


def test_a_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    generator = models.create(models.PRESETS["mesrgan"])
    generator.reset_parameters(torch.Generator().manual_seed(0))
    state = {f"ema.{name}": value for name, value in generator.state_dict().items()}
    state |= {f"generator.{name}": value + 1 for name, value in generator.state_dict().items()}
    save_file({**state, "optimiser.0.step": torch.tensor(3.0)}, tmp_path / "pixel.last.safetensors")
    started = models.create(models.PRESETS["mesrgan"])
    start_from(started, tmp_path / "pixel.last.safetensors")
    torch.testing.assert_close(started.state_dict(), generator.state_dict(), rtol=0, atol=0)
    with pytest.raises(WeightsError, match="is of another network"):
        start_from(models.create(models.PRESETS["srgan"]), tmp_path / "pixel.last.safetensors")


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not a training run .* no \*\.best\.safetensors"):
        provenance.best_files(tmp_path)


def test_bundling_makes_a_manifest_that_loads(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = loaded_run(tmp_path / "run")
    (tmp_path / "eval.json").write_text(
        json.dumps({"results": [{"model": "x", "dataset": "set5", "metrics": {"psnr_y": 30.12346, "pi": None}}]})
    )
    pixel = bundle.bundle(run, "mesrgan", options(overlap=20, scores=tmp_path / "eval.json", hardware="2 cores"), root)
    gan = loaded_run(tmp_path / "run2", "gan", 1, parent_sha256=run.sha256)
    gan_stage = bundle.bundle(gan, "mesrgan", options(), root)
    # The parent is the bundled half-precision file, although the run started from its own fp32 one.
    assert gan_stage.parent_sha256 == pixel.sha256

    monkeypatch.setattr(manifest, "PACKAGE", root / "sr_cli")
    loaded = weights.load("mesrgan")
    assert (loaded.stage, loaded.overlap, loaded.sha256) == ("pixel", 20, pixel.sha256)
    assert loaded.entry is not None
    assert loaded.entry.stages["pixel"].scores == {"set5": {"psnr_y": 30.1235}}
    expected = weights.load(run.path).generator.state_dict()
    for key, value in loaded.generator.state_dict().items():
        assert torch.equal(value, expected[key].half().float())
    assert weights.load("mesrgan:gan").entry is not None

    replaced = bundle.bundle(gan, "mesrgan", options(default=True), root)
    assert weights.load("mesrgan").sha256 == replaced.sha256


def test_bundling_can_interpolate_with_the_parent(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixel = loaded_run(tmp_path / "run")
    gan = loaded_run(tmp_path / "run2", "gan", 1, parent_sha256=pixel.sha256)
    bundle.bundle(gan, "mesrgan", options(blend=(pixel.path, 0.4), recipe="0.6 of it and 0.4 of its parent"), root)
    monkeypatch.setattr(manifest, "PACKAGE", root / "sr_cli")
    loaded = weights.load("mesrgan:gan")
    ours, theirs = (weights.load(run.path).generator.state_dict() for run in (gan, pixel))
    for key, value in loaded.generator.state_dict().items():
        torch.testing.assert_close(value, 0.6 * ours[key] + 0.4 * theirs[key], rtol=1e-3, atol=1e-6)
    assert loaded.entry is not None
    assert loaded.entry.stages["gan"].training.recipe == "0.6 of it and 0.4 of its parent"  # type: ignore[union-attr]


def test_a_snapshot_can_be_bundled_as_the_stage_that_it_is_of(tmp_path: Path, root: Path) -> None:
    run = loaded_run(tmp_path / "run")
    path = tmp_path / "gan-000500.safetensors"
    save_file(run.generator.state_dict(), path, metadata={"srup": json.dumps({**INFO, "stage": "gan"})})
    stage = bundle.bundle(bundle.load_run(path, "gan"), "mesrgan", options(), root)
    assert (stage.name, stage.file) == ("gan", "mesrgan-gan.safetensors")
    with pytest.raises(WeightsError, match="is of the stage gan, not pixel"):
        bundle.load_run(path, "pixel")


def test_bundling_says_whose_the_teacher_is(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = loaded_run(tmp_path / "run", teacher="x4plus", teacher_sha256="c" * 64)
    with pytest.raises(WeightsError, match="learned from x4plus: say whose it is"):
        bundle.bundle(run, "mesrgan", options(), root)
    told = options(teacher_owner="Real-ESRGAN x4plus, BSD-3-Clause", bf16_share=0.99, style=["natural"])
    bundle.bundle(run, "mesrgan", told, root)
    monkeypatch.setattr(manifest, "PACKAGE", root / "sr_cli")
    entry, stage = weights.read_manifest().stage("mesrgan")
    assert stage.teacher == manifest.Teacher(sha256="c" * 64, owner="Real-ESRGAN x4plus, BSD-3-Clause")
    assert (stage.bf16_share, entry.style) == (0.99, {"natural": "pixel"})


def test_bundling_refuses_other_networks_and_what_half_precision_cannot_hold(tmp_path: Path, root: Path) -> None:
    before = (root / "weights_manifest.json").read_text()
    run = loaded_run(tmp_path / "run")
    with pytest.raises(WeightsError, match="but remacri is"):
        bundle.bundle(run, "remacri", options(), root)
    state = models.create(models.PRESETS["mesrgan"]).state_dict()
    state["head.bias"][0] = 1e6
    save_file(state, tmp_path / "run" / "pixel.best.safetensors")
    run = weights.load(tmp_path / "run")
    with pytest.raises(WeightsError, match=r"head\.bias does not fit into half precision"):
        bundle.bundle(run, "mesrgan", options(), root)
    assert (root / "weights_manifest.json").read_text() == before
    shutil.rmtree(root)
