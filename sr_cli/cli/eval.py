"""`srup eval`: measures the quality of models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sr_cli.cli.console import Bar, Console, EventConsole
from sr_cli.errors import UsageError
from sr_cli.evaluate.options import EvalOptions
from sr_cli.options import output_option

if TYPE_CHECKING:
    from sr_cli.evaluate.job import EvalEvent
    from sr_cli.evaluate.results import Evaluation


def evaluate(
    options: EvalOptions,
    report: Annotated[Path | None, output_option("Write a report, one HTML page.")] = None,
    csv: Annotated[Path | None, output_option("Write a table with a row for each model and image.")] = None,
    *,
    console: EventConsole,
) -> int:
    """Measure the quality of models on data sets: PSNR, SSIM, NIQE, PI, LPIPS and others."""
    from sr_cli.evaluate.job import run
    from sr_cli.evaluate.report import write_report
    from sr_cli.evaluate.results import exit_code
    from sr_cli.evaluate.tables import write_csv

    if options.self_check:
        return _self_check(console, options)
    options = replace(options, for_report=report is not None)
    for target in (report, csv):
        if target is not None and not target.absolute().parent.is_dir():
            raise UsageError(f"the folder {target.parent} for {target.name} does not exist; create it first")
    with console.progress("starting") as bar:
        evaluation = run(options, lambda event: _tell(console, bar, event))
    if csv is not None:
        write_csv(evaluation, csv)
    if report is not None:
        write_report(evaluation, report)
        console.note(f"report: {report}")
    if console.machine:
        (console.document if console.json else console.event)(evaluation.to_dict())
    else:
        _show(console, evaluation)
    return exit_code(evaluation)


def _tell(console: Console, bar: Bar, event: EvalEvent) -> None:
    """Show an event: the bar, the first failure of an image, or lines of JSON."""
    from sr_cli.evaluate.results import image_dict

    if event.kind == "download":
        bar.update(event.done, event.total or 0, f"downloading {event.text}")
    elif event.kind != "image":
        console.note(event.text)
    else:
        bar.update(event.done, event.total or 0, f"{event.dataset} {event.text}", f"{event.done}/{event.total}")
        if console.json_lines:
            for name, scores in event.scores.items():
                console.event({"event": "image", "dataset": event.dataset, "model": name, **image_dict(scores)})
        elif failed := next((scores.error for scores in event.scores.values() if scores.error), None):
            console.error(failed)


def _show(console: Console, evaluation: Evaluation) -> None:
    from sr_cli.evaluate.scores import METRICS
    from sr_cli.evaluate.tables import groups

    columns = ["model", "stage", *(METRICS[name].title for name in evaluation.shown), "s/MP", "mult./px"]
    for group in groups(evaluation):
        rows = [[*row.texts, *map(str, row.cells), *row.costs] for row in group.rows]
        console.table(columns, rows, title=group.title)
    console.data(f"{evaluation.protocol.name} protocol: {evaluation.convention}")
    console.data(
        "s/MP: seconds per megapixel of output, median of the images; mult./px: multiplications per input pixel"
    )
    reasons = {(name, why) for result in evaluation.results for name, why in result.unavailable.items()}
    for name, why in sorted(reasons):
        console.data(f"{METRICS[name].title}: {why}")
    for line in evaluation.against.caveats if evaluation.against else ():
        console.data(line)


def _self_check(console: Console, options: EvalOptions) -> int:
    from sr_cli.evaluate import self_check

    folder = options.data[0] if options.data else None
    checks = self_check.run(
        folder, options.niqe_parameters, options.nrqm_model, offline=options.offline, note=console.note
    )
    if console.machine:
        results = [{**vars(check), "agrees": check.agrees} for check in checks]
        (console.document if console.json else console.event)({"results": results})
    else:
        rows = [[c.image, c.metric, f"{c.official:.4f}", *_deviation(c.ours, c.official, c.agrees)] for c in checks]
        console.table(["image", "metric", "official", "here", "deviation", "agrees"], rows)
        console.data(self_check.verdict(checks))
    return 0 if all(check.agrees for check in checks) else 1


def _deviation(ours: float | None, official: float, agrees: bool) -> list[str]:
    if ours is None:
        return ["–", "–", "unknown"]
    return [f"{ours:.4f}", f"{100 * (ours / official - 1):+.2f} %", "yes" if agrees else "NO"]
