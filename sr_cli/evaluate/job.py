"""The job: read, upscale and score in a pipeline; every image's failure stays its own."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_cli import __version__, datasets, engine, images
from sr_cli.errors import OutOfMemory, SrupError, UsageError
from sr_cli.evaluate import crops, perception, poster
from sr_cli.evaluate.journal import Journal
from sr_cli.evaluate.scores import DEFAULT_METRICS, METRICS, PROTOCOLS, Perception, Pixels, Protocol, score, to_bytes
from sr_cli.weights.loading import is_path
from sr_cli.weights.manifest import home, read_manifest

_READ_AHEAD = 2
TIMED_SIDE = 128
"""Side, in LR pixels, of the picture whose upscaling a report times."""
_TIMED_RUNS = 3


@dataclass(frozen=True)
class EvalOptions:
    """What to measure, and how. Raises UsageError for what contradicts itself."""

    models: tuple[str, ...] = ()
    """Names, paths, `bicubic`, `lanczos`; empty: every bundled model."""
    data: tuple[Path, ...] = ()
    """Folders of images."""
    datasets: tuple[str, ...] = ()
    """Published sets by name."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """What to compute; see `METRICS`."""
    protocol: str | None = None
    """`standard` or `poster`; None: `poster` if compared with it, else `standard`."""
    against: str | None = None
    """`poster`: put the poster's Table 1 beside the results."""
    fidelity: float | None = None
    """0 to 1: weights between a model's GAN and pixel stages; None: the stage's own."""
    ensemble: bool = False
    """Average the results of the eight flips and rotations."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`."""
    save_images: Path | None = None
    """Folder for the outputs, as PNG: DATASET/MODEL/NAME.png."""
    for_report: bool = False
    """Also time each model, and keep a crop of each image."""
    niqe_parameters: Path | None = None
    """NIQE's parameters; None: from the environment, the cache or the Hub."""
    nrqm_model: Path | None = None
    """NRQM's model; None: from the environment, the cache or the Hub."""
    offline: bool = False
    """Never touch the network."""
    fresh: bool = False
    """Forget the results of an interrupted run."""

    def __post_init__(self) -> None:
        if not self.data and not self.datasets:
            raise UsageError(f"say what to measure on: --dataset NAME ({', '.join(datasets.NAMED)}) or --data FOLDER")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise UsageError(f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}")
        if unknown := [name for name in self.datasets if name not in datasets.NAMED]:
            raise UsageError(f"unknown data set {unknown[0]!r}; known: {', '.join(datasets.NAMED)}")
        if self.protocol not in (None, *PROTOCOLS):
            raise UsageError(f"unknown protocol {self.protocol!r}; use {' or '.join(PROTOCOLS)}")
        if self.against not in (None, "poster"):
            raise UsageError(f"--against knows only the poster, not {self.against!r}")
        if self.against and self.protocol == "standard":
            raise UsageError("the poster measured by other conventions: use --against poster with --protocol poster")

    @property
    def convention(self) -> Protocol:
        """The protocol that these options ask for."""
        return PROTOCOLS[self.protocol or self.against or "standard"]


@dataclass(frozen=True)
class ImageScores:
    """One model's scores on one image."""

    name: str
    """The image."""
    metrics: Mapping[str, float | None]
    """By name; None where the metric cannot be computed."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """For each None, why."""
    error: str | None = None
    """Why the image could not be measured at all."""
    exit_code: int = 0
    """The exit code of that failure."""


@dataclass(frozen=True)
class ModelScores:
    """One model's scores on one data set."""

    model: str
    """As it was asked for; a path's stem."""
    dataset: str
    """Name of the set, or of the folder."""
    lr: str
    """Where LR came from: `shipped` with the set, or `made` from HR."""
    metrics: Mapping[str, float | None]
    """Means over the images that have a value; None where none has."""
    unavailable: Mapping[str, str]
    """For a metric that some image lacks, why."""
    images: tuple[ImageScores, ...]
    """In the order of their names, those that failed among them."""
    stage: str | None = None
    """The weights' stage."""
    weights_sha256: str | None = None
    """The weights' checksum."""
    milliseconds: float | None = None
    """Median time to upscale 128x128 pixels, where it was measured."""

    @property
    def measured(self) -> int:
        """Images that could be measured."""
        return sum(image.error is None for image in self.images)

    @property
    def counted(self) -> str:
        """How many images, for people."""
        images = "image" if len(self.images) == 1 else "images"
        return f"{len(self.images)} {images}" + (
            "" if self.measured == len(self.images) else f", {self.measured} of them measured"
        )


@dataclass(frozen=True)
class Evaluation:
    """What a run found."""

    protocol: Protocol
    """The convention."""
    metrics: tuple[str, ...]
    """What was asked for."""
    device: str
    """What the networks ran on."""
    precision: str
    """What they computed in."""
    results: tuple[ModelScores, ...]
    """Data set by data set, model by model."""
    against: str | None = None
    """What they are compared with."""
    fidelity: float | None = None
    """The blend of GAN and pixel weights, where one was asked for."""
    ensemble: bool = False
    """Whether flips and rotations were averaged."""
    crops: Mapping[tuple[str, str], crops.Crop] = field(default_factory=dict)
    """By data set and image, for a report."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that tables show: those that have a value somewhere, or all if none has."""
        rows = [result.metrics for result in self.results] + list(poster.SCORES.values() if self.against else ())
        found = tuple(name for name in self.metrics if any(row.get(name) is not None for row in rows))
        return found or self.metrics

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        document: dict[str, Any] = {
            "protocol": self.protocol.name,
            "convention": self.protocol.description,
            "device": self.device,
            "precision": self.precision,
            "version": __version__,
            **({} if self.fidelity is None else {"fidelity": self.fidelity}),
            **({"ensemble": True} if self.ensemble else {}),
            "results": [_model_dict(result) for result in self.results],
        }
        if self.against:
            document["against"] = poster.to_dict()
        return document


def _model_dict(result: ModelScores) -> dict[str, Any]:
    return {
        "model": result.model,
        "dataset": result.dataset,
        "lr": result.lr,
        "stage": result.stage,
        "weights_sha256": result.weights_sha256,
        "metrics": dict(result.metrics),
        "unavailable": dict(result.unavailable),
        "measured": result.measured,
        "failed": [{"name": image.name, "error": image.error} for image in result.images if image.error],
        **({} if result.milliseconds is None else {"milliseconds_128": round(result.milliseconds, 2)}),
        "images": [image_dict(image) for image in result.images],
    }


def image_dict(image: ImageScores) -> dict[str, Any]:
    """One image's scores as plain values; empty parts are left out."""
    return {
        "name": image.name,
        "metrics": dict(image.metrics),
        **({"unavailable": dict(image.unavailable)} if image.unavailable else {}),
        **({"error": image.error} if image.error else {}),
    }


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


@dataclass(frozen=True)
class _Contestant:
    name: str
    upscaler: engine.Upscaler
    milliseconds: float | None = None


@dataclass(frozen=True)
class _Record:
    """All models' scores on one image, and its crop."""

    scores: Mapping[str, ImageScores]
    crop: crops.Crop | None = None


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
    journal = Journal(home() / "eval", _depends_on(options, sets, contestants, found), options.fresh)
    records = _resumed(journal)
    if records:
        report(EvalEvent("resumed", f"{len(records)} images were measured before the run was interrupted"))
    total = sum(len(dataset.pairs) for dataset in sets)
    try:
        for dataset in sets:
            todo = [pair for pair in dataset.pairs if (dataset.name, pair.name) not in records]
            for pair, record in _Pipeline(options, contestants, found, dataset).run(todo):
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


def exit_code(evaluation: Evaluation) -> int:
    """0 if every image was measured; the failures' common code if all failed alike; else 1."""
    scores = [image for result in evaluation.results for image in result.images]
    codes = {image.exit_code for image in scores if image.error}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 and all(image.error for image in scores) else 1


def _sets(options: EvalOptions, report: Report) -> list[datasets.Dataset]:
    def progress(file: str, done: int, total: int | None) -> None:
        report(EvalEvent("download", file, done, total))

    found = [datasets.from_folder(folder) for folder in options.data]
    for name in dict.fromkeys(options.datasets):
        found.append(datasets.named(name, home() / "datasets", offline=options.offline, progress=progress))
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


def _contestants(options: EvalOptions) -> list[_Contestant]:
    specs = list(dict.fromkeys(options.models)) or list(bundled_models())
    if not specs:
        raise UsageError("no model comes with this installation; name some with -m (bicubic is always there)")
    names = [Path(spec).stem if is_path(spec) else spec for spec in specs]
    contestants = []
    for spec, name in zip(specs, names, strict=True):
        plain = spec in engine.INTERPOLATIONS
        upscaler = engine.Upscaler(
            spec,
            device=options.device,
            precision=options.precision,
            fidelity=None if plain else options.fidelity,
            ensemble=options.ensemble,
            offline=options.offline,
        )
        name = spec if names.count(name) > 1 else name
        contestants.append(_Contestant(name, upscaler))
    return contestants


def _time(upscaler: engine.Upscaler) -> float:
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
    options: EvalOptions, sets: Sequence[datasets.Dataset], contestants: Sequence[_Contestant], found: Perception
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


class _Pipeline:
    """One data set's way: images are read ahead by a thread, upscaled in this one, and scored by others."""

    def __init__(
        self, options: EvalOptions, contestants: Sequence[_Contestant], found: Perception, dataset: datasets.Dataset
    ) -> None:
        self.options = options
        self.protocol = options.convention
        self.contestants = contestants
        self.found = found
        self.dataset = dataset

    def run(self, pairs: Sequence[datasets.Pair]) -> Iterator[tuple[datasets.Pair, _Record]]:
        workers = self._workers()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(workers) as scorer:
            reading: deque[Future[tuple[NDArray[np.uint8], Pixels]]] = deque()
            scoring: deque[tuple[datasets.Pair, Future[_Record]]] = deque()
            ahead = iter(pairs)
            try:
                for pair in pairs:
                    while len(reading) <= _READ_AHEAD and (following := next(ahead, None)):
                        reading.append(reader.submit(self._read, following))
                    scoring.append((pair, self._upscale(pair, reading.popleft(), scorer)))
                    while scoring and (len(scoring) > workers or scoring[0][1].done()):
                        finished, future = scoring.popleft()
                        yield finished, future.result()
                for finished, future in scoring:
                    yield finished, future.result()
            except BaseException:
                reader.shutdown(wait=False, cancel_futures=True)
                scorer.shutdown(wait=False, cancel_futures=True)
                raise

    def _workers(self) -> int:
        """Threads that score. Beside networks on the CPU there are few: these wait for the slowest of their own."""
        cores = os.cpu_count() or 1
        busy = any(c.upscaler.weights_sha256 and c.upscaler.device_name == "cpu" for c in self.contestants)
        return max(1, cores // 4) if busy else cores

    def _read(self, pair: datasets.Pair) -> tuple[NDArray[np.uint8], Pixels]:
        hr, lr = datasets.load(pair)
        return hr, self.protocol.reduce(hr) if lr is None else lr

    def _upscale(
        self,
        pair: datasets.Pair,
        image: Future[tuple[NDArray[np.uint8], Pixels]],
        scorer: ThreadPoolExecutor,
    ) -> Future[_Record]:
        try:
            hr, lr = image.result()
        except SrupError as error:
            failed = _failed(pair.name, error)
            return scorer.submit(lambda: _Record({contestant.name: failed for contestant in self.contestants}))
        outputs: dict[str, Pixels | ImageScores] = {}
        for contestant in self.contestants:
            try:
                outputs[contestant.name] = contestant.upscaler.upscale(lr).pixels
            except OutOfMemory as error:
                outputs[contestant.name] = _failed(pair.name, error)
        return scorer.submit(self._score, pair.name, hr, outputs)

    def _score(self, name: str, hr: NDArray[np.uint8], outputs: Mapping[str, Pixels | ImageScores]) -> _Record:
        scores: dict[str, ImageScores] = {}
        pixels: dict[str, NDArray[np.uint8]] = {}
        for model, output in outputs.items():
            if isinstance(output, ImageScores):
                scores[model] = output
                continue
            scores[model] = ImageScores(name, *score(output, hr, self.protocol, self.options.metrics, self.found))
            pixels[model] = to_bytes(output)
            if self.options.save_images:
                _save(pixels[model], self.options.save_images / file_name(self.dataset.name) / file_name(model) / name)
        crop = crops.choose(hr, pixels) if self.options.for_report and pixels else None
        return _Record(scores, crop)


def _failed(name: str, error: SrupError) -> ImageScores:
    return ImageScores(name, {}, error=str(error), exit_code=error.exit_code)


def file_name(name: str) -> str:
    """A model's or data set's name as a folder's: without separators."""
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in name).strip(". ") or "unnamed"


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
    images.write(images.Photo(pixels), target, overwrite=True)


def _to_line(dataset: str, image: str, record: _Record) -> dict[str, Any]:
    scores = {name: vars(scores) for name, scores in record.scores.items()}
    return {"dataset": dataset, "image": image, "scores": scores, "crop": record.crop and record.crop.to_dict()}


def _resumed(journal: Journal) -> dict[tuple[str, str], _Record]:
    return {
        key: _Record(
            {name: ImageScores(**scores) for name, scores in line["scores"].items()},
            crops.Crop(**line["crop"]) if line["crop"] else None,
        )
        for key, line in journal.records.items()
    }


def _evaluation(
    options: EvalOptions,
    sets: Sequence[datasets.Dataset],
    contestants: Sequence[_Contestant],
    records: Mapping[tuple[str, str], _Record],
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
    contestant: _Contestant, dataset: datasets.Dataset, metrics: Sequence[str], scores: tuple[ImageScores, ...]
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
