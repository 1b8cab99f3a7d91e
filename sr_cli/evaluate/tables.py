"""Results as rows: of the tables for people, and of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_cli import storage
from sr_cli.evaluate.results import Evaluation, ModelScores
from sr_cli.evaluate.scores import METRICS


@dataclass(frozen=True)
class Cell:
    """A score in a table."""

    value: float | None  #: None where there is none.
    digits: int  #: Decimals shown.
    best: bool = False  #: The best of its group.

    def __str__(self) -> str:
        return "–" if self.value is None else f"{self.value:.{self.digits}f}"


@dataclass(frozen=True)
class Row:
    """A model's or image's scores."""

    texts: Sequence[str]  #: The first columns.
    cells: Sequence[Cell]  #: One for each metric shown.
    costs: Sequence[str] = ()  #: Seconds per megapixel and multiplications per pixel.


@dataclass(frozen=True)
class Group:
    """The rows of one data set."""

    title: str  #: Above them.
    rows: Sequence[Row]  #: One for each model.
    published: bool = False  #: Whether others measured them.


def groups(evaluation: Evaluation) -> Iterator[Group]:
    """Yield the rows of each data set, then published ones."""
    for dataset in dict.fromkeys(result.dataset for result in evaluation.results):
        rivals = [result for result in evaluation.results if result.dataset == dataset]
        rows = [
            Row(
                [result.model, result.stage or "–"],
                [
                    Cell(result.metrics[name], METRICS[name].digits, len(rivals) > 1 and _is_best(name, result, rivals))
                    for name in evaluation.shown
                ],
                result.costs,
            )
            for result in rivals
        ]
        yield Group(rivals[0].heading, rows)
    if table := evaluation.against:
        rows = [
            Row([name, "–"], [Cell(scores.get(metric), table.digits) for metric in evaluation.shown], ("–", "–"))
            for name, scores in table.scores.items()
        ]
        yield Group(f"{table.dataset}: {table.title}", rows, published=True)


def _is_best(metric: str, result: ModelScores, rivals: Sequence[ModelScores]) -> bool:
    values = [value for rival in rivals if (value := rival.metrics[metric]) is not None]
    own = result.metrics[metric]
    return own is not None and own == (max if METRICS[metric].more_is_better else min)(values)


def write_csv(evaluation: Evaluation, target: Path) -> None:
    """Write one row for each data set, model and image, UTF-8; replaces an earlier file.

    An empty field is a missing score; `note` says why, if other images have one. Raises OutputError.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["protocol", "dataset", "lr", "model", "image", *evaluation.metrics, "note"])
    for result in evaluation.results:
        for image in result.images:
            values = [image.metrics.get(name) for name in evaluation.metrics]
            # A metric that no image has is missing in the whole run; its reason would fill every row.
            own = [name for name in image.unavailable if result.metrics[name] is not None]
            notes = [f"{name}: {image.unavailable[name]}" for name in own]
            writer.writerow(
                [
                    evaluation.protocol.name,
                    result.dataset,
                    result.lr,
                    result.model,
                    image.name,
                    *("" if value is None else repr(round(value, 6)) for value in values),
                    image.error or "; ".join(notes),
                ]
            )
    with storage.atomic_output(target, overwrite=True) as file:
        file.write(text.getvalue().encode("utf-8"))
