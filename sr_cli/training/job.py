"""`run_training`: from options to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import torch

import sr_cli
from sr_cli import models, storage, weights
from sr_cli.errors import InputError, OutputError, UsageError, WeightsError, reason_of
from sr_cli.inference import Upscaler, choose_device, memory
from sr_cli.metrics.features import NETS, FeatureLoss, FeatureNet, feature_net
from sr_cli.models.mesrgan import MesrganConfig, with_light_upsampler
from sr_cli.training import data, parallel, sources, stages, teachers, validation
from sr_cli.training.config import TrainConfig, override, read_toml
from sr_cli.training.data import CachedImage, PatchDataset, PatchDrawing
from sr_cli.training.events import Notice, OnEvent, Teaching, TrainResult
from sr_cli.training.interruption import Interruption
from sr_cli.training.options import TrainOptions
from sr_cli.training.recipes import RECIPES
from sr_cli.training.run import Run
from sr_cli.training.trainer import Trainer, TrainingData
from sr_cli.weights.loading import read_file

STAGES = {"pixel": ["pixel"], "photo": ["photo"], "gan": ["gan"], "both": ["pixel", "gan"]}
PARENTS = {"photo": ("pixel",), "gan": ("photo", "pixel")}
"""Stages of the same run whose best weights a stage starts from, the first that is there; else `NAME:pixel`."""
SMALLEST_CROP = 64  #: Validation images of fewer pixels a side are skipped.


def resolve_folder(options: TrainOptions) -> Path:
    """Return the run's folder: the one asked for, or one named after the model."""
    if options.out:
        return options.out
    model = options.model or (read_toml(options.config).get("model") if options.config else None)
    return Path("runs") / str(model or TrainConfig().model)


def resolve_config(options: TrainOptions, resumed: Path | None = None) -> TrainConfig:
    """Merge recipe, or the configuration of the run that is resumed, then the TOML file, then the flags.

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
        pixel["feature_net"] = gan["feature_net"] = options.feature_net
    if options.stage == "photo":
        if options.degrade == "none":
            raise UsageError("--stage photo trains on degraded inputs; omit --degrade, or use --stage pixel")
        flags["degrade"] = "photo"
    config = override(config, {**flags, "pixel": pixel, "gan": gan})
    if config.model not in models.PRESETS:
        raise UsageError(f"unknown model {config.model!r}; known: {', '.join(models.PRESETS)}")
    return config


_WORDS, _PATHS = ("stage", "dataset", "teacher"), ("val", "init", "feature_weights")


def _recall_sources(options: TrainOptions, run: Run) -> TrainOptions:
    """Fill in what is not given from the run that is resumed."""
    if not run.sources.exists():
        return options
    try:
        known = json.loads(run.sources.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {run.sources}: {reason_of(error)}") from None
    recalled: dict[str, Any] = {name: known[name] for name in _WORDS if known.get(name)}
    recalled |= {name: Path(known[name]) for name in _PATHS if known.get(name)}
    recalled["data"] = tuple(map(Path, known.get("data", ())))
    return dataclasses.replace(options, **{k: v for k, v in recalled.items() if not getattr(options, k)})


def _record_sources(options: TrainOptions, run: Run) -> None:
    known: dict[str, Any] = {"data": [str(path.absolute()) for path in options.data]}
    known |= {name: getattr(options, name) for name in _WORDS}
    known |= {name: str(path.absolute()) for name in _PATHS if (path := getattr(options, name))}
    storage.write_file(run.sources, json.dumps(known, indent=2).encode())


def run_training(options: TrainOptions, on_event: OnEvent) -> TrainResult:
    """Train the stages asked for and return where their weights are.

    Ctrl-C, SIGTERM and `max_minutes` end the run after the step at hand, saved; the result then says
    so. Raises a SrupError for unusable options, data, weights or disks, and DivergedError.
    """
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
    with Interruption(options.max_minutes) as interruption, parallel.group(device), contextlib.ExitStack() as held:
        setup = _RunSetup(options, config, run, names)
        if parallel.rank() == 0:
            held.enter_context(run.held())
            run.write_config(config)
            _record_sources(options, run)
        training_data, skipped = setup.data(_from_process_0(on_event), interruption)
        parallel.from_first(None)
        results = []
        if training_data:
            trainer = Trainer(config, training_data, run, on_event)
            for name in names:
                stage, parent = setup.stage(name, device, _from_process_0(on_event))
                results.append(trainer.train(stage, interruption, parent))
                parallel.from_first(None)  # the next stage starts from what process 0 has written
                if not results[-1].complete:
                    break
        complete = bool(results) and results[-1].complete
        reason = None if complete else parallel.from_first(interruption.reason)
    return TrainResult(run.folder, results, skipped, reason)


def _from_process_0(on_event: OnEvent) -> OnEvent:
    """Let, of several processes, only the first one speak."""
    return on_event if parallel.rank() == 0 else lambda _: None


class _RunSetup:
    """Everything a run needs except its data. Checks fail here, before anything large is downloaded."""

    def __init__(self, options: TrainOptions, config: TrainConfig, run: Run, names: list[str]) -> None:
        self.options, self.config, self.run = options, config, run
        if config.batch % parallel.world():
            raise UsageError(f"--batch {config.batch} cannot be shared equally by {parallel.world()} processes")
        if config.taught_inputs and (config.degrade == "none" or not options.teacher):
            needed = "--degrade photo" if config.degrade == "none" else "--teacher WEIGHTS"
            raise UsageError(f"taught_inputs = {config.taught_inputs} needs {needed}")
        stages.check_patches(config, names, config.batch // parallel.world())
        for folder in [*options.data, *([options.val] if options.val else [])]:
            data.find_images([folder])  # a mistyped name is not worth a download
        nets = {own.feature_net for own in map(config.of, names) if own.compares_features}
        sources.confirm_downloads(
            None if options.data else options.dataset or sources.DEFAULT_SET,
            () if options.feature_weights else sorted(nets),
            options.confirm,
        )
        self.features = _features(config, names, options)
        self.teacher: Upscaler | None = None
        if options.teacher:
            self.teacher = teachers.load_teacher(options.teacher, options.device, options.offline)
        elif "gan" in names and config.gan.real != "originals":
            raise UsageError(f"gan.real = {config.gan.real!r} needs --teacher WEIGHTS")
        if names[0] != "pixel":
            self._start(names[0])

    def data(self, on_event: OnEvent, interruption: Interruption) -> tuple[TrainingData | None, int]:
        """Give patches and validation crops, and the number of files skipped; None if interrupted before."""
        config, options = self.config, self.options
        training, validating = _image_paths(options, on_event)
        self.run.about = _about(training, self.teacher)
        cache = options.cache or sources.default_cache()

        def load() -> tuple[list[CachedImage], list[CachedImage], int]:
            def skip(message: str) -> None:
                on_event(Notice(message))

            images, skipped = data.load_images(training, cache, config.patch, skip, config.sizes)
            held_out, skipped_too = data.load_images(validating, cache, SMALLEST_CROP, skip)
            return images, held_out, skipped + skipped_too

        images, held_out, skipped = parallel.first_then_others(load)
        sizes = f" (at {len(config.sizes)} sizes)" if len(config.sizes) > 1 else ""
        on_event(Notice(f"{len(images)} training photos{sizes}, {len(held_out)} for validation, {skipped} skipped"))
        if self.teacher:
            teacher, copies = self.teacher, config.taught_inputs
            total = len(images) * (copies or 1)

            def progress(done: int) -> None:
                on_event(Teaching(teacher.name, done, total))

            def teach() -> list[CachedImage] | None:
                shown = data.degraded_images(images, copies, config.seed) if copies else images
                return teachers.teach(shown, teacher, progress, should_stop=interruption)

            taught = parallel.first_then_others(teach, go_on=lambda taught: taught is not None)
            if taught is None:
                return None, skipped
            images = taught
        degrade = "none" if config.taught_inputs else config.degrade  # they are degraded already
        drawing = PatchDrawing(config.seed, config.batch, config.patch, config.min_detail, degrade)
        patches = PatchDataset(images, drawing, parallel.rank(), parallel.world())
        crops = validation.validation_crops(held_out, degrade=config.degrade)
        return TrainingData(patches, crops, _workers(options)), skipped

    def stage(self, name: str, device: torch.device, on_event: OnEvent) -> tuple[stages.Stage, str | None]:
        """Give a stage before its first step, and the sha256 of the weights that it starts from."""
        generator, parent, where = self._start(name)
        on_event(Notice(f"{name} stage: {where}"))
        if name == "gan":
            return stages.GanStage(self.config, generator, device, self.features[name]), parent
        return stages.PixelStage(name, self.config, generator, device, self.features[name]), parent

    def _start(self, name: str) -> tuple[models.Generator, str | None, str]:
        """Build a stage's generator; return it, the sha256 of the weights that it has, and where they are from."""
        config, options, run = self.config, self.options, self.run
        generator = models.create(models.PRESETS[config.model])
        generator.reset_parameters(torch.Generator().manual_seed(config.seed))
        if run.checkpoint(name).exists():
            return generator, None, f"continuing {run.checkpoint(name)}"
        source = options.init
        if source is None or options.stage != name:
            trained = [run.best(parent) for parent in PARENTS.get(name, ()) if run.best(parent).exists()]
            source = next(iter(trained), source)
        if source is not None:
            return generator, start_from(generator, source), f"starting from {source}"
        if name == "pixel" or options.stage not in PARENTS:
            return generator, None, "starting from fresh weights"
        try:
            loaded = weights.load(f"{config.model}:pixel", offline=options.offline)
        except WeightsError as error:
            raise WeightsError(f"no pixel-stage weights to start from: {error}; name some with --init FILE") from None
        generator.load_state_dict(loaded.generator.state_dict())
        return generator, loaded.sha256, f"starting from {config.model}:pixel"


def _device(name: str) -> torch.device:
    """Return the engine's choice; torchrun's processes take a GPU each."""
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
        raise InputError(f"nothing to resume in {run.folder}; omit --resume to start there")


def _features(config: TrainConfig, names: list[str], options: TrainOptions) -> dict[str, FeatureLoss | None]:
    """Build each stage's feature loss, None where it has none; stages with the same network share it."""
    nets: dict[str, FeatureNet] = {}
    losses: dict[str, FeatureLoss | None] = dict.fromkeys(names)
    for stage in names:
        own = config.of(stage)
        if not own.compares_features:
            continue
        name = own.feature_net
        least = math.ceil(NETS[name].min_side / min(own.feature_sizes))
        if config.patch < least:
            raise UsageError(f"{name} needs --patch of at least {least}, not {config.patch}")
        if own.texture_weight and not NETS[name].texture_windows:
            raise UsageError(f"texture_weight needs --feature-net squeezenet1_1, not {name}")
        if name not in nets:
            nets[name] = feature_net(name, options.feature_weights, options.offline)
        losses[stage] = FeatureLoss(
            nets[name], own.feature_loss, own.feature_relative, own.feature_sizes, own.feature_sizes_drawn
        )
    return losses


def _image_paths(options: TrainOptions, on_event: OnEvent) -> tuple[list[Path], list[Path]]:
    """Find the image files for training and for validation; one process downloads, the others find them."""
    if options.data:
        return sources.split(data.find_images(options.data), options.val)
    name = options.dataset or sources.DEFAULT_SET
    found = parallel.first_then_others(lambda: sources.set_images(name, options.offline, on_event))
    return sources.split(found, options.val)


def _workers(options: TrainOptions) -> int:
    """Choose how many processes draw patches: as asked for, else as many as there are cores to spare, at most 16."""
    if options.workers is not None:
        return options.workers
    return min(16, max(1, (os.cpu_count() or 2) // parallel.world() - 2))


def start_from(generator: models.Generator, path: Path) -> str | None:
    """Give a generator the weights of a file, or the averaged ones of a checkpoint; return the file's sha256.

    MESRGAN's first light upsampler is carried over into the present one. Raises WeightsError when the file is
    missing, damaged or of another network.
    """
    loaded, _ = read_file(path)
    tensors, config = loaded.generator.state_dict(), loaded.generator.config
    if isinstance(config, MesrganConfig) and config.upsampler == "single":
        tensors, config = with_light_upsampler(tensors), dataclasses.replace(config, upsampler="light")
    if config != generator.config:
        raise WeightsError(f"{path} is of another network: {config}, not {generator.config}")
    generator.load_state_dict(tensors)
    return loaded.sha256


def _about(paths: list[Path], teacher: Upscaler | None) -> dict[str, Any]:
    """Collect what a model card says of a run; folders by their names alone, as weights are published."""
    taught = {"teacher": teacher.name, "teacher_sha256": teacher.weights_sha256} if teacher else {}
    return {
        **taught,
        "data": sorted({path.parent.name for path in paths}),
        "images": len(paths),
        "srup": sr_cli.__version__,
        "torch": torch.__version__,
        "commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Find the commit of a source checkout; None in an installed package."""
    try:
        source = Path(sr_cli.__file__).parent
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
