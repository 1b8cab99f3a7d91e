"""Results as one self-contained HTML page: tables, crops side by side, quality against speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from markupsafe import Markup

from sr_cli import __version__, pages, storage
from sr_cli.evaluate import tables
from sr_cli.evaluate.crops import HR, Crop
from sr_cli.evaluate.methods import TIMED_SIDE
from sr_cli.evaluate.results import Evaluation, ImageScores, ModelScores
from sr_cli.evaluate.scores import METRICS, Metric
from sr_cli.evaluate.tables import Cell, Row
from sr_cli.options import listed
from sr_cli.pages import charts

_DIFFERENT = 3  #: Images of a data set shown because the models differ on them.


def write_report(evaluation: Evaluation, target: Path) -> None:
    """Write the page, replacing an earlier one. Raises OutputError."""
    with storage.atomic_output(target, overwrite=True) as file:
        file.write(render(evaluation).encode("utf-8"))


def render(evaluation: Evaluation) -> str:
    """Return the whole page; the template escapes every name in it."""
    names = list(dict.fromkeys(result.dataset for result in evaluation.results))
    gallery = _Gallery(evaluation)
    strips = {name: gallery.strips(name) for name in names}
    return pages.render(
        "report.html",
        title=f"Evaluation on {listed(names)}",
        setting=_setting(evaluation),
        protocol=evaluation.protocol.name.capitalize(),
        convention=evaluation.convention,
        metrics=[METRICS[name] for name in evaluation.shown],
        groups=list(tables.groups(evaluation)),
        notes=_notes(evaluation),
        charts=_charts(evaluation),
        timed=f"{TIMED_SIDE}x{TIMED_SIDE} pixels on {evaluation.device}",
        galleries={name: shown for name, shown in strips.items() if shown},
        ranked_by=METRICS[gallery.metric].title,
        several=len({result.model for result in evaluation.results}) > 1,
        crops=gallery.crops,
        rows=_every_image(evaluation),
    )


def _setting(evaluation: Evaluation) -> str:
    parts = [f"srup {__version__}", evaluation.device, evaluation.precision, date.today().isoformat()]
    if evaluation.fidelity is not None:
        parts.append(f"fidelity {evaluation.fidelity:g}")
    if evaluation.ensemble:
        parts.append("ensemble of flips and rotations")
    return ", ".join(parts)


def primary(evaluation: Evaluation) -> str:
    """Return the metric that images are ranked by: a PSNR that has values, else the first metric that has."""
    return next((name for name in evaluation.shown if name.startswith("psnr")), evaluation.shown[0])


def _notes(evaluation: Evaluation) -> list[str]:
    more = [METRICS[name].title for name in evaluation.shown if METRICS[name].more_is_better]
    less = [METRICS[name].title for name in evaluation.shown if not METRICS[name].more_is_better]
    directions = [
        f"{listed(more)}: more is better." if more else "",
        f"{listed(less)}: less is better." if less else "",
    ]
    reasons = dict.fromkeys(
        f"{METRICS[name].title}: {why}." for result in evaluation.results for name, why in result.unavailable.items()
    )
    failures = dict.fromkeys(
        f"Not measured: {image.error}." for result in evaluation.results for image in result.images if image.error
    )
    published = [f"{evaluation.against.source}.", *evaluation.against.caveats] if evaluation.against else []
    return [" ".join(filter(None, directions)), *reasons, *failures, *published]


def _every_image(evaluation: Evaluation) -> list[Row]:
    return [
        Row(
            [result.dataset, image.name, result.model],
            [Cell(image.metrics.get(name), METRICS[name].digits) for name in evaluation.shown],
        )
        for result in evaluation.results
        for image in result.images
    ]


# --- crops -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One model's crop of an image."""

    number: int  #: Which of the page's crops.
    name: str  #: The model, or the reference.
    caption: str  #: Its score.


@dataclass(frozen=True)
class Strip:
    """The crops of one image side by side."""

    image: str  #: Its name.
    tags: Sequence[str]  #: Why it is shown.
    crop: Crop  #: Where it was cut.
    pictures: Sequence[Picture]  #: The reference first.


class _Gallery:
    """The chosen images of each data set; each crop is stored once, as a style, however often it is shown."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.metric = primary(evaluation)
        self.crops: list[tuple[Crop, str]] = []  #: By number: the crop and its PNG in base64.

    def strips(self, dataset: str) -> list[Strip]:
        """Choose a data set's images."""
        results = [result for result in self.evaluation.results if result.dataset == dataset]
        return [self._strip(dataset, image, tags, results) for image, tags in self._chosen(dataset, results).items()]

    def _chosen(self, dataset: str, results: Sequence[ModelScores]) -> dict[str, list[str]]:
        """Return images to show, each with the reasons for it, in the order in which they are shown."""
        tags: dict[str, list[str]] = {}
        cropped = {image: crop for (of, image), crop in self.evaluation.crops.items() if of == dataset}
        by_difference = sorted(cropped, key=lambda image: -cropped[image].difference)
        for image in by_difference[:_DIFFERENT] if len(results) > 1 else ():
            tags.setdefault(image, []).append("models differ most")
        ranks: dict[str, dict[str, list[str]]] = {}
        for result in results:
            for rank, image in _ranked(result, self.metric):
                if image in cropped:
                    ranks.setdefault(rank, {}).setdefault(image, []).append(result.model)
        for rank, found in ranks.items():
            for image, models in found.items():
                everyone = len(models) == len(results) > 1
                tags.setdefault(image, []).append(f"{rank} of {'all models' if everyone else listed(models)}")
        return tags

    def _strip(self, dataset: str, image: str, tags: Sequence[str], results: Sequence[ModelScores]) -> Strip:
        crop = self.evaluation.crops[dataset, image]
        scores = {result.model: found for result in results for found in result.images if found.name == image}
        pictures = []
        for name, png in crop.pictures.items():
            pictures.append(Picture(len(self.crops), name, self._caption(name, scores.get(name))))
            self.crops.append((crop, png))
        return Strip(image, tags, crop, pictures)

    def _caption(self, name: str, scores: ImageScores | None) -> str:
        metric = METRICS[self.metric]
        value = scores.metrics.get(self.metric) if scores else None
        if value is None:
            return "reference" if name == HR else "–"
        return f"{value:.{metric.digits}f} {metric.unit}".strip()


def _ranked(result: ModelScores, metric: str) -> list[tuple[str, str]]:
    """Return the worst, median and best image of a model."""
    scored = [(value, image.name) for image in result.images if (value := image.metrics.get(metric)) is not None]
    if not scored:
        return []
    scored.sort(reverse=not METRICS[metric].more_is_better)
    names = [name for _, name in scored]
    return [("worst", names[0]), ("median", names[len(names) // 2]), ("best", names[-1])]


# --- quality against speed -------------------------------------------------------------------------


@dataclass(frozen=True)
class Chart:
    """One metric of one data set against time."""

    metric: Metric  #: What is shown upwards.
    dataset: str  #: On what it was measured.
    svg: Markup  #: The drawing.


def _charts(evaluation: Evaluation) -> list[Chart]:
    """Draw the metric that images are ranked by, and one without a reference, for each data set."""
    timed = [result for result in evaluation.results if result.milliseconds is not None]
    models = list(dict.fromkeys(result.model for result in evaluation.results))
    colours = {model: charts.colour(index) for index, model in enumerate(models)}
    blind = next((name for name in ("pi", "niqe") if name in evaluation.shown), None)
    wanted = dict.fromkeys(name for name in (primary(evaluation), blind) if name)
    found = []
    for dataset in dict.fromkeys(result.dataset for result in timed):
        for name in wanted:
            results = [result for result in timed if result.dataset == dataset]
            if shown := _points(results, name, colours):
                drawing = charts.points(f"{METRICS[name].title} against time", "milliseconds", shown)
                found.append(Chart(METRICS[name], dataset, drawing.svg(standalone=False)))
    return found


def _points(results: Sequence[ModelScores], metric: str, colours: Mapping[str, str]) -> list[charts.Point]:
    points = []
    for result in results:
        value, milliseconds = result.metrics[metric], result.milliseconds
        if value is not None and milliseconds:
            label = f"{result.model}: {value:.{METRICS[metric].digits}f}, {milliseconds:.3g} ms"
            points.append(charts.Point(result.model, milliseconds, value, label, colours[result.model]))
    return points
