"""`srup compare`: look at models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.console import Console
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.compare import Comparison


def compare(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photograph to enlarge.")],
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Model to compare, may be repeated; every bundled one by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; {stem}_compare.html beside the photo by default.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Also a static sheet of the crops.")] = None,
    fidelity: Annotated[
        list[float] | None,
        typer.Option(
            "--fidelity",
            metavar="0..1",
            help="Between the GAN stage (0) and the stage it was fine-tuned from (1); may be repeated.",
        ),
    ] = None,
    ensemble: shared.Ensemble = False,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="X,Y,W,H", help="Only this part of the photo, in its pixels.")
    ] = None,
    spots: Annotated[int, typer.Option("--spots", help="Places to show where the models differ most.")] = 6,
    max_mb: Annotated[float, typer.Option("--max-mb", help="Largest size of the page in megabytes.")] = 10.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page or sheet that exists.")] = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    tile: shared.Tile = "auto",
    overlap: shared.Overlap = "auto",
    offline: shared.Offline = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Compare models on a photo: one HTML page with a slider, synchronised zoom and the places that differ most.

    The page is complete in itself and needs neither a network nor a server.
    """
    from sr_cli import compare as job

    console = Console(json_document=json, quiet=quiet)
    choices = job.CompareOptions(
        models=tuple(model or ()),
        fidelities=tuple(fidelity or ()),
        ensemble=ensemble,
        crop=None if crop is None else _crop(crop),
        spots=spots,
        max_bytes=int(max_mb * 1e6),
        overwrite=overwrite,
        device=device,
        precision=precision,
        tile=shared.tile(tile),
        overlap=shared.overlap(overlap),
        offline=offline,
    )
    with console.progress(photo.name) as bar:

        def report(event: job.CompareEvent) -> None:
            bar.update(event.done, event.total, event.label or "writing the page")

        result = job.run(photo, choices, report, output=output, png=png)
    if json:
        console.document(_record(result))
        return
    for layer in result.layers:
        if layer.seconds is not None:
            console.note(f"{layer.label}  {layer.seconds:.2f} s")
    detail = "lossless" if result.quality == 100 else f"{result.format} at quality {result.quality}"
    console.note(f"{result.page}  {result.page_bytes / 1e6:.1f} MB, {detail}")
    if result.coverage < 1:
        console.warn(f"{result.coverage:.0%} is stored at full size; --max-mb or --crop gives the rest room")


def _crop(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--crop must be four numbers X,Y,W,H, not {text!r}")
    left, top, width, height = (int(part) for part in parts)
    return left, top, width, height


def _record(result: Comparison) -> dict[str, Any]:
    return {
        "photo": str(result.photo),
        "page": str(result.page),
        "page_bytes": result.page_bytes,
        "sheet": None if result.sheet is None else str(result.sheet),
        "width": result.width,
        "height": result.height,
        "scale": result.scale,
        "format": result.format,
        "quality": result.quality,
        "coverage": result.coverage,
        "layers": [vars(layer) for layer in result.layers],
        "spots": [vars(spot) for spot in result.spots],
    }
