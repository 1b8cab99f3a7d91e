"""`srup eval`: measure models under a stated convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.console import Console
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.evaluate import Evaluation, ModelScores


def evaluate(
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Published set: set5, set14, bsd100, urban100, div2k-val. Repeatable."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Folder of HR images, or with HR/ and LR/, or *_HR and *_LR files. Repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Model, name:stage, path, bicubic or lanczos. Repeatable. [every bundled]"),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            help="psnr_y, ssim_y, psnr_rgb, ssim_rgb (psnr, ssim: both), rmse, niqe, nrqm, pi, features, lpips, dists.",
        ),
    ] = None,
    protocol: Annotated[str | None, typer.Option("--protocol", help="standard or poster. [standard]")] = None,
    fidelity: shared.Fidelity = None,
    ensemble: shared.Ensemble = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    input_jpeg: Annotated[
        list[str] | None,
        typer.Option(
            "--input-jpeg", metavar="Q", help="Save each input as JPEG of this quality first. Repeatable: by turns."
        ),
    ] = None,
    degrade: Annotated[
        str, typer.Option("--degrade", help="none, or photo: inputs with random blur, noise and JPEG. [none]")
    ] = "none",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --degrade. [0]")] = 0,
    against: Annotated[str | None, typer.Option("--against", help="poster: beside its Table 1.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write one self-contained HTML page.")] = None,
    save_images: Annotated[
        Path | None, typer.Option("--save-images", help="Folder for the outputs: DATASET/MODEL/NAME.png.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write one row for each model and image.")] = None,
    niqe_parameters: Annotated[
        Path | None, typer.Option("--niqe-parameters", help="NIQE's parameters, instead of the Hub's.")
    ] = None,
    nrqm_model: Annotated[Path | None, typer.Option("--nrqm-model", help="NRQM's model, instead of the Hub's.")] = None,
    feature_weights: Annotated[
        Path | None,
        typer.Option("--feature-weights", help="SqueezeNet's weights for features, instead of torchvision's."),
    ] = None,
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Hold NIQE, NRQM and PI of this installation against official scores.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on with an interrupted run.")] = False,
    offline: shared.Offline = False,
    json: shared.Json = False,
    json_lines: shared.JsonLines = False,
    quiet: shared.Quiet = False,
) -> int:
    """Measure models on data sets: PSNR, SSIM, RMSE, NIQE, the perceptual index, feature distance, LPIPS and DISTS."""
    from sr_cli import evaluate as job

    console = Console(json_document=json, json_lines=json_lines, quiet=quiet)
    if self_check:
        folder = data[0] if data else None
        return _self_check(console, folder, niqe_parameters, nrqm_model, offline)
    names = [name for given in metrics or [] for name in given.split(",")]
    options = job.EvalOptions(
        models=tuple(model or ()),
        data=tuple(data or ()),
        datasets=tuple(dataset or ()),
        metrics=job.expand(names) or job.DEFAULT_METRICS,
        protocol=protocol,
        against=against,
        fidelity=fidelity,
        ensemble=ensemble,
        device=device,
        precision=precision,
        save_images=save_images,
        for_report=report is not None,
        niqe_parameters=niqe_parameters,
        nrqm_model=nrqm_model,
        feature_weights=feature_weights,
        input_jpeg=_qualities(input_jpeg or []),
        degrade=degrade,
        seed=seed,
        offline=offline,
        fresh=fresh,
    )
    for target in (report, csv):
        if target is not None and not target.absolute().parent.is_dir():
            raise UsageError(f"the folder {target.parent} for {target.name} does not exist; create it first")
    with console.progress("starting") as bar:

        def tell(event: job.EvalEvent) -> None:
            if event.kind == "image":
                bar.update(event.done, event.total or 0, f"{event.dataset} {event.text}")
                for name, scores in event.scores.items():
                    if scores.error and not json_lines:
                        console.error(scores.error)
                        break
                    if json_lines:
                        console.event(
                            {"event": "image", "dataset": event.dataset, "model": name, **job.image_dict(scores)}
                        )
            elif event.kind == "download":
                bar.update(event.done, event.total or 0, f"downloading {event.text}")
            else:
                console.note(event.text)

        evaluation = job.run(options, tell)
    if csv is not None:
        job.write_csv(evaluation, csv)
    if report is not None:
        job.write_report(evaluation, report)
        console.note(f"report: {report}")
    if console.machine:
        (console.document if json else console.event)(evaluation.to_dict())
    else:
        _show(console, evaluation)
    return job.exit_code(evaluation)


def _show(console: Console, evaluation: Evaluation) -> None:
    from sr_cli.evaluate import METRICS, poster

    def cells(values: Mapping[str, float | None], digits: int | None = None) -> list[str]:
        found = [(METRICS[name].digits if digits is None else digits, values.get(name)) for name in evaluation.shown]
        return ["–" if value is None else f"{value:.{precision}f}" for precision, value in found]

    titles = [METRICS[name].title.split(",")[0] for name in evaluation.shown]
    columns = ["model", "stage", *titles, "s/MP", "mult./px"]
    for dataset in dict.fromkeys(result.dataset for result in evaluation.results):
        results = [result for result in evaluation.results if result.dataset == dataset]
        rows = [[result.model, result.stage or "–", *cells(result.metrics), *_costs(result)] for result in results]
        console.table(columns, rows, title=f"{dataset}: {results[0].counted}, LR {results[0].lr}")
    if evaluation.against:
        rows = [[name, "gan", *cells(scores, poster.DIGITS), "", ""] for name, scores in poster.SCORES.items()]
        console.table(columns, rows, title=f"{poster.DATASET}: the poster's Table 1")
    console.data(f"{evaluation.protocol.name} protocol: {evaluation.convention}")
    console.data(
        "s/MP: seconds per megapixel of output, median of the images; mult./px: multiplications per input pixel"
    )
    reasons = {(name, why) for result in evaluation.results for name, why in result.unavailable.items()}
    for name, why in sorted(reasons):
        console.data(f"{METRICS[name].title.split(',')[0]}: {why}")
    for line in poster.CAVEATS if evaluation.against else ():
        console.data(line)


def _costs(result: ModelScores) -> list[str]:
    """Seconds per megapixel and multiplications per pixel, as a table shows them."""
    seconds, count = result.seconds_per_megapixel, result.multiplications
    return ["–" if seconds is None else f"{seconds:.3g}", "–" if count is None else f"{count:,}"]


def _qualities(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the values of `--input-jpeg`. Raises UsageError for one that is no number."""
    numbers = [number for text in texts for number in text.split(",")]
    if wrong := [number for number in numbers if not number.strip().isdecimal()]:
        raise UsageError(f"--input-jpeg takes qualities from 1 to 100, not {wrong[0]!r}")
    return tuple(int(number) for number in numbers)


def _self_check(
    console: Console, folder: Path | None, niqe_parameters: Path | None, nrqm_model: Path | None, offline: bool
) -> int:
    from sr_cli.evaluate import self_check

    checks = self_check.run(folder, niqe_parameters, nrqm_model, offline=offline, note=console.note)
    if console.machine:
        results = [{**vars(check), "agrees": check.agrees} for check in checks]
        (console.document if console.json_document else console.event)({"results": results})
    else:
        rows = [[c.image, c.metric, f"{c.official:.4f}", *_deviation(c.ours, c.official, c.agrees)] for c in checks]
        console.table(["image", "metric", "official", "here", "deviation", "agrees"], rows)
        console.data(self_check.verdict(checks))
    return 0 if all(check.agrees for check in checks) else 1


def _deviation(ours: float | None, official: float, agrees: bool) -> list[str]:
    if ours is None:
        return ["–", "–", "unknown"]
    return [f"{ours:.4f}", f"{100 * (ours / official - 1):+.2f} %", "yes" if agrees else "NO"]
