"""Training runs: what they leave behind, resuming, interruptions, damage."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sr_cli import models, weights
from sr_cli.errors import DivergedError, InputError, OutputError, UsageError, WeightsError
from sr_cli.training import checkpoint, stages, teachers, trainer
from sr_cli.training.data import Patches
from sr_cli.training.events import Notice, StageProgress, TrainEvent, TrainResult
from sr_cli.training.job import TrainOptions, run_training
from sr_cli.training.run import Run
from sr_cli.training.state import TrainState
from tests.networks import TINY, use_tiny_presets
from tests.processes import Forked, die_after_saving
from tests.test_training_parts import FakeTeacher, picture, squeezenet_weights

SMALL = "validate_every = 4\nsample_every = 8\n[gan]\ndiscriminator_features = 4\nfeature_net = 'squeezenet1_1'\n"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is training: its networks are as small as they can be."""
    for name, config in TINY.items():
        monkeypatch.setitem(models.PRESETS, name, config)


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """A folder with photos/, features.npz and small.toml."""
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.fromarray(picture(96, 112, index)).save(tmp_path / "photos" / f"{index}.png")
    np.savez(tmp_path / "features.npz", **{k: v.numpy() for k, v in squeezenet_weights().items()})
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def train(material: Path, out: str, report: Any = None, **changes: Any) -> TrainResult:
    settings: dict[str, Any] = {
        "stage": "pixel",
        "out": material / out,
        "data": (material / "photos",),
        "feature_weights": material / "features.npz",
        "config": material / "small.toml",
        "steps": 8,
        "batch": 2,
        "patch": 32,
        "workers": 0,
        "device": "cpu",
        "precision": "fp32",
        "cache": material / "cache",
    }
    return run_training(TrainOptions(**{**settings, **changes}), report or (lambda event: None))


def command(material: Path, out: str, *more: object) -> list[str]:
    """The same as a command line."""
    return [
        *("train", "--stage", "pixel", "--out", str(material / out)),
        *("--data", str(material / "photos"), "--config", str(material / "small.toml"), "--batch", "2"),
        *("--patch", "32", "--workers", "1", "--device", "cpu", "--precision", "fp32", "--threads", "1"),
        *map(str, more),
    ]


def lead_a_group() -> None:
    """Be the first process of a group, as of a job of a shell or of a scheduler."""
    os.setpgrp()
    use_tiny_presets()


def started(material: Path, out: str, *more: object, prepare: Callable[[], None] = use_tiny_presets) -> Forked:
    """Run that command line in a process of its own, which tells its events."""
    return Forked(*command(material, out, *more), "--json-lines", prepare=prepare)


def until_saved(process: Forked, step: int) -> None:
    """Wait until a run has saved this step."""
    process.event(lambda event: event["event"] == "progress" and "val_psnr_y" in event and event["step"] >= step)


def killed(material: Path, out: str, *more: object, saves: int, file_events: int) -> None:
    """Run that command line until it kills itself so many file events after so many checkpoints."""
    with Forked(*command(material, out, *more), prepare=partial(die_after_saving, saves, file_events)) as process:
        assert process.wait() == -signal.SIGKILL, process.stderr()


def last_step(folder: Path, stage: str = "pixel") -> int:
    path = folder / f"{stage}.last.safetensors"
    return int(checkpoint.load_state(path)[1]["step"]) if path.exists() else 0


def assert_equal_files(one: Path, other: Path) -> None:
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


# --- what a run leaves behind


def test_both_stages_leave_a_readable_folder(material: Path) -> None:
    events: list[TrainEvent] = []
    result = train(material, "run", events.append, stage="both")
    folder = material / "run"
    assert result.complete
    assert [(s.stage, s.step, s.complete) for s in result.stages] == [("pixel", 8, True), ("gan", 8, True)]
    assert {p.name for p in folder.iterdir()} >= {
        *("config.toml", "log.jsonl", "curves.svg", "sources.json"),
        *("pixel.last.safetensors", "pixel.best.safetensors", "gan.last.safetensors", "gan.best.safetensors"),
    }
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["gan-000008.png", "pixel-000008.png"]
    assert [p.name for p in (folder / "snapshots").iterdir()] == ["gan-000008.safetensors"]
    ElementTree.parse(folder / "curves.svg")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [(s, n) for s in ("pixel", "gan") for n in (4, 8)]
    assert all(0 <= line["waiting"] <= 1 and line["images_per_second"] > 0 for line in lines)
    assert {"loss", "content", "feature", "adversarial", "discriminator", "val_psnr_y"} <= lines[-1].keys()
    assert [e.step for e in events if isinstance(e, StageProgress) and e.val_psnr_y is not None] == [4, 8, 4, 8]

    for stage in ("pixel", "gan"):
        assert weights.load(folder / f"{stage}.best.safetensors").generator.config == models.PRESETS["mesrgan"]
    pixel, gan = (checkpoint.load_state(folder / f"{stage}.best.safetensors")[1] for stage in ("pixel", "gan"))
    assert pixel["parent_sha256"] is None
    assert gan["parent_sha256"] == weights.load(folder / "pixel.best.safetensors").sha256
    assert gan["data"] == ["photos"]
    assert str(material) not in json.dumps(gan)


def test_the_file_of_a_photo_run_says_photo_and_names_its_parent(material: Path) -> None:
    train(material, "pixel", steps=1)
    parent = material / "pixel" / "pixel.best.safetensors"
    train(material, "photo", steps=1, degrade="photo", init=parent, lr=1e-9)
    info = checkpoint.load_state(material / "photo" / "pixel.best.safetensors")[1]
    assert info["stage"] == "photo"
    assert info["parent_sha256"] == weights.load(parent).sha256
    for name, value in load_file(material / "photo" / "pixel.best.safetensors").items():
        assert torch.allclose(value, load_file(parent)[name], atol=1e-6)


def test_training_starts_from_a_checkpoints_average(material: Path) -> None:
    train(material, "one", steps=2)
    train(material, "two", steps=1, init=material / "one" / "pixel.last.safetensors", lr=1e-9)
    average = {k.removeprefix("ema."): v for k, v in load_file(material / "one" / "pixel.last.safetensors").items()}
    for name, value in load_file(material / "two" / "pixel.best.safetensors").items():
        assert torch.allclose(value, average[name], atol=1e-6)


def test_weights_of_another_model_are_refused(material: Path) -> None:
    train(material, "one", steps=1)
    with pytest.raises(WeightsError, match="of another network"):
        train(material, "two", model="srgan", init=material / "one" / "pixel.best.safetensors")
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        train(material, "two", init=material / "nowhere.safetensors")


def test_the_same_seed_gives_the_same_weights_and_another_does_not(material: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(material, out, steps=3, seed=seed, degrade="photo")
    a, b, c = (load_file(material / out / "pixel.last.safetensors") for out in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["ema.head.weight"], c["ema.head.weight"])


def test_it_learns(material: Path) -> None:
    result = train(material, "run", steps=24, lr=1e-3)
    log = Run(result.run).records()
    assert log[-1]["val_psnr_y"] > log[0]["val_psnr_y"] + 0.1
    assert result.stages[0].val_psnr_y == max(line["val_psnr_y"] for line in log)


# --- teachers and the photo stage


@pytest.fixture
def teacher(material: Path) -> str:
    """Weights of a small network with something to teach."""
    generator = models.create(models.mesrgan.MesrganConfig(blocks=1, features=8, growth=4))
    generator.reset_parameters(torch.Generator().manual_seed(3))
    save_file(generator.state_dict(), material / "teacher.safetensors")
    return str(material / "teacher.safetensors")


TEACHING = "teacher_weight = 0.5\nsizes = [1.0, 0.5]\n" + SMALL + "real = 'both'\ndiscriminator_kind = 'unet'\n"


@pytest.mark.parametrize("stage", ["pixel", "gan"])
def test_a_run_with_a_teacher_resumes_bit_for_bit(material: Path, teacher: str, stage: str) -> None:
    (material / "teaching.toml").write_text(TEACHING)
    settings: dict[str, Any] = {"stage": stage, "teacher": teacher, "config": material / "teaching.toml"}
    fresh = models.create(models.PRESETS["mesrgan"])
    fresh.reset_parameters(torch.Generator().manual_seed(5))
    save_file(fresh.state_dict(), material / "start.safetensors")
    train(material, "whole", init=material / "start.safetensors", **settings)
    made = {path: path.stat().st_mtime_ns for path in (material / "cache").glob("*taught*")}
    assert len(made) == 6  # three photos at two sizes, one is held out

    class Killed(Exception):
        pass

    def die(event: TrainEvent) -> None:
        if isinstance(event, StageProgress) and event.step >= 4:
            raise Killed

    with pytest.raises(Killed):
        train(material, "parts", die, init=material / "start.safetensors", **settings)
    # The teacher is remembered with the other sources.
    train(material, "parts", resume=True, stage=None, config=None)
    for kind in ("last", "best"):
        assert_equal_files(*(material / out / f"{stage}.{kind}.safetensors" for out in ("whole", "parts")))
    assert {path: path.stat().st_mtime_ns for path in (material / "cache").glob("*taught*")} == made
    info = checkpoint.load_state(material / "parts" / f"{stage}.best.safetensors")[1]
    assert info["teacher"] == "teacher"
    assert info["teacher_sha256"] == weights.load(teacher).sha256


def test_a_killed_teacher_goes_on_where_it_was(material: Path, teacher: str) -> None:
    with started(material, "run", "--steps", 1, "--teacher", teacher) as process:
        process.event(lambda event: event["event"] == "teaching" and event["done"] >= 1)
    before = {path: path.stat().st_mtime_ns for path in (material / "cache").rglob("*taught*.npy")}
    assert before
    assert train(material, "run", steps=1, teacher=teacher, resume=True, cache=None).complete
    after = {path: path.stat().st_mtime_ns for path in (material / "cache").rglob("*taught*.npy")}
    assert len(after) == 3 and before.items() <= after.items()


def test_a_teacher_must_enlarge_by_four_and_have_weights(material: Path) -> None:
    with pytest.raises(UsageError, match="bicubic is plain interpolation"):
        train(material, "run", teacher="bicubic")
    with pytest.raises(WeightsError, match=r"nothing\.safetensors"):
        train(material, "run", teacher=str(material / "nothing.safetensors"))
    assert not (material / "run").exists()


def test_the_photo_stage_starts_from_pixel_weights_and_degrades(
    material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(material, "run", steps=1)
    train(material, "run", stage="photo", steps=1, lr=1e-9)
    info = checkpoint.load_state(material / "run" / "photo.best.safetensors")[1]
    assert info["stage"] == "photo" and info["config"]["degrade"] == "photo"
    assert info["parent_sha256"] == weights.load(material / "run" / "pixel.best.safetensors").sha256
    # Without a run's own, the bundled pixel weights, which are of the real size.
    monkeypatch.setitem(models.PRESETS, "mesrgan", models.mesrgan.MesrganConfig())
    train(material, "other", stage="photo", steps=1, lr=1e-9)
    info = checkpoint.load_state(material / "other" / "photo.best.safetensors")[1]
    assert info["parent_sha256"] == weights.load("mesrgan:pixel").sha256
    with pytest.raises(UsageError, match="--stage photo"):
        train(material, "third", stage="photo", degrade="none")


def test_a_teacher_enlarges_the_degraded_inputs(material: Path, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (material / "inputs.toml").write_text("taught_inputs = 2\n" + SMALL)
    inputs: dict[str, Any] = {"config": material / "inputs.toml", "stage": "photo", "steps": 2}
    with pytest.raises(UsageError, match=r"taught_inputs = 2 needs --teacher"):
        train(material, "run", **inputs)
    with pytest.raises(UsageError, match=r"taught_inputs = 2 needs --degrade photo"):
        train(material, "run", **{**inputs, "stage": "pixel"}, teacher=teacher)
    monkeypatch.setattr(teachers, "load_teacher", lambda *_: FakeTeacher())
    step = stages.PixelStage.step

    def check(self: stages.PixelStage, number: int, patches: Patches) -> dict[str, Tensor]:
        assert patches.taught is not None  # the fake teacher repeats what it sees
        assert torch.equal(patches.taught, patches.lr.repeat_interleave(4, 2).repeat_interleave(4, 3))
        return step(self, number, patches)

    monkeypatch.setattr(stages.PixelStage, "step", check)
    save_file(models.create(models.PRESETS["mesrgan"]).state_dict(), material / "start.safetensors")
    assert train(material, "run", **inputs, teacher=teacher, init=material / "start.safetensors").complete
    assert len(list((material / "cache").glob("*.photo-0-[01].taught*"))) == 6  # three photos, one is held out


def test_a_gan_stage_without_a_teacher_cannot_take_it_for_real(material: Path) -> None:
    (material / "teaching.toml").write_text(TEACHING)
    with pytest.raises(UsageError, match="--teacher"):
        train(material, "run", stage="gan", config=material / "teaching.toml")


@pytest.mark.parametrize(("feature_weight", "kept", "snapshots"), [(0, 4, []), (1, 8, ["pixel-000008.safetensors"])])
def test_where_features_are_compared_the_newest_weights_are_the_best(
    material: Path, monkeypatch: pytest.MonkeyPatch, feature_weight: float, kept: int, snapshots: list[str]
) -> None:
    falling = iter([20.0, 30.0, 29.0])  # bicubic, step 4, step 8
    monkeypatch.setattr(trainer.validation, "mean_psnr_y", lambda outputs, crops: next(falling))
    with (material / "small.toml").open("a") as file:
        file.write(f"[pixel]\nfeature_weight = {feature_weight}\nfeature_net = 'squeezenet1_1'\n")
    train(material, "run")
    assert checkpoint.load_state(material / "run" / "pixel.best.safetensors")[1]["step"] == kept
    assert [path.name for path in (material / "run").glob("snapshots/*")] == snapshots


# --- resuming


@pytest.mark.parametrize(("stage", "model"), [("pixel", "mesrgan"), ("both", "mesrgan"), ("pixel", "srgan")])
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(material: Path, stage: str, model: str) -> None:
    train(material, "whole", stage=stage, model=model)
    seen: set[tuple[str, int]] = set()

    class Killed(Exception):
        pass

    def die_once(event: TrainEvent) -> None:
        """At the first report of each stage and step."""
        if isinstance(event, StageProgress) and (event.stage, event.step) not in seen:
            seen.add((event.stage, event.step))
            raise Killed

    result = None
    while result is None:
        resume = (material / "parts").exists()
        with contextlib.suppress(Killed):
            result = train(material, "parts", die_once, stage=stage, model=model, resume=resume)
    assert len(seen) >= (4 if stage == "both" else 2)
    for name in ("pixel", "gan")[: 2 if stage == "both" else 1]:
        for kind in ("last", "best"):
            assert_equal_files(
                material / "whole" / f"{name}.{kind}.safetensors", material / "parts" / f"{name}.{kind}.safetensors"
            )
    steps = [(line["stage"], line["step"]) for line in Run(material / "parts").records()]
    assert steps == sorted(set(steps), key=steps.index)


def test_twenty_steps_are_ten_and_a_kill_and_ten(material: Path) -> None:
    train(material, "whole", steps=20, workers=1)
    killed(material, "parts", "--steps", 20, saves=2, file_events=10)
    assert 8 <= last_step(material / "parts") < 20
    train(material, "parts", steps=20, workers=1, resume=True)
    for kind in ("last", "best"):
        assert_equal_files(*(material / out / f"pixel.{kind}.safetensors" for out in ("whole", "parts")))


def test_resume_remembers_data_and_settings(material: Path) -> None:
    train(material, "run", steps=4)
    result = run_training(
        TrainOptions(stage="pixel", out=material / "run", resume=True, steps=6, workers=0), lambda event: None
    )
    assert result.stages[0].step == 6
    config = checkpoint.load_state(material / "run" / "pixel.best.safetensors")[1]["config"]
    assert (config["batch"], config["patch"]) == (2, 32)


def test_resume_remembers_the_stage(material: Path) -> None:
    train(material, "pixel", steps=1)
    start_from = material / "pixel" / "pixel.best.safetensors"
    train(material, "gan", stage="gan", steps=1, init=start_from)
    result = run_training(TrainOptions(out=material / "gan", resume=True, steps=2, workers=0), lambda event: None)
    assert [(stage.stage, stage.step) for stage in result.stages] == [("gan", 2)]
    assert not (material / "gan" / "pixel.last.safetensors").exists()


def test_an_existing_run_is_neither_overwritten_nor_invented(material: Path) -> None:
    train(material, "run", steps=1)
    with pytest.raises(OutputError, match="--resume"):
        train(material, "run", steps=1)
    with pytest.raises(InputError, match="nothing to resume"):
        train(material, "new", resume=True)
    assert train(material, "run", steps=1, stage="gan").complete  # another stage is welcome
    assert checkpoint.load_state(material / "run" / "gan.best.safetensors")[1]["parent_sha256"]


def test_a_run_that_is_being_written_is_left_alone(material: Path) -> None:
    with started(material, "run", "--steps", 100000) as process:
        until_saved(process, 4)
        with pytest.raises(OutputError, match="another `srup train`"):
            train(material, "run", resume=True)
    assert train(material, "run", steps=last_step(material / "run") + 1, resume=True).complete


def test_a_damaged_checkpoint_is_named(material: Path) -> None:
    train(material, "run", steps=1)
    path = material / "run" / "pixel.last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"pixel\.last\.safetensors"):
        train(material, "run", steps=2, resume=True)


def test_checkpoints_of_the_first_version_are_read(material: Path) -> None:
    train(material, "run", steps=2)
    path = material / "run" / "pixel.last.safetensors"
    tensors, info = checkpoint.load_state(path)
    checkpoint.save_state(path, tensors, {key: info[key] for key in ("step", "best", "bad_steps", "seconds")})
    (material / "run" / "config.toml").unlink()
    (material / "run" / "sources.json").unlink()
    assert train(material, "run", steps=3, resume=True).stages[0].step == 3


# --- interruptions


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(material: Path, number: int, code: int) -> None:
    with started(material, "run", "--steps", 100000) as process:
        until_saved(process, 4)
        process.send_signal(number)
        assert process.wait() == code, process.stderr()
        assert process.stderr().endswith(f"saved; continue with --resume --out {material / 'run'}\n")
    saved = last_step(material / "run")
    assert saved == Run(material / "run").records()[-1]["step"]
    assert train(material, "run", steps=saved + 1, resume=True).complete


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_of_a_run_saves_too(material: Path, number: int, code: int) -> None:
    with started(material, "run", "--steps", 100000, prepare=lead_a_group) as process:
        until_saved(process, 4)
        process.send_signal(number, group=True)
        assert process.wait() == code, process.stderr()
    assert last_step(material / "run") == Run(material / "run").records()[-1]["step"]


def test_max_minutes_saves_and_is_no_failure(material: Path) -> None:
    result = train(material, "run", steps=100000, max_minutes=0)
    assert result.interrupted == "--max-minutes"
    assert last_step(material / "run") == result.stages[0].step > 0


def test_a_full_disk_leaves_the_earlier_checkpoint(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(material, "run", steps=4)
    before = {p.name: p.read_bytes() for p in (material / "run").glob("*.safetensors")}
    real = os.fsync

    def full(handle: int) -> None:
        if os.fstat(handle).st_size > 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train(material, "run", steps=8, resume=True)
    assert {p.name: p.read_bytes() for p in (material / "run").glob("*.safetensors")} == before
    assert not list((material / "run").glob(".*.part"))


@pytest.mark.parametrize(
    "times", [2, pytest.param(10, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.long)]
)
def test_kills_never_lose_a_checkpoint(material: Path, times: int) -> None:
    """Killed in the middle of saving and logging: what was saved stays readable and never goes back."""
    rng = random.Random(0)
    saved = 0
    for attempt in range(times):
        resume = ["--resume"] if attempt else []
        killed(material, "run", "--steps", 100000, *resume, saves=1, file_events=rng.randint(0, 40))
        now = last_step(material / "run")
        assert now >= saved + 4, attempt
        saved = now
        weights.load(material / "run" / "pixel.best.safetensors")
        Run(material / "run").records()
    assert not [p for p in (material / "run").iterdir() if p.name.endswith(".tmp")]


# --- divergence and unusable input


def test_a_run_of_non_finite_losses_ends_with_a_clear_error(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.pixel, "content", lambda kind, output, target: output.sum() * float("nan"))
    monkeypatch.setattr(trainer, "REPORT_SECONDS", 0.0)
    (material / "small.toml").write_text("max_bad_steps = 5\n" + SMALL)
    with pytest.raises(DivergedError, match="6 of the last 6 steps"):
        train(material, "run", steps=100)


def test_bad_steps_are_counted_within_a_window() -> None:
    state = TrainState()
    for at in (10, 500, 1200):
        state.step = at
        state.count_bad(20)
    assert (state.bad_steps, state.bad_in_window) == (60, 40)
    again = TrainState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    again.step = 2300
    again.count_bad(0)
    assert (again.bad_steps, again.bad_in_window) == (60, 0)


def test_a_run_that_is_stopped_before_its_first_validation_names_no_weights(material: Path) -> None:
    result = train(material, "run", max_minutes=0)
    assert (result.stages[0].step, result.stages[0].val_psnr_y, result.stages[0].weights) == (1, None, None)
    again = train(material, "run", resume=True, steps=4)
    assert again.stages[0].weights is not None and again.stages[0].weights.exists()


def test_weights_of_the_first_light_upsampler_are_a_start(material: Path) -> None:
    single = models.create(replace(TINY["mesrgan"], upsampler="single"))
    single.reset_parameters(torch.Generator().manual_seed(5))
    save_file(single.state_dict(), material / "single.safetensors")
    (material / "small.toml").write_text("even_upsampler = false\n" + SMALL)  # it would change the start
    train(material, "run", steps=1, init=material / "single.safetensors", lr=1e-9)
    expected = models.mesrgan.with_light_upsampler(single.state_dict())
    for name, value in load_file(material / "run" / "pixel.best.safetensors").items():
        assert torch.allclose(value, expected[name], atol=1e-6)


def test_validation_gives_bicubics_value_too(material: Path) -> None:
    events: list[TrainEvent] = []
    train(material, "run", events.append, steps=4)
    validated = [e for e in events if isinstance(e, StageProgress) and e.val_psnr_y is not None]
    assert len(validated) == 1 and validated[0].bicubic_psnr_y is not None
    assert abs(validated[0].bicubic_psnr_y - validated[0].val_psnr_y) < 1  # it starts near the bicubic enlargement


def test_a_single_bad_step_is_left_out_and_counted(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = stages.pixel.content, iter(range(100))

    def sometimes(kind: str, output: Tensor, target: Tensor) -> Tensor:
        return real(kind, output, target) * (float("inf") if next(calls) == 2 else 1.0)

    monkeypatch.setattr(stages.pixel, "content", sometimes)
    result = train(material, "run", steps=6, model="srgan")
    assert result.stages[0].bad_steps == 1
    assert all(torch.isfinite(t).all() for t in load_file(material / "run" / "pixel.last.safetensors").values())


def test_corrupt_images_are_named_and_counted(material: Path) -> None:
    (material / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    events: list[TrainEvent] = []
    assert train(material, "run", events.append, steps=1).skipped_images == 1
    assert sum("broken.jpg" in e.message for e in events if isinstance(e, Notice)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "photos"}, "--stage"),
        ({"model": "vdsr"}, "vdsr"),
        ({"recipe": "secret"}, "secret"),
        ({"patch": 24}, "patch"),
        ({"patch": 16, "stage": "gan"}, "patch"),
        ({"batch": 1, "stage": "gan"}, r"one patch of 32 pixels.*--batch.*--patch"),
        ({"device": "abacus"}, "abacus"),
        ({"data": (), "dataset": "set5"}, "set5"),
        ({"data": ()}, r"DIV2K.*--yes.*--data FOLDER"),
    ],
)
def test_nonsense_is_a_usage_error_that_names_it(material: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(material, "run", **changes)
    assert not (material / "run").exists()


def test_the_gan_stage_as_typed_explains_what_it_would_download(srup_here: Any) -> None:
    done = srup_here("train", "--stage", "gan")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for part in ("DIV2K", "3.5 GB", "vgg19", "--yes", "--data FOLDER", "--feature-weights FILE"):
        assert part in done.stderr


def test_vgg19_that_cannot_be_had_is_a_clear_error(material: Path) -> None:
    with pytest.raises(WeightsError, match=r"vgg19.*--feature-weights FILE.*--feature-net none"):
        train(material, "run", stage="both", feature_net="vgg19", feature_weights=None, offline=True)
    assert train(material, "run", stage="both", feature_net="none", feature_weights=None, steps=1).complete


def test_training_on_the_named_set(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sr_cli import datasets
    from sr_cli.training import sources

    pairs = tuple(datasets.Pair(p.name, p, None) for p in sorted((material / "photos").iterdir()))
    asked: list[str] = []
    monkeypatch.setattr(datasets, "named", lambda name, *_, **__: datasets.Dataset(name, pairs, "made"))
    with pytest.raises(UsageError, match=r"nothing was downloaded; .*--data FOLDER"):
        train(material, "run", data=(), confirm=lambda question: bool(asked.append(question)))
    assert "3.5 GB" in asked[0]
    assert train(material, "run", data=(), steps=1, confirm=lambda question: True).complete
    assert sources.check_set("div2k") == "div2k-train"


# --- precision and several processes


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_resumes_exactly(material: Path, precision: str) -> None:
    train(material, "whole", steps=8, precision=precision)
    train(material, "parts", steps=8, precision=precision, max_minutes=0)
    assert 0 < last_step(material / "parts") < 8
    train(material, "parts", steps=8, precision=precision, resume=True)
    assert_equal_files(*(material / out / "pixel.last.safetensors" for out in ("whole", "parts")))


TINY_SRUP = """
from tests.networks import use_tiny_presets
use_tiny_presets()
from sr_cli.__main__ import main
main()
"""


def torchrun(material: Path, out: str, *more: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (material / "tiny_srup.py").write_text(TINY_SRUP)
    head = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    arguments = [*head, str(material / "tiny_srup.py"), *command(material, out, *more)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_train_as_one(material: Path) -> None:
    # A cosine would depend on the planned steps, which differ here.
    (material / "small.toml").write_text(SMALL + "[pixel.generator]\nschedule = 'constant'\n")
    train(material, "alone", steps=8)
    done = torchrun(material, "together", "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4/4 steps") == 1  # one of them speaks
    done = torchrun(material, "together", "--steps", 8, "--resume", "--stage", "pixel")
    assert done.returncode == 0, done.stderr
    alone, together = (load_file(material / out / "pixel.last.safetensors") for out in ("alone", "together"))
    for name, value in alone.items():
        # Sums in another order: equal up to rounding, which Adam enlarges where gradients are next to nothing.
        assert (value - together[name]).abs().mean() < 1e-5 + 1e-2 * value.abs().mean(), name
    assert len(list((material / "together").glob("*.best.safetensors"))) == 1


@pytest.mark.slow
def test_two_processes_train_and_resume_a_gan_stage(material: Path) -> None:
    # A process has one patch of a batch of 2, and BatchNorm needs more than one value of it: 16 pixels make one.
    gan = ("--stage", "both", "--feature-weights", material / "features.npz", "--patch", "64")
    whole = torchrun(material, "whole", "--steps", 8, *gan)
    assert whole.returncode == 0, whole.stderr
    stopped = torchrun(material, "parts", "--steps", 8, *gan, "--max-minutes", "0.0001")
    assert stopped.returncode == 0, stopped.stderr
    done = torchrun(material, "parts", "--steps", 8, *gan, "--resume")
    assert done.returncode == 0, done.stderr
    assert_equal_files(*(material / out / "gan.last.safetensors" for out in ("whole", "parts")))
