"""`run_training`: from options to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import sr_cli
from sr_cli import models, storage, weights
from sr_cli.errors import InputError, OutputError, UsageError, WeightsError
from sr_cli.inference import Upscaler, choose_device, memory
from sr_cli.metrics.features import FeatureLoss, feature_net
from sr_cli.training import checkpoint, core, data, parallel, sources, stages, teachers, validation
from sr_cli.training.config import RECIPES, TrainConfig, override, read_toml
from sr_cli.training.events import Notice, Report, StageResult, Teaching, TrainResult
from sr_cli.training.options import TrainOptions
from sr_cli.training.run import Run

STAGES = {"pixel": ["pixel"], "photo": ["photo"], "gan": ["gan"], "both": ["pixel", "gan"]}
PARENTS = {"photo": ("pixel",), "gan": ("photo", "pixel")}
"""Stages of the same run whose best weights a stage starts from, the first that is there; else `NAME:pixel`."""
SMALLEST_CROP = 64
"""Validation images of fewer pixels a side are left out."""


def resolve_folder(options: TrainOptions) -> Path:
    """The run's folder: the one asked for, or one named after the model."""
    if options.out:
        return options.out
    model = options.model or (read_toml(options.config).get("model") if options.config else None)
    return Path("runs") / str(model or TrainConfig().model)


def resolve_config(options: TrainOptions, resumed: Path | None = None) -> TrainConfig:
    """Recipe, or the configuration of the run that is resumed, then the TOML file, then the flags.

    Raises UsageError for nonsense.
    """
    if options.recipe not in RECIPES:
        raise UsageError(f"unknown recipe {options.recipe!r}; known: {', '.join(RECIPES)}")
    config = override(RECIPES[options.recipe], read_toml(resumed)) if resumed else RECIPES[options.recipe]
    if options.config:
        config = override(config, read_toml(options.config))
    names = ("model", "batch", "patch", "degrade", "teacher_weight", "seed", "precision")
    flags: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    pixel: dict[str, Any] = {}
    gan: dict[str, Any] = {}
    if options.steps is not None:
        pixel["steps"] = gan["steps"] = options.steps
    if options.lr is not None:
        ratio = config.gan.discriminator.lr / config.gan.generator.lr
        pixel["generator"] = gan["generator"] = {"lr": options.lr}
        gan["discriminator"] = {"lr": options.lr * ratio}
    if options.feature_net is not None:
        gan["feature_net"] = options.feature_net
    if options.stage == "photo":
        if options.degrade == "none":
            raise UsageError("--stage photo trains on degraded inputs; leave out --degrade, or use --stage pixel")
        flags["degrade"] = "photo"
    config = override(config, {**flags, "pixel": pixel, "gan": gan})
    if config.model not in models.PRESETS:
        raise UsageError(f"unknown model {config.model!r}; known: {', '.join(models.PRESETS)}")
    return config


_WORDS, _PATHS = ("stage", "dataset", "teacher"), ("val", "init", "feature_weights")


def _recall_sources(options: TrainOptions, run: Run) -> TrainOptions:
    """Options with what is not given filled in from the run that is resumed."""
    if not run.sources.exists():
        return options
    try:
        known = json.loads(run.sources.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {run.sources}: {error}") from None
    recalled: dict[str, Any] = {name: known[name] for name in _WORDS if known.get(name)}
    recalled |= {name: Path(known[name]) for name in _PATHS if known.get(name)}
    recalled["data"] = tuple(map(Path, known.get("data", ())))
    return dataclasses.replace(options, **{k: v for k, v in recalled.items() if not getattr(options, k)})


def _record_sources(options: TrainOptions, run: Run) -> None:
    known: dict[str, Any] = {"data": [str(path.absolute()) for path in options.data]}
    known |= {name: getattr(options, name) for name in _WORDS}
    known |= {name: str(path.absolute()) for name in _PATHS if (path := getattr(options, name))}
    storage.write_file(run.sources, json.dumps(known, indent=2).encode())


def run_training(options: TrainOptions, report: Report) -> TrainResult:
    """Trains the stages asked for and returns where their weights are.

    Ctrl-C, SIGTERM and `max_minutes` end the run after the step at hand, saved; the result then says
    so. Raises a SrupError for unusable options, data, weights or disks, and DivergedError.
    """
    if options.stage not in (None, *STAGES):
        raise UsageError(f"--stage must be pixel, photo, gan or both, not {options.stage!r}")
    stopper = _Stopper(options.max_minutes)
    run = Run(resolve_folder(options))
    resumed = run.config if options.resume and run.config.exists() else None
    if options.resume:
        options = _recall_sources(options, run)
    config = resolve_config(options, resumed)
    names = STAGES[options.stage or "both"]
    _check_folder(run, names, options.resume)
    device = _device(options.device)
    if device.type == "cpu":
        memory.keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    results: list[StageResult] = []
    with stopper, parallel.group(device), contextlib.ExitStack() as held:
        # What can fail at once does so before anything is downloaded or decoded.
        if config.batch % parallel.world():
            raise UsageError(f"--batch {config.batch} cannot be shared equally by {parallel.world()} processes")
        for folder in [*options.data, *([options.val] if options.val else [])]:
            data.find_images([folder])  # a mistyped name is not worth a download
        sources.confirm_downloads(
            None if options.data else options.dataset or sources.DEFAULT_SET,
            config.gan.feature_net if "gan" in names and not options.feature_weights else "none",
            options.confirm,
        )
        features = _features(config, options) if "gan" in names else None
        teacher = teachers.load_teacher(options.teacher, options.device, options.offline) if options.teacher else None
        if teacher is None and config.gan.real != "originals" and "gan" in names:
            raise UsageError(f"gan.real = {config.gan.real!r} needs --teacher WEIGHTS")
        if names[0] != "pixel":
            _start(config, names[0], options, run)
        paths = _image_paths(options, report)
        material, skipped = _material(config, options, paths, report)
        run.about = _about(paths, teacher)
        if parallel.rank() == 0:
            held.enter_context(run.held())
            run.write_config(config)
            _record_sources(options, run)
        if teacher:
            patches = _teach(material.patches, teacher, report, stopper)
            if patches is None:
                return TrainResult(run.folder, [], skipped, parallel.from_first(stopper.reason))
            material = dataclasses.replace(material, patches=patches)
        parallel.from_first(None)
        for name in names:
            generator, parent, where = _start(config, name, options, run)
            if parallel.rank() == 0:
                report(Notice(f"{name} stage: {where}"))
            stage, steps = _stage(config, name, generator, device, features)
            results.append(core.train(name, stage, config, steps, material, run, report, stopper, parent))
            parallel.from_first(None)  # the next stage starts from what process 0 has written
            if not results[-1].complete:
                break
        reason = parallel.from_first(stopper.reason) if not results[-1].complete else None
    return TrainResult(run.folder, results, skipped, reason)


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
    """The engine's choice; torchrun's processes take a GPU each."""
    device = choose_device(name)
    if device.type == "cuda":
        index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def _check_folder(run: Run, names: list[str], resume: bool) -> None:
    there = [name for name in names if run.checkpoint(name).exists()]
    if there and not resume:
        raise OutputError(
            f"{run.folder} already holds a {there[0]} stage; add --resume to continue it, or choose another --out"
        )
    if resume and not run.config.exists() and not there:
        raise InputError(f"nothing to resume in {run.folder}; leave out --resume to start there")


def _features(config: TrainConfig, options: TrainOptions) -> FeatureLoss | None:
    if config.gan.feature_net == "none":
        return None
    net = feature_net(config.gan.feature_net, options.feature_weights, options.offline)
    if config.patch < net.min_side:
        raise UsageError(f"{config.gan.feature_net} needs --patch of at least {net.min_side}, not {config.patch}")
    return FeatureLoss(net, config.gan.feature_loss, config.gan.feature_relative)


def _image_paths(options: TrainOptions, report: Report) -> tuple[list[Path], list[Path]]:
    """The image files for training and for validation; one process downloads, the others find them."""
    if options.data:
        return sources.split(data.find_images(options.data), options.val)
    for turn in (True, False):
        if (parallel.rank() == 0) == turn:
            found = sources.set_images(options.dataset or sources.DEFAULT_SET, options.offline, report)
        parallel.from_first(None)
    return sources.split(found, options.val)


def _material(
    config: TrainConfig, options: TrainOptions, paths: tuple[list[Path], list[Path]], report: Report
) -> tuple[core.Material, int]:
    """Patches and validation crops, and the number of image files left out."""
    rank, world = parallel.rank(), parallel.world()
    cache = options.cache or sources.default_cache()

    def notice(message: str) -> None:
        if rank == 0:
            report(Notice(message))

    # One process decodes, the others find its files.
    for turn in (True, False):
        if (rank == 0) == turn:
            images, skipped = data.load_images(paths[0], cache, config.patch, notice, config.sizes)
            held_out, skipped_val = data.load_images(paths[1], cache, SMALLEST_CROP, notice)
        parallel.from_first(None)
    patches = data.PatchDataset(
        images, config.seed, config.batch, config.patch, config.min_detail, config.degrade, rank, world
    )
    workers = options.workers if options.workers is not None else min(8, max(1, (os.cpu_count() or 2) // world - 1))
    crops = validation.validation_crops(held_out, degrade=config.degrade)
    sizes = f" (at {len(config.sizes)} sizes)" if len(config.sizes) > 1 else ""
    notice(f"{len(images)} training images{sizes}, {len(held_out)} for validation, {skipped + skipped_val} skipped")
    return core.Material(patches, crops, workers), skipped + skipped_val


def _teach(
    patches: data.PatchDataset, teacher: Upscaler, report: Report, should_stop: Callable[[], bool]
) -> data.PatchDataset | None:
    """The same patches with the teacher's pictures; None if the run is to stop first."""
    taught = None
    for turn in (True, False):  # one process computes, the others find its files
        if (parallel.rank() == 0) == turn:

            def tell(done: int, total: int) -> None:
                report(Teaching(teacher.name, done, total))

            taught = teachers.teach(patches.images, teacher, tell, should_stop)
        if parallel.from_first(taught is None and turn):
            return None
    assert taught is not None
    return patches.with_images(taught)


def _start(config: TrainConfig, name: str, options: TrainOptions, run: Run) -> tuple[models.Generator, str | None, str]:
    """A stage's generator before its first step, the sha256 of the weights that it has, and where they are from."""
    generator = models.create(models.PRESETS[config.model])
    generator.reset_parameters(torch.Generator().manual_seed(config.seed))
    if run.checkpoint(name).exists():
        return generator, None, f"continuing {run.checkpoint(name)}"
    source = options.init
    if source is None or options.stage != name:
        trained = [run.best(parent) for parent in PARENTS.get(name, ()) if run.best(parent).exists()]
        source = next(iter(trained), source)
    if source is not None:
        load_generator(generator, source)
        return generator, storage.sha256_of_file(source), f"starting from {source}"
    if name == "pixel" or options.stage not in PARENTS:
        return generator, None, "starting from fresh weights"
    try:
        loaded = weights.load(f"{config.model}:pixel", offline=options.offline)
    except WeightsError as error:
        raise WeightsError(f"no pixel-stage weights to start from: {error}; name some with --init FILE") from None
    return loaded.generator, loaded.sha256, f"starting from {config.model}:pixel"


def _stage(
    config: TrainConfig,
    name: str,
    generator: models.Generator,
    device: torch.device,
    features: FeatureLoss | None,
) -> tuple[stages.Stage, int]:
    if name != "gan":
        return stages.PixelStage(config, generator, device), config.pixel.steps
    return stages.GanStage(config, generator, device, features), config.gan.steps


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


def _about(paths: tuple[list[Path], list[Path]], teacher: Upscaler | None) -> dict[str, Any]:
    """What a model card says of a run; folders by their names alone, as weights are published."""
    taught = {"teacher": teacher.name, "teacher_sha256": teacher.weights_sha256} if teacher else {}
    return {
        **taught,
        "data": sorted({path.parent.name for path in paths[0]}),
        "images": len(paths[0]),
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
