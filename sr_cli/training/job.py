"""`run_training`: from options to a finished run."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import sr_cli
from sr_cli import memory, models
from sr_cli.errors import InputError, OutputError, UsageError, WeightsError
from sr_cli.training import checkpoint, core, data, losses, parallel, stages, validation
from sr_cli.training.config import RECIPES, TrainConfig, override, read_toml
from sr_cli.training.events import Notice, Report, StageResult, TrainResult
from sr_cli.training.run import Run, sha256


@dataclass(frozen=True)
class TrainOptions:
    """What `srup train` was asked for; None leaves a setting to the configuration."""

    model: str | None = None
    """Preset to train."""
    stage: str = "both"
    """`pixel`, `gan` or `both`."""
    out: Path | None = None
    """The run's folder; `runs/MODEL` when not given."""
    data: tuple[Path, ...] = ()
    """Folders of training images."""
    val: Path | None = None
    """Folder of validation images; without it some training images are held out."""
    init: Path | None = None
    """Generator weights, or a checkpoint, to start from."""
    resume: bool = False
    """Continue the run in `out`."""
    recipe: str = "ours"
    """Name of the configuration that the others override: `ours` or `poster`."""
    config: Path | None = None
    """TOML file over the recipe, or over the run's own configuration when resuming."""
    steps: int | None = None
    """Total steps of each stage."""
    max_minutes: float | None = None
    """Stops after this time, saved and ready to resume."""
    batch: int | None = None
    patch: int | None = None
    lr: float | None = None
    """Peak learning rate of the generator, and of the discriminator."""
    degrade: str | None = None
    """`none` or `photo`."""
    seed: int | None = None
    precision: str | None = None
    feature_net: str | None = None
    feature_weights: Path | None = None
    """File with the feature network's weights, instead of a download."""
    device: str = "auto"
    threads: int | None = None
    """Threads that torch computes with on CPU."""
    workers: int | None = None
    """Processes that draw patches."""
    cache: Path | None = None
    """Where decoded images are kept."""


def resolve_config(options: TrainOptions) -> TrainConfig:
    """Recipe or resumed run, then the TOML file, then the flags. Raises UsageError for nonsense."""
    if options.recipe not in RECIPES:
        raise UsageError(f"unknown recipe {options.recipe!r}; known: {', '.join(RECIPES)}")
    config = RECIPES[options.recipe]
    if options.resume and options.out and (options.out / "config.toml").exists():
        config = override(TrainConfig(), read_toml(options.out / "config.toml"))
    if options.config:
        config = override(config, read_toml(options.config))
    names = ("model", "batch", "patch", "degrade", "seed", "precision")
    flags: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    pixel: dict[str, Any] = {}
    gan: dict[str, Any] = {}
    if options.steps is not None:
        pixel["steps"] = gan["steps"] = options.steps
    if options.lr is not None:
        pixel["generator"] = gan["generator"] = gan["discriminator"] = {"lr": options.lr}
    if options.feature_net is not None:
        gan["feature_net"] = options.feature_net
    config = override(config, {**flags, "pixel": pixel, "gan": gan})
    if config.model not in models.PRESETS:
        raise UsageError(f"unknown model {config.model!r}; known: {', '.join(models.PRESETS)}")
    return config


def run_training(options: TrainOptions, report: Report) -> TrainResult:
    """Trains the stages asked for and returns where their weights are.

    Ctrl-C, SIGTERM and `max_minutes` end the run after the step at hand, saved; the result then says
    so. Raises a SrupError for unusable options, data, weights or disks, and DivergedError.
    """
    if options.stage not in ("pixel", "gan", "both"):
        raise UsageError(f"--stage must be pixel, gan or both, not {options.stage!r}")
    config = resolve_config(options)
    folder = options.out or Path("runs") / config.model
    names = ["pixel", "gan"] if options.stage == "both" else [options.stage]
    device = _device(options.device)
    if device.type == "cpu":
        memory.keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    with _Stopper(options.max_minutes) as stopper, parallel.group(device):
        run = Run(folder)
        _check_folder(run, names, options.resume)
        # Whatever can fail at once does so before images are decoded.
        features = _features(config, options) if "gan" in names else None
        material, skipped = _material(config, options, folder, report)
        run.write_config(config)
        results: list[StageResult] = []
        for name in names:
            generator, parent = _initial_generator(config, name, options, run)
            run.about = {"parent_sha256": parent, **_about(options, material)}
            report(Notice(_starting(name, run, parent)))
            steps = config.pixel.steps if name == "pixel" else config.gan.steps
            if name == "pixel":
                stage: stages.Stage = stages.PixelStage(config, generator, device)
            else:
                assert features is not None
                stage = stages.GanStage(config, generator, device, features)
            results.append(
                core.train(name, stage, config, steps, material, run, report, stopper, best_is_last=name == "gan")
            )
            if stopper.reason:
                break
    return TrainResult(folder, results, skipped, stopper.reason)


class _Stopper:
    """Says when to stop: after a time, or when SIGINT or SIGTERM came. A second signal ends at once."""

    def __init__(self, max_minutes: float | None) -> None:
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None
        self.reason: str | None = None
        self.previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.reason = self.reason or "--max-minutes"
        return self.reason is not None

    def __enter__(self) -> _Stopper:
        if threading.current_thread() is threading.main_thread():
            for which in (signal.SIGINT, signal.SIGTERM):
                self.previous[which] = signal.signal(which, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        self.reason = which.name
        signal.signal(which, self.previous[which])

    def __exit__(self, *_: object) -> None:
        for which, handler in self.previous.items():
            signal.signal(which, handler)


def _device(name: str) -> torch.device:
    """`auto`: CUDA, Apple's GPU, else the CPU; torchrun's processes take a GPU each."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", device.index or int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} is not available: {str(error).splitlines()[0]}") from None
    return device


def _check_folder(run: Run, names: list[str], resume: bool) -> None:
    there = [name for name in names if run.checkpoint(name).exists()]
    if there and not resume:
        raise OutputError(
            f"{run.folder} already holds a {there[0]} stage; add --resume to continue it, or choose another --out"
        )
    if resume and not run.config.exists() and not there:
        raise InputError(f"nothing to resume in {run.folder}; leave out --resume to start there")


def _features(config: TrainConfig, options: TrainOptions) -> losses.FeatureLoss:
    net = losses.feature_net(config.gan.feature_net, options.feature_weights)
    if config.patch < net.min_side:
        raise UsageError(f"{config.gan.feature_net} needs --patch of at least {net.min_side}, not {config.patch}")
    return losses.FeatureLoss(net, config.gan.feature_loss, config.gan.feature_relative)


def _material(config: TrainConfig, options: TrainOptions, folder: Path, report: Report) -> tuple[core.Material, int]:
    if not options.data:
        raise UsageError("no training images: name a folder with --data DIR")
    world = parallel.world()
    if config.batch % world:
        raise UsageError(f"--batch {config.batch} cannot be shared equally by {world} processes")
    paths = data.find_images(options.data)
    val_paths = data.find_images([options.val]) if options.val else None
    if val_paths is None:
        paths, val_paths = data.hold_out(paths)
    cache = options.cache or default_cache()

    def notice(message: str) -> None:
        if parallel.rank() == 0:
            report(Notice(message))

    images, skipped = data.load_images(paths, cache, config.patch, notice)
    held_out, skipped_val = data.load_images(val_paths, cache, 16, notice)
    patches = data.PatchDataset(
        images,
        config.seed,
        config.batch,
        config.patch,
        config.min_detail,
        config.degrade,
        parallel.rank(),
        world,
    )
    workers = options.workers if options.workers is not None else min(8, max(1, (os.cpu_count() or 2) // world - 1))
    crops = validation.validation_crops(held_out, degradation=config.degrade)
    notice(f"{len(images)} training images, {len(held_out)} for validation, {skipped + skipped_val} skipped")
    return core.Material(patches, crops, workers), skipped + skipped_val


def default_cache() -> Path:
    """Where decoded images are kept unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "srup" / "images"


def _initial_generator(
    config: TrainConfig, name: str, options: TrainOptions, run: Run
) -> tuple[models.Generator, str | None]:
    """A stage's generator before its first step, and the sha256 of the weights file it comes from."""
    generator = models.create(models.PRESETS[config.model])
    generator.reset_parameters(torch.Generator().manual_seed(config.seed))
    if run.checkpoint(name).exists():
        return generator, _recorded_parent(run, name)
    source = options.init
    if name == "gan" and run.best("pixel").exists() and (source is None or options.stage == "both"):
        source = run.best("pixel")
    if source is not None:
        load_generator(generator, source)
        return generator, sha256(source)
    if name == "gan":
        return _bundled(config.model)
    return generator, None


def _recorded_parent(run: Run, name: str) -> str | None:
    if not run.best(name).exists():
        return None
    _, info = checkpoint.load_state(run.best(name))
    parent: str | None = info.get("parent_sha256")
    return parent


def _bundled(model: str) -> tuple[models.Generator, str | None]:
    try:
        from sr_cli import weights
    except ImportError:
        raise WeightsError(f"{model}:pixel is not bundled; name weights to start from with --init FILE") from None
    loaded = weights.load(f"{model}:pixel")
    return loaded.generator, loaded.sha256


def load_generator(generator: models.Generator, path: Path) -> None:
    """Loads weights from a file of generator weights, or the averaged ones from a checkpoint.

    Raises InputError when the file cannot be read, WeightsError when it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {error}") from None
    tensors = checkpoint.part(tensors, "ema") or tensors
    wanted = generator.state_dict()
    wrong = [k for k in wanted if k not in tensors or tensors[k].shape != wanted[k].shape]
    wrong += [k for k in tensors if k not in wanted]
    if wrong:
        raise WeightsError(f"{path} is not of this model: {wrong[0]} is missing, unexpected or of another shape")
    generator.load_state_dict({k: v.to(wanted[k].dtype) for k, v in tensors.items()})


def _about(options: TrainOptions, material: core.Material) -> dict[str, Any]:
    """What a model card says of a run."""
    return {
        "data": [str(path) for path in options.data],
        "images": len(material.patches.images),
        "srup": sr_cli.__version__,
        "torch": torch.__version__,
        "commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of a source checkout; None in an installed package."""
    try:
        source = Path(sr_cli.__file__).parent
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _starting(name: str, run: Run, parent: str | None) -> str:
    if run.checkpoint(name).exists():
        return f"{name} stage: continuing {run.checkpoint(name)}"
    return f"{name} stage: starting from {f'weights {parent[:12]}' if parent else 'fresh weights'}"
