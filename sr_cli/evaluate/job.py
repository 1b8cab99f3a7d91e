"""The job: resolves what is asked for, runs each data set through the pipeline, and sums up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from sr_cli import __version__, datasets, storage
from sr_cli.evaluate import learned, methods
from sr_cli.evaluate.journal import Journal
from sr_cli.evaluate.learned import LearnedMetrics
from sr_cli.evaluate.methods import Method
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.pipeline import Pipeline, Record
from sr_cli.evaluate.protocols import PROTOCOLS
from sr_cli.evaluate.results import Evaluation, ImageScores, ModelScores


@dataclass(frozen=True)
class EvalEvent:
    """Something that happened."""

    kind: str
    """`note`, `download` (of `text`, `done` of `total` bytes), `image` (`done` of `total`, its scores) or `resumed`."""
    text: str = ""  #: Text for people.
    done: int = 0  #: How far.
    total: int | None = None  #: Of how much.
    dataset: str | None = None  #: The data set of an image.
    scores: Mapping[str, ImageScores] = field(default_factory=dict)  #: An image's scores by model.


OnEvent = Callable[[EvalEvent], None]


def run(options: EvalOptions, on_event: OnEvent) -> Evaluation:
    """Measure every model on every image.

    Raises InputError for a folder or set that is not there or holds no image, WeightsError for a model that
    is not available, UsageError for a device; all before the first image. The failure of one image is in
    its scores.
    """
    compared = methods.load(options)  # before the sets: a misspelt model need not wait for a download
    sets = _sets(options, on_event)
    if options.for_report:
        compared = [method.timed() for method in compared]

    def note(text: str) -> None:
        on_event(EvalEvent("note", text))

    found = learned.load(options.metrics, options.files, offline=options.offline, note=note)
    journal = Journal(storage.cache_folder() / "eval", _depends_on(options, sets, compared, found), options.fresh)
    records = {key: msgspec.convert(line, Record) for key, line in journal.records.items()}
    if records:
        on_event(EvalEvent("resumed", f"{len(records)} images were measured before the run was interrupted"))
    total = sum(len(dataset.pairs) for dataset in sets)
    try:
        for dataset in sets:
            todo = [pair for pair in dataset.pairs if (dataset.name, pair.name) not in records]
            for pair, record in Pipeline(options, compared, found, dataset).run(todo):
                records[dataset.name, pair.name] = record
                if all(image.error is None for image in record.scores.values()):
                    journal.append({"dataset": dataset.name, "image": pair.name, **asdict(record)})
                on_event(EvalEvent("image", pair.name, len(records), total, dataset.name, record.scores))
    except KeyboardInterrupt:
        note(f"{len(records)} of {total} images are measured; run the same command again to resume")
        raise
    evaluation = _evaluation(options, sets, compared, records)
    journal.remove()
    return evaluation


def _sets(options: EvalOptions, on_event: OnEvent) -> list[datasets.Dataset]:
    def progress(file: str, done: int, total: int | None) -> None:
        on_event(EvalEvent("download", file, done, total))

    cache = storage.cache_folder() / "datasets"
    found = [datasets.from_folder(folder) for folder in options.data]
    for name in dict.fromkeys(options.datasets):
        found.append(datasets.named(name, cache, offline=options.offline, progress=progress))
    names = [dataset.name for dataset in found]
    for i, folder in enumerate(options.data):
        if names.count(names[i]) > 1:
            found[i] = replace(found[i], name=str(folder))
    if options.convention.fixed_input or options.low_resolution.degrade != "none":
        found = [_without_lr(dataset) for dataset in found]
    return found


def _without_lr(dataset: datasets.Dataset) -> datasets.Dataset:
    """Return the same images with LR to be made from them; a missing partner is then no problem."""
    pairs = [
        replace(pair, lr=None, problem=None if pair.problem == datasets.NO_LR else pair.problem)
        for pair in dataset.pairs
        if pair.hr
    ]
    return replace(dataset, pairs=tuple(pairs), lr="made")


def _depends_on(
    options: EvalOptions, sets: Sequence[datasets.Dataset], compared: Sequence[Method], found: LearnedMetrics
) -> dict[str, Any]:
    """Return everything that an image's results depend on."""

    def state(path: Path | None) -> tuple[str, int, int] | None:
        return None if path is None else (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)

    return {
        "version": __version__,
        "protocol": options.convention.name,
        "metrics": options.metrics,
        "available": sorted(found.measures),
        "files": [state(path) for path in vars(options.files.resolved()).values()],
        "lr": vars(options.low_resolution),
        "fidelity": options.fidelity,
        "ensemble": options.ensemble,
        "save_images": options.save_images and options.save_images.resolve(),
        "for_report": options.for_report,
        "models": [(m.name, m.upscaler.weights_sha256, m.upscaler.device_name, m.upscaler.precision) for m in compared],
        "images": [(d.name, p.name, state(p.hr), state(p.lr)) for d in sets for p in d.pairs],
    }


def _evaluation(
    options: EvalOptions,
    sets: Sequence[datasets.Dataset],
    compared: Sequence[Method],
    records: Mapping[tuple[str, str], Record],
) -> Evaluation:
    results = [
        _summary(
            method,
            dataset,
            options.metrics,
            tuple(records[dataset.name, pair.name].scores[method.name] for pair in dataset.pairs),
        )
        for dataset in sets
        for method in compared
    ]
    networks = [method.upscaler for method in compared if method.upscaler.weights_sha256]
    first = networks[0] if networks else compared[0].upscaler
    return Evaluation(
        options.convention,
        options.metrics,
        first.device_name,
        first.precision,
        tuple(results),
        PROTOCOLS[options.against].published if options.against else None,
        options.fidelity,
        options.ensemble,
        {key: record.crop for key, record in records.items() if record.crop},
        options.low_resolution,
    )


def _summary(
    method: Method, dataset: datasets.Dataset, metrics: Sequence[str], scores: tuple[ImageScores, ...]
) -> ModelScores:
    measured = [image for image in scores if image.error is None]
    means: dict[str, float | None] = {}
    unavailable: dict[str, str] = {}
    for name in metrics:
        values = [value for image in measured if (value := image.metrics[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
        lacking = [image for image in measured if name in image.unavailable]
        reasons = {image.unavailable[name] for image in lacking}
        if not measured:
            unavailable[name] = "no image could be measured"
        elif len(reasons) == 1 and len(lacking) == len(measured):
            unavailable[name] = reasons.pop()
        elif lacking:
            names = ", ".join(image.name for image in lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            unavailable[name] = f"{names}: {lacking[0].unavailable[name]}"
    return ModelScores(
        method.name,
        dataset.name,
        dataset.lr,
        means,
        unavailable,
        scores,
        method.upscaler.stage,
        method.upscaler.weights_sha256,
        method.milliseconds,
        method.multiplications,
    )
