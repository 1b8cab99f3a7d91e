"""`srup compare`: compares models on a photo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli.console import ResultConsole
from sr_cli.compare.options import CompareOptions
from sr_cli.options import output_option

if TYPE_CHECKING:
    from sr_cli.compare.job import Comparison

_PAGE = "{stem}_compare.html next to the photo"


def compare(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo to enlarge.")],
    *,
    output: Annotated[Path | None, output_option("The page to write.", "FILE", _PAGE, "-o", "--output")] = None,
    png: Annotated[Path | None, output_option("Also write the places that differ most as one PNG.")] = None,
    options: CompareOptions,
    console: ResultConsole,
) -> None:
    """Compare models on a photo, in one HTML page with a slider and synchronised zoom.

    The page needs no network and no server: open it in a browser, or send it to somebody.
    """
    from sr_cli.compare.job import CompareEvent, run

    started = time.monotonic()
    with console.progress(photo.name) as bar:

        def on_event(event: CompareEvent) -> None:
            step = min(int(event.done) + 1, event.steps)
            bar.update(event.done, event.steps, f"{step} of {event.steps}: {event.label}")

        result = run(photo, options, on_event, output=output, png=png)
    if console.json:
        console.document(result)
        return
    for layer in result.layers:
        if layer.seconds is not None:
            console.note(f"{layer.label}  {layer.seconds:.2f} s")
    console.note(_summary(result, time.monotonic() - started))
    if result.coverage < 1:
        console.warn(f"{result.coverage:.0%} is stored at full size; --max-mb or --crop gives the rest room")


def _summary(result: Comparison, seconds: float) -> str:
    """Return what was done, in one line."""
    from sr_cli.storage import format_bytes

    detail = "lossless" if result.quality == 100 else f"{result.format} at quality {result.quality}"
    models = len(result.layers) - 2  # the photo's own pixels and bicubic are always there
    return (
        f"compared {models} model{'' if models == 1 else 's'} on {result.photo.name} in {seconds:.1f} s: "
        f"open {result.page} in a browser ({format_bytes(result.page_bytes)}, {detail})"
    )
