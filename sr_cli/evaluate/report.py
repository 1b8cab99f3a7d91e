"""Results as one self-contained HTML page: tables, crops side by side, quality against speed."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from importlib import resources
from pathlib import Path

from sr_cli import __version__, storage
from sr_cli.evaluate import poster
from sr_cli.evaluate.crops import HR, Crop
from sr_cli.evaluate.methods import TIMED_SIDE
from sr_cli.evaluate.results import Evaluation, ImageScores, ModelScores
from sr_cli.evaluate.scores import METRICS

_DIFFERENT = 3
"""Images of a data set shown because the models differ on them."""

_COLOURS = ("#0b6fc2", "#d1661b", "#2a9d5c", "#b0399a", "#c9a000", "#5a51c9", "#c0392b", "#1a9aa8")


def write_report(evaluation: Evaluation, target: Path) -> None:
    """Writes the page, replacing an earlier one. Raises OutputError."""
    with storage.atomic_output(target, overwrite=True) as file:
        file.write(render(evaluation).encode("utf-8"))


def render(evaluation: Evaluation) -> str:
    """The whole page. Every name in it is escaped."""
    template = resources.files("sr_cli.evaluate").joinpath("report.html").read_text("utf-8")
    gallery = _Gallery(evaluation)
    setting = f"srup {__version__}, {evaluation.device}, {evaluation.precision}, {date.today().isoformat()}"
    if evaluation.fidelity is not None:
        setting += f", fidelity {evaluation.fidelity:g}"
    if evaluation.ensemble:
        setting += ", ensemble of flips and rotations"
    names = list(dict.fromkeys(result.dataset for result in evaluation.results))
    return string.Template(template).substitute(
        title=f"Evaluation on {escape(_listed(names))}",
        setting=escape(setting),
        protocol=escape(evaluation.protocol.name.capitalize()),
        convention=escape(evaluation.convention),
        summary=_summary(evaluation),
        notes=_notes(evaluation),
        charts=_charts(evaluation),
        crops=gallery.html(),
        crop_styles=gallery.styles(),
        images=_every_image(evaluation),
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def primary(evaluation: Evaluation) -> str:
    """The metric that images are ranked by: a PSNR that has values, else the first metric that has."""
    return next((name for name in evaluation.shown if name.startswith("psnr")), evaluation.shown[0])


def _cell(value: float | None, digits: int, *, best: bool = False) -> str:
    if value is None:
        return "<td>–</td>"
    kind = ' class="best"' if best else ""
    return f'<td{kind} data-value="{value:.8g}">{value:.{digits}f}</td>'


def _head(columns: Sequence[str], metrics: Sequence[str], *, sortable: bool = False) -> str:
    def cell(title: str, kind: str = "") -> str:
        content = f'<button type="button">{escape(title)}</button>' if sortable else escape(title)
        return f'<th scope="col"{kind}>{content}</th>'

    cells = [cell(column, ' class="text"') for column in columns] + [cell(METRICS[name].title) for name in metrics]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _summary(evaluation: Evaluation) -> str:
    groups = []
    for dataset in dict.fromkeys(result.dataset for result in evaluation.results):
        rivals = [result for result in evaluation.results if result.dataset == dataset]
        rows = [_group_row(f"{dataset}: {rivals[0].counted}, LR {rivals[0].lr}", evaluation)]
        for result in rivals:
            cells = [
                _cell(
                    result.metrics[name], METRICS[name].digits, best=len(rivals) > 1 and _is_best(name, result, rivals)
                )
                for name in evaluation.shown
            ]
            rows.append(f"<tr>{_texts([result.model])}{''.join(cells)}</tr>")
        groups.append(f"<tbody>{''.join(rows)}</tbody>")
    if evaluation.against:
        rows = [_group_row(f"{poster.DATASET}: the poster's Table 1", evaluation)]
        for name, scores in poster.SCORES.items():
            cells = [_cell(scores.get(metric), poster.DIGITS) for metric in evaluation.shown]
            rows.append(f'<tr class="poster">{_texts([name])}{"".join(cells)}</tr>')
        groups.append(f"<tbody>{''.join(rows)}</tbody>")
    return f"<table>{_head(['Model'], evaluation.shown)}{''.join(groups)}</table>"


def _group_row(text: str, evaluation: Evaluation) -> str:
    columns = 1 + len(evaluation.shown)
    return (
        f'<tr class="group"><th colspan="{columns}" scope="colgroup" class="text"><span>{escape(text)}</span></th></tr>'
    )


def _texts(texts: Sequence[str]) -> str:
    return "".join(f'<td class="text" title="{escape(text)}">{escape(text)}</td>' for text in texts)


def _is_best(metric: str, result: ModelScores, rivals: Sequence[ModelScores]) -> bool:
    values = [value for rival in rivals if (value := rival.metrics[metric]) is not None]
    own = result.metrics[metric]
    return own is not None and own == (max if METRICS[metric].more_is_better else min)(values)


def _notes(evaluation: Evaluation) -> str:
    more = [METRICS[m].title.split(",")[0] for m in evaluation.shown if METRICS[m].more_is_better]
    less = [METRICS[m].title.split(",")[0] for m in evaluation.shown if not METRICS[m].more_is_better]
    directions = [
        f"{_listed(more)}: more is better." if more else "",
        f"{_listed(less)}: less is better." if less else "",
    ]
    lines = [" ".join(direction for direction in directions if direction)]
    reasons = dict.fromkeys(
        f"{METRICS[name].title.split(',')[0]}: {why}."
        for result in evaluation.results
        for name, why in result.unavailable.items()
    )
    failures = dict.fromkeys(
        f"Not measured: {image.error}." for result in evaluation.results for image in result.images if image.error
    )
    lines += [*reasons, *failures]
    if evaluation.against:
        lines += [f"Poster: {poster.SOURCE}.", *poster.CAVEATS]
    return f'<ul class="note">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _every_image(evaluation: Evaluation) -> str:
    rows = []
    for result in evaluation.results:
        for image in result.images:
            cells = [_cell(image.metrics.get(name), METRICS[name].digits) for name in evaluation.shown]
            rows.append(f"<tr>{_texts([result.dataset, image.name, result.model])}{''.join(cells)}</tr>")
    head = _head(["Data set", "Image", "Model"], evaluation.shown, sortable=True)
    return f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"


# --- crops -----------------------------------------------------------------------------------------


class _Gallery:
    """The chosen images of each data set; each crop is stored once, as a style, however often it is shown."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.metric = primary(evaluation)
        self.numbers: dict[tuple[str, str, str], int] = {}

    def html(self) -> str:
        sections = []
        for dataset in dict.fromkeys(result.dataset for result in self.evaluation.results):
            results = [result for result in self.evaluation.results if result.dataset == dataset]
            shown = self._chosen(dataset, results)
            strips = [self._strip(dataset, image, tags, results) for image, tags in shown.items()]
            if strips:
                sections.append(f"<h2>Crops of {escape(dataset)}</h2>{self._explanation(results)}{''.join(strips)}")
        return "".join(sections)

    def styles(self) -> str:
        rules = []
        for (dataset, image, name), number in self.numbers.items():
            crop = self.evaluation.crops[dataset, image]
            rules.append(
                f".c{number}{{background-image:url(data:image/png;base64,{crop.pictures[name]});"
                f"aspect-ratio:{crop.width}/{crop.height}}}"
            )
        return "\n".join(rules)

    def _explanation(self, results: Sequence[ModelScores]) -> str:
        where = "where the models' errors differ most" if len(results) > 1 else "where the error is largest"
        title = METRICS[self.metric].title.split(",")[0]
        return (
            f'<p class="note">Each model\'s worst, median and best image by {escape(title)}, and those that the models '
            f"disagree on; cropped {where}. Scores are of the whole image.</p>"
        )

    def _chosen(self, dataset: str, results: Sequence[ModelScores]) -> dict[str, list[str]]:
        """Images to show, each with the reasons for it, in the order in which they are shown."""
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
                tags.setdefault(image, []).append(f"{rank} of {'all models' if everyone else _listed(models)}")
        return tags

    def _strip(self, dataset: str, image: str, tags: Sequence[str], results: Sequence[ModelScores]) -> str:
        crop = self.evaluation.crops[dataset, image]
        scores: dict[str, ImageScores] = {
            result.model: found for result in results for found in result.images if found.name == image
        }
        figures = [self._figure(dataset, image, name, crop, scores.get(name)) for name in crop.pictures]
        labels = "".join(f"<span>{escape(tag)}</span>" for tag in tags)
        place = f"{crop.width}x{crop.height} at {crop.left}, {crop.top}"
        return (
            f'<h3>{escape(image)} <span class="tags">{labels}</span></h3>'
            f'<div class="strip" style="--n:{min(len(figures), 6)}" title="{place}">{"".join(figures)}</div>'
        )

    def _figure(self, dataset: str, image: str, name: str, crop: Crop, scores: ImageScores | None) -> str:
        number = self.numbers.setdefault((dataset, image, name), len(self.numbers))
        value = scores.metrics.get(self.metric) if scores else None
        metric = METRICS[self.metric]
        unit = " dB" if "dB" in metric.title else ""
        text = f"{value:.{metric.digits}f}{unit}" if value is not None else "reference" if name == HR else "–"
        return (
            f'<figure><div class="crop c{number}" role="img" aria-label="{escape(name)} of {escape(image)}"></div>'
            f'<figcaption><b>{escape(name)}</b><span class="dim">{text}</span></figcaption></figure>'
        )


def _ranked(result: ModelScores, metric: str) -> list[tuple[str, str]]:
    """The worst, median and best image of a model."""
    scored = [(value, image.name) for image in result.images if (value := image.metrics.get(metric)) is not None]
    if not scored:
        return []
    scored.sort(reverse=not METRICS[metric].more_is_better)
    names = [name for _, name in scored]
    return [("worst", names[0]), ("median", names[len(names) // 2]), ("best", names[-1])]


# --- quality against speed -------------------------------------------------------------------------


def _charts(evaluation: Evaluation) -> str:
    timed = [result for result in evaluation.results if result.milliseconds is not None]
    if not timed:
        return ""
    models = list(dict.fromkeys(result.model for result in evaluation.results))
    colours = {model: _COLOURS[i % len(_COLOURS)] for i, model in enumerate(models)}
    wanted = [primary(evaluation)]
    wanted += [name for name in ("pi", "niqe") if name in evaluation.shown][:2]
    figures = []
    for dataset in dict.fromkeys(result.dataset for result in timed):
        perceptual_shown = False
        for name in dict.fromkeys(wanted):
            points = {
                result.model: (result.milliseconds, value)
                for result in timed
                if result.dataset == dataset and result.milliseconds and (value := result.metrics[name]) is not None
            }
            if not points or (name != wanted[0] and perceptual_shown):
                continue
            perceptual_shown = name != wanted[0]
            better = "higher" if METRICS[name].more_is_better else "lower"
            figures.append(
                f"<figure><figcaption><b>{escape(METRICS[name].title)}</b> on {escape(dataset)} "
                f'<span class="dim">({better} and further left is better)</span></figcaption>'
                f"{_scatter(points, colours, METRICS[name].title, METRICS[name].digits)}</figure>"
            )
    note = (
        f'<p class="note">Speed is the median time to upscale {TIMED_SIDE}x{TIMED_SIDE} pixels on {evaluation.device}, '
        "measured before the run: three times after one to warm up. For figures to cite use srup bench.</p>"
    )
    return f'<h2 id="speed">Quality against speed</h2><div class="charts">{"".join(figures)}</div>{note}'


_WIDTH, _HEIGHT = 430, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 112, 12, 44


def _scatter(points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], title: str, digits: int) -> str:
    """An SVG of quality over milliseconds, the latter on a logarithmic scale."""
    times = [math.log10(time) for time, _ in points.values()]
    values = [value for _, value in points.values()]
    low, high = math.floor(min(times) * 2 - 0.2) / 2, math.ceil(max(times) * 2 + 0.2) / 2
    ticks = _ticks(min(values), max(values))
    bottom, top = ticks[0], ticks[-1]

    def x(logarithm: float) -> float:
        return _LEFT + (logarithm - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} against time">']
    parts.append('<g class="axis">')
    for tick in ticks:
        decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.{decimals}f}</text>')
    for time in _decades(low, high):
        at = x(math.log10(time))
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{time:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">milliseconds</text></g>')
    labels = _spread({name: y(value) for name, (_, value) in points.items()}, _TOP + 8, _HEIGHT - _BOTTOM)
    for name, (time, value) in points.items():
        at = x(math.log10(time))
        parts.append(
            f'<circle cx="{at:.1f}" cy="{y(value):.1f}" r="6" fill="{colours[name]}">'
            f"<title>{escape(name)}: {value:.{digits}f}, {time:.3g} ms</title></circle>"
            f'<text x="{at + 11:.1f}" y="{labels[name] + 4:.1f}">{escape(_short(name))}</text>'
        )
    return "".join(parts) + "</svg>"


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that span a range."""
    span = max(high - low, abs(high) * 0.02, 1e-3)
    low, high = min(low, (low + high - span) / 2), max(high, (low + high + span) / 2)
    step = 10 ** math.floor(math.log10(span))
    step = next(step * factor for factor in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (step * factor) <= 5)
    first, last = math.floor(low / step - 0.25), math.ceil(high / step + 0.25)
    return [i * step for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Round times between two logarithms."""
    factors = (1, 2, 5) if high - low <= 1.5 else (1, 3) if high - low <= 2.5 else (1,)
    times = [factor * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [time for time in times if low - 1e-9 <= math.log10(time) <= high + 1e-9]


def _spread(positions: Mapping[str, float], low: float, high: float, gap: float = 15) -> dict[str, float]:
    """Positions moved apart so that labels do not cover each other."""
    names = sorted(positions, key=lambda name: positions[name])
    placed: dict[str, float] = {}
    earlier = low - gap
    for name in names:
        placed[name] = earlier = max(positions[name], earlier + gap)
    later = high + gap
    for name in reversed(names):
        placed[name] = later = min(placed[name], later - gap)
    return placed
