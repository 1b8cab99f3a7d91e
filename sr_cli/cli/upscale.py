"""`srup upscale`: enlarge photographs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.console import Console
from sr_cli.errors import UsageError
from sr_cli.storage import format_bytes

if TYPE_CHECKING:
    from sr_cli.upscale import Estimate, FileEstimate, ImageResult, UpscaleEvent


def upscale(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Photographs, folders, patterns; - is standard input.")
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output file, or folder (made if need be); - is stdout.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="Model name, name:stage, path to .safetensors, bicubic or lanczos.",
            autocompletion=shared.complete_model,
        ),
    ] = "mesrgan",
    scale: Annotated[float | None, typer.Option("--scale", metavar="1..16", help="Factor. [4]")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Columns of the result, instead of a factor.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Rows of the result, instead of a factor.")] = None,
    max_side: Annotated[int | None, typer.Option("--max-side", help="Reduce results with a longer side.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Output names, of {stem} {name} {parent} {model} {size} {scale} {ext}."),
    ] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Look into folders inside folders.")] = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    tile: shared.Tile = "auto",
    overlap: shared.Overlap = "auto",
    format: Annotated[
        str | None, typer.Option("--format", help="Output format where no suffix tells: png, jpg, webp or tiff.")
    ] = None,
    quality: Annotated[int | None, typer.Option("--quality", help="1 to 100: JPEG (95) and WebP (90).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Keep outputs that exist.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Write no metadata but the colour profile.")] = False,
    fidelity: shared.Fidelity = None,
    ensemble: shared.Ensemble = False,
    offline: shared.Offline = False,
    max_pixels: Annotated[int | None, typer.Option("--max-pixels", help="Refuse larger inputs.")] = None,
    max_output_pixels: Annotated[int | None, typer.Option("--max-output-pixels", help="Refuse larger results.")] = None,
    max_frames: Annotated[int | None, typer.Option("--max-frames", help="Refuse longer animations.")] = None,
    max_metadata_bytes: Annotated[
        int | None, typer.Option("--max-metadata-bytes", help="Refuse files with more metadata.")
    ] = None,
    max_input: Annotated[
        int | None, typer.Option("--max-input", help="Refuse more bytes from standard input or a pipe. [512 MiB]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes, memory, disk, time; do nothing.")] = False,
    json: shared.Json = False,
    json_lines: shared.JsonLines = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> int:
    """Enlarge photographs, by 4 unless told otherwise.

    Without -o each result lies beside its input, as {stem}_{model}_x4. A batch that was interrupted goes on where
    it stopped when the same command is given again.
    """
    from sr_cli import upscale as job

    if output == "-" and (json or json_lines):
        raise UsageError("--json and -o - both write to standard output; give one of them")
    if output == "-" and sys.stdout.isatty():
        raise UsageError("-o - would write a picture to the terminal; redirect it: > FILE")
    console = Console(json_document=json, json_lines=json_lines, quiet=quiet, verbose=verbose)
    choices = job.UpscaleOptions(
        model=model,
        scale=scale,
        width=width,
        height=height,
        max_side=max_side,
        name=name,
        recursive=recursive,
        device=device,
        precision=precision,
        tile=shared.tile(tile),
        overlap=shared.overlap(overlap),
        format=format,
        quality=quality,
        overwrite=overwrite,
        skip_existing=skip_existing,
        strip=strip,
        fidelity=fidelity,
        ensemble=ensemble,
        offline=offline,
        limits=job.limits(max_pixels, max_output_pixels, max_frames, max_metadata_bytes, max_input),
    )
    if dry_run:
        return _show(console, job.estimate(inputs, output, choices, stdin=sys.stdin.buffer))
    with console.progress("starting") as bar:

        def report(event: UpscaleEvent) -> None:
            if event.kind == "note":
                console.note(event.text)
                return
            if event.kind == "detail":
                console.detail(event.text)
                return
            name = event.input.name if event.kind == "started" else None
            bar.update(event.batch * event.count, event.count, name)
            if json_lines:
                console.event(_event(event))
            elif event.result is not None:
                _tell(console, event.result)

        results = job.run(inputs, output, choices, report, stdin=sys.stdin.buffer, stdout=sys.stdout.buffer)
    if json:
        console.document({"results": [_record(result) for result in results]})
    _summarise(console, results)
    return job.exit_code(results)


def _show(console: Console, estimate: Estimate) -> int:
    """The dry run, as a table or as JSON; its exit code is the one that the run would have."""
    from sr_cli import upscale as job

    total = {
        "files": len(estimate.planned),
        "disk_bytes": estimate.disk_bytes,
        "disk_free_bytes": estimate.disk_free,
        "memory_bytes": estimate.memory_bytes,
        "seconds": round(estimate.seconds, 1),
    }
    records = [_planned(file) for file in estimate.files]
    if console.json_document:
        console.document({"dry_run": True, "results": records, "total": total})
    elif console.json_lines:
        for record in records:
            console.event({"event": record["status"], **record})
    else:
        columns = ("output", "from", "to", "tiles", "memory", "disk", "time")
        console.table(columns, [_row(file) for file in estimate.planned])
        for file in estimate.files:
            if file.status == "failed":
                console.error(file.error or "would fail")
        free = "" if estimate.disk_free is None else f" of {format_bytes(estimate.disk_free)} free"
        count, time = len(estimate.planned), _duration(estimate.seconds)
        skipped = sum(file.status == "skipped" for file in estimate.files)
        done = f", {skipped} are there already" if skipped else ""
        console.note(f"{count} files would take about {time} and {format_bytes(estimate.disk_bytes)}{free}{done}")
    return job.exit_code(estimate.files)


def _planned(file: FileEstimate) -> dict[str, Any]:
    record = {name: value for name, value in vars(file).items() if name not in ("note", "error", "exit_code")}
    record.update(input=str(file.input), output=str(file.output), seconds=round(file.seconds, 3))
    if file.status == "skipped":
        record["reason"] = file.note
    if file.status == "failed":
        record.update(error=file.error, exit_code=file.exit_code)
    return record


def _row(file: FileEstimate) -> list[str]:
    frames = f" x {file.frames}" if file.frames > 1 else ""
    size, wish = f"{file.input_width}x{file.input_height}{frames}", f"{file.width}x{file.height}"
    amounts = format_bytes(file.memory_bytes), format_bytes(file.disk_bytes), _duration(file.seconds)
    return [str(file.output), size, wish, str(file.tiles), *amounts]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _record(result: ImageResult) -> dict[str, Any]:
    record = {
        "input": str(result.input),
        "output": str(result.output),
        "status": result.status,
        "width": result.width,
        "height": result.height,
        "tiles": result.tiles,
        "seconds": round(result.seconds, 3),
    }
    if result.losses:
        record["losses"] = list(result.losses)
    if result.status == "skipped":
        record["reason"] = result.note
    if result.status == "failed":
        record.update(error=result.error, exit_code=result.exit_code)
    return record


def _event(event: UpscaleEvent) -> dict[str, Any]:
    record: dict[str, Any] = {"event": event.kind, "input": str(event.input), "index": event.index}
    record["count"] = event.count
    if event.kind == "progress":
        record.update(done=event.done, total=event.total, batch=round(event.batch, 4))
    if event.result is not None:
        record.update(_record(event.result))
    return record


def _tell(console: Console, result: ImageResult) -> None:
    if result.status == "failed":
        console.error(result.error or "failed")
    elif result.status == "skipped":
        console.note(f"{result.output}  skipped: {result.note}")
    elif result.output != Path("-"):
        console.note(f"{result.output}  {result.width}x{result.height}  {result.seconds:.1f} s")
    if result.losses:
        console.note(f"  {'; '.join(result.losses)}")
    if result.redone:
        console.warn(f"{result.redone} tiles of {result.input} overflowed in half precision and were redone")


def _summarise(console: Console, results: list[ImageResult]) -> None:
    if len(results) == 1:
        return
    counts = {status: sum(result.status == status for result in results) for status in ("done", "skipped", "failed")}
    console.note(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    for result in results:
        if result.status == "failed":
            console.note(f"  {result.input}: {result.error}")
