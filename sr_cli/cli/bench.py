"""`srup bench`: measures the speed of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sr_cli.bench.options import BenchOptions
from sr_cli.cli.console import Console, ResultConsole
from sr_cli.options import Option, output_option

if TYPE_CHECKING:
    from sr_cli.bench.results import BenchEvent, BenchResult, Cell


def bench(
    options: BenchOptions,
    against: Annotated[
        Literal["poster"] | None, Option("Also show published times.", group="Output", default="none")
    ] = None,
    plot: Annotated[Path | None, output_option("Draw a chart of the times, as .svg or .png.")] = None,
    *,
    console: ResultConsole,
) -> int:
    """Measure the speed of models on this machine, in each precision and backend."""
    from sr_cli.bench.job import run
    from sr_cli.pages.drawing import check_suffix

    if plot is not None:
        check_suffix(plot)
    with console.progress("starting") as bar:

        def report(event: BenchEvent) -> None:
            if event.kind == "note":
                console.note(event.text)
            else:
                bar.update(event.done, event.total, event.text)

        result = run(options, report)
    if console.json:
        from sr_cli.bench.published import PUBLISHED_MS

        console.document({**vars(result), **({"poster_ms": PUBLISHED_MS} if against else {})})
    else:
        _show(console, result)
        if against:
            _show_published(console, result)
    if plot is not None:
        _plot(plot, result)
        console.note(str(plot))
    return 0


def _show(console: Console, result: BenchResult) -> None:
    facts = [str(value) if name == "processor" else f"{name} {value}" for name, value in result.machine.items()]
    console.data(f"{result.device}: {', '.join(facts)}")
    names = [model.model for model in result.models]
    rows = []
    for batch in result.batches:
        for precision, backend in result.columns:
            cells = [result.cell(name, batch, precision, backend) for name in names]
            base = result.cell("esrgan", batch, precision, backend)
            rows.append([f"{batch}  {precision} {backend}", *(_time(cell, base) for cell in cells)])
    title = f"Forward pass of {result.size}x{result.size} inputs: median ms (ratio to ESRGAN)"
    console.table(["batch", *names], rows, title)
    if any(cell.disturbed for cell in result.results):
        console.data("~ disturbed: the middle 80 % of the times spread over more than a fifth of their median")
    if len(result.columns) > 1:
        first = result.batches[0]
        errors = []
        for precision, backend in result.columns:
            cells = [result.cell(name, first, precision, backend) for name in names]
            errors.append([f"{precision} {backend}", *(f"{cell.levels:.3f}" if cell else "" for cell in cells)])
        console.table(["", *names], errors, "Largest difference from fp32 eager, in levels of 255")
    columns = ["model", "weights", "parameters", "multiplications/pixel", "ratio", "memory, MiB"]
    base_cost = next((m.multiplications for m in result.models if m.model == "esrgan"), None)
    costs = [
        [
            model.model,
            model.weights,
            f"{model.parameters:,}",
            f"{model.multiplications:,}",
            f"{model.multiplications / base_cost:.2f}" if base_cost else "",
            f"{model.peak_bytes / 2**20:.0f}" if model.peak_bytes else "",
        ]
        for model in result.models
    ]
    console.table(columns, costs, "Costs of one input")
    if result.photos:
        titles = ["model", "column", "output megapixels/s", "not network", "overlap"]
        shares = [
            [
                cell.model,
                f"{cell.precision} {cell.backend}",
                f"{'~' if cell.disturbed else ''}{cell.megapixels_per_second:.2f}",
                f"{100 * cell.not_network:.1f} %",
                f"{100 * cell.overlap:.1f} %",
            ]
            for cell in result.photos
        ]
        console.table(titles, shares, "A whole photo")


def _time(cell: Cell | None, base: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{'~' if cell.disturbed else ''}{_ratio(cell.median_ms, base.median_ms if base else None, 1)}"


def _show_published(console: Console, result: BenchResult) -> None:
    """Print published times and ours in their unit, the mean, both with their ratios to ESRGAN."""
    from sr_cli.bench.published import PUBLISHED_MS

    published = {"srgan": "srgan", "esrgan": "esrgan", "mesrgan-poster": "mesrgan"}  # theirs by our names
    names = [*published, "mesrgan"]
    precision, backend = result.columns[0]
    rows = []
    for batch in result.batches:
        row = [str(batch)]
        cells = {name: result.cell(name, batch, precision, backend) for name in names}
        ours = {name: cell.mean_ms for name, cell in cells.items() if cell}
        for name in names:
            if name in published:
                row.append(_ratio(PUBLISHED_MS[published[name]].get(batch), PUBLISHED_MS["esrgan"].get(batch), 0))
            row.append(_ratio(ours.get(name), ours.get("esrgan"), 0))
        rows.append(row)
    columns = ["batch"]
    for name in names:
        columns += [f"{published[name]}, published"] if name in published else []
        columns.append(f"{name}, here")
    console.table(columns, rows, f"Mean ms (ratio to ESRGAN): published, and here in {precision} {backend}")


def _ratio(value: float | None, base: float | None, digits: int) -> str:
    """Return a time with its ratio to another one where there is one."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ({value / base:.2f})" if base else "")


def _plot(path: Path, result: BenchResult) -> None:
    from sr_cli.pages import charts

    names = [model.model for model in result.models]
    panels = []
    for precision, backend in result.columns:
        table = [[result.cell(name, batch, precision, backend) for batch in result.batches] for name in names]
        values = [[cell.median_ms if cell else None for cell in row] for row in table]
        panels.append(charts.BarPanel(f"{precision} {backend}", [f"batch {b}" for b in result.batches], values))
    where = result.machine.get("accelerator", result.machine["processor"])
    charts.bars(f"Forward pass of {result.size}x{result.size} inputs on {where}", "ms", names, panels).save(path)
