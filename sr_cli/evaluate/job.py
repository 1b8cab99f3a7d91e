"""The job: resolves what is asked for, runs each data set through the pipeline, and sums up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sr_cli import __version__, datasets, inference, storage
from sr_cli.errors import UsageError
from sr_cli.evaluate import crops, perception
from sr_cli.evaluate.journal import Journal
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.pipeline import Contestant, Pipeline, Record
from sr_cli.evaluate.results import Evaluation, ImageScores, ModelScores
from sr_cli.evaluate.scores import Perception
from sr_cli.weights.loading import is_path
from sr_cli.weights.manifest import read_manifest

TIMED_SIDE = 128
"""Side, in LR pixels, of the picture whose upscaling a report times."""
_TIMED_RUNS = 3


@dataclass(frozen=True)
class EvalEvent:
    """Something that happened."""

    kind: str
    """`note`, `download` (of `text`, `done` of `total` bytes), `image` (`done` of `total`, its scores) or `resumed`."""
    text: str = ""
    """What people read."""
    done: int = 0
    """How far."""
    total: int | None = None
    """Of how much."""
    dataset: str | None = None
    """The data set of an image."""
    scores: Mapping[str, ImageScores] = field(default_factory=dict)
    """An image's scores by model."""


Report = Callable[[EvalEvent], None]


def run(options: EvalOptions, report: Report) -> Evaluation:
    """Measures every model on every image.

    Raises InputError for a folder or set that is not there or holds no image, WeightsError for a model that
    cannot be had, UsageError for a device; all before the first image. What goes wrong with one image is in
    its scores.
    """
    contestants = _contestants(options)  # before the sets: a misspelt model need not wait for a download
    sets = _sets(options, report)
    if options.for_report:
        contestants = [replace(contestant, milliseconds=_time(contestant.upscaler)) for contestant in contestants]
    found = perception.find(
        options.metrics,
        options.niqe_parameters,
        options.nrqm_model,
        offline=options.offline,
        note=lambda text: report(EvalEvent("note", text)),
    )
    journal = Journal(storage.cache_folder() / "eval", _depends_on(options, sets, contestants, found), options.fresh)
    records = _resumed(journal)
    if records:
        report(EvalEvent("resumed", f"{len(records)} images were measured before the run was interrupted"))
    total = sum(len(dataset.pairs) for dataset in sets)
    try:
        for dataset in sets:
            todo = [pair for pair in dataset.pairs if (dataset.name, pair.name) not in records]
            for pair, record in Pipeline(options, contestants, found, dataset).run(todo):
                records[dataset.name, pair.name] = record
                if all(image.error is None for image in record.scores.values()):
                    journal.add(_to_line(dataset.name, pair.name, record))
                report(EvalEvent("image", pair.name, len(records), total, dataset.name, record.scores))
    except KeyboardInterrupt:
        report(EvalEvent("note", f"{len(records)} of {total} images are measured; the same command goes on from there"))
        raise
    evaluation = _evaluation(options, sets, contestants, records)
    journal.remove()
    return evaluation


def _sets(options: EvalOptions, report: Report) -> list[datasets.Dataset]:
    def progress(file: str, done: int, total: int | None) -> None:
        report(EvalEvent("download", file, done, total))

    cache = storage.cache_folder() / "datasets"
    found = [datasets.from_folder(folder) for folder in options.data]
    for name in dict.fromkeys(options.datasets):
        found.append(datasets.named(name, cache, offline=options.offline, progress=progress))
    names = [dataset.name for dataset in found]
    for i, folder in enumerate(options.data):
        if names.count(names[i]) > 1:
            found[i] = replace(found[i], name=str(folder))
    if not options.convention.uses_shipped_lr:
        found = [_without_lr(dataset) for dataset in found]
    return found


def _without_lr(dataset: datasets.Dataset) -> datasets.Dataset:
    """The same images with LR to be made from them; a missing partner is then no problem."""
    pairs = [
        replace(pair, lr=None, problem=None if pair.problem == datasets.NO_LR else pair.problem)
        for pair in dataset.pairs
        if pair.hr
    ]
    return replace(dataset, pairs=tuple(pairs), lr="made")


def bundled_models() -> tuple[str, ...]:
    """The models whose default weights come with the package or are the user's own files."""
    entries = read_manifest().models.values()
    return tuple(
        entry.name for entry in entries if entry.default_stage and entry.path(entry.stages[entry.default_stage])
    )


def _contestants(options: EvalOptions) -> list[Contestant]:
    specs = list(dict.fromkeys(options.models)) or list(bundled_models())
    if not specs:
        raise UsageError("no model comes with this installation; name some with -m (bicubic is always there)")
    names = [Path(spec).stem if is_path(spec) else spec for spec in specs]
    contestants = []
    for spec, name in zip(specs, names, strict=True):
        plain = spec in inference.INTERPOLATIONS
        upscaler = inference.Upscaler(
            spec,
            device=options.device,
            precision=options.precision,
            fidelity=None if plain else options.fidelity,
            ensemble=options.ensemble,
            offline=options.offline,
        )
        name = spec if names.count(name) > 1 else name
        contestants.append(Contestant(name, upscaler))
    return contestants


def _time(upscaler: inference.Upscaler) -> float:
    """Median milliseconds to upscale a picture of 128x128 pixels, after one to warm up."""
    pixels = np.random.default_rng(0).integers(0, 256, (TIMED_SIDE, TIMED_SIDE, 3), dtype=np.uint8)
    upscaler.upscale(pixels)
    times = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        upscaler.upscale(pixels)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _depends_on(
    options: EvalOptions, sets: Sequence[datasets.Dataset], contestants: Sequence[Contestant], found: Perception
) -> dict[str, Any]:
    """Everything that an image's results depend on."""

    def state(path: Path | None) -> tuple[str, int, int] | None:
        return None if path is None else (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)

    return {
        "version": __version__,
        "protocol": options.convention.name,
        "metrics": options.metrics,
        "available": [found.niqe is not None, found.nrqm is not None],
        "fidelity": options.fidelity,
        "ensemble": options.ensemble,
        "save_images": options.save_images and options.save_images.resolve(),
        "for_report": options.for_report,
        "models": [
            (c.name, c.upscaler.weights_sha256, c.upscaler.device_name, c.upscaler.precision) for c in contestants
        ],
        "images": [(d.name, p.name, state(p.hr), state(p.lr)) for d in sets for p in d.pairs],
    }


def _to_line(dataset: str, image: str, record: Record) -> dict[str, Any]:
    scores = {name: vars(scores) for name, scores in record.scores.items()}
    return {"dataset": dataset, "image": image, "scores": scores, "crop": record.crop and record.crop.to_dict()}


def _resumed(journal: Journal) -> dict[tuple[str, str], Record]:
    return {
        key: Record(
            {name: ImageScores(**scores) for name, scores in line["scores"].items()},
            crops.Crop(**line["crop"]) if line["crop"] else None,
        )
        for key, line in journal.records.items()
    }


def _evaluation(
    options: EvalOptions,
    sets: Sequence[datasets.Dataset],
    contestants: Sequence[Contestant],
    records: Mapping[tuple[str, str], Record],
) -> Evaluation:
    results = [
        _summary(
            contestant,
            dataset,
            options.metrics,
            tuple(records[dataset.name, pair.name].scores[contestant.name] for pair in dataset.pairs),
        )
        for dataset in sets
        for contestant in contestants
    ]
    networks = [c.upscaler for c in contestants if c.upscaler.weights_sha256]
    first = networks[0] if networks else contestants[0].upscaler
    return Evaluation(
        options.convention,
        options.metrics,
        first.device_name,
        first.precision,
        tuple(results),
        options.against,
        options.fidelity,
        options.ensemble,
        {key: record.crop for key, record in records.items() if record.crop},
    )


def _summary(
    contestant: Contestant, dataset: datasets.Dataset, metrics: Sequence[str], scores: tuple[ImageScores, ...]
) -> ModelScores:
    measured = [image for image in scores if image.error is None]
    means: dict[str, float | None] = {}
    unavailable: dict[str, str] = {}
    for name in metrics:
        values = [value for image in measured if (value := image.metrics[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
        lacking = [image for image in measured if name in image.unavailable]
        if lacking:
            reasons = {image.unavailable[name] for image in lacking}
            names = ", ".join(image.name for image in lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            unavailable[name] = (
                reasons.pop()
                if len(lacking) == len(measured) and len(reasons) == 1
                else (f"{names}: {lacking[0].unavailable[name]}")
            )
        elif not measured:
            unavailable[name] = "no image could be measured"
    return ModelScores(
        contestant.name,
        dataset.name,
        dataset.lr,
        means,
        unavailable,
        scores,
        contestant.upscaler.stage,
        contestant.upscaler.weights_sha256,
        contestant.milliseconds,
    )
