"""`srup upscale`: enlarge photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.console import Console

if TYPE_CHECKING:
    from sr_cli.upscale import ImageResult, UpscaleEvent


def upscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Photographs to enlarge.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Output file, or an existing folder.")] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", help="Model name, name:stage, path to .safetensors, bicubic or lanczos.")
    ] = "mesrgan",
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    tile: shared.Tile = "auto",
    overlap: shared.Overlap = "auto",
    format: Annotated[
        str | None, typer.Option("--format", help="Output format where no suffix tells: png, jpg, webp or tiff.")
    ] = None,
    quality: Annotated[int | None, typer.Option("--quality", help="1 to 100, for JPEG and WebP (95).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Keep outputs that exist.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Write no metadata but the colour profile.")] = False,
    fidelity: shared.Fidelity = None,
    ensemble: shared.Ensemble = False,
    offline: shared.Offline = False,
    json: shared.Json = False,
    json_lines: shared.JsonLines = False,
    quiet: shared.Quiet = False,
) -> int:
    """Enlarge photographs by 4.

    Without -o the result lies beside its input as {stem}_{model}_x4.
    """
    from sr_cli import upscale as job

    console = Console(json_document=json, json_lines=json_lines, quiet=quiet)
    choices = job.UpscaleOptions(
        model=model,
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
    )
    with console.progress("starting") as bar:

        def report(event: job.UpscaleEvent) -> None:
            if event.kind == "started":
                bar.update(0, 1, event.input.name)
            elif event.kind == "progress":
                bar.update(event.done, event.total)
            if json_lines:
                console.event(_event(event))
            elif event.result is not None:
                _tell(console, event.result)

        results = job.run(inputs, output, choices, report)
    if json:
        console.document({"results": [_record(result) for result in results]})
    return job.exit_code(results)


def _record(result: ImageResult) -> dict[str, Any]:
    return {
        "input": str(result.input),
        "output": str(result.output),
        "status": result.status,
        "width": result.width,
        "height": result.height,
        "tiles": result.tiles,
        "seconds": round(result.seconds, 3),
        "error": result.error,
    }


def _event(event: UpscaleEvent) -> dict[str, Any]:
    record: dict[str, Any] = {"event": event.kind, "input": str(event.input), "index": event.index}
    record["count"] = event.count
    if event.kind == "progress":
        record.update(done=event.done, total=event.total)
    if event.result is not None:
        record.update(_record(event.result))
    return record


def _tell(console: Console, result: ImageResult) -> None:
    if result.status == "failed":
        console.error(result.error or "failed")
    elif result.status == "skipped":
        console.note(f"{result.output} exists: skipped")
    else:
        console.note(f"{result.output}  {result.width}x{result.height}  {result.seconds:.1f} s")
        if result.redone:
            console.warn(f"{result.redone} tiles of {result.input} overflowed in half precision and were redone")
