"""Results as a CSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sr_cli import storage
from sr_cli.evaluate.results import Evaluation


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
