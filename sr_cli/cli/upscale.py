"""`srup upscale`: enlarge photos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli.console import Bar, Console, EventConsole, Verbose, binary_input, binary_output
from sr_cli.errors import INTERRUPTED, TERMINATED, Interrupted, Terminated, UsageError
from sr_cli.options import Option, output_option
from sr_cli.upscale.options import UpscaleOptions

if TYPE_CHECKING:
    from sr_cli.upscale.estimate import Estimate, FileEstimate
    from sr_cli.upscale.events import ImageResult, Summary, UpscaleEvent


EXAMPLES = {
    "srup upscale photo.jpg": "writes photo_mesrgan_x4.jpg next to it",
    "srup upscale photo.jpg --style crisp": "sharper: invents plausible texture",
    "srup upscale holiday/ -r -o large/": "all photos in a folder",
}


@dataclass(frozen=True)
class UpscaleConsole(EventConsole):
    """The console of `srup upscale`."""

    verbose: Verbose = False


def upscale(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, folders or patterns; - is standard input.")
    ],
    *,
    output: Annotated[
        str | None,
        output_option(
            "File or folder for the results; missing folders are created. - is standard output.",
            *("PATH", "next to the photo", "-o", "--output"),
        ),
    ] = None,
    options: UpscaleOptions,
    style: Annotated[
        Literal["natural", "crisp"] | None,
        Option("natural keeps to what is there; crisp invents plausible texture.", group="Look", default="natural"),
    ] = None,
    dry_run: Annotated[
        bool,
        Option("Write nothing; show what would be written and the time, memory and disk space needed.", group="Output"),
    ] = False,
    console: UpscaleConsole,
) -> int:
    """Enlarge photos, four times unless you ask for another size.

    Without -o each result is written next to its photo, as {stem}_{model}_x4. To resume an interrupted batch, run the
    same command again.
    """
    from sr_cli.upscale.batch import run
    from sr_cli.upscale.estimate import estimate
    from sr_cli.upscale.events import exit_code
    from sr_cli.weights import styled

    if output == "-" and console.machine:
        raise UsageError("--json and -o - both write to standard output; give one of them")
    if output == "-" and sys.stdout.isatty():
        raise UsageError("-o - would write a photo to the terminal; redirect it: > FILE")
    if style is not None:
        options = replace(options, model=styled(options.model, style))
    if dry_run:
        return _show(console, estimate(inputs, output, options, stdin=binary_input()))
    with console.progress("starting") as bar:
        view = _View(console, bar)
        try:
            results = run(inputs, output, options, view.show, stdin=binary_input(), stdout=binary_output())
        except (KeyboardInterrupt, Terminated) as stop:
            if view.count < 2:
                raise
            code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
            text = f"stopped: {view.done} of {view.count} done; run the same command again to resume"
            raise Interrupted(text, code) from None
    if len(results) != 1:
        console.note(", ".join(f"{count} {status}" for status, count in _counts(results).items() if count))
    return exit_code(results)


class _View:
    """What a person or a script sees while photos are enlarged."""

    def __init__(self, console: Console, bar: Bar) -> None:
        self.console, self.bar = console, bar
        self.done = 0  #: Photos that are finished: enlarged, or done before.
        self.count = 0  #: Photos in all.

    def show(self, event: UpscaleEvent) -> None:
        if event.kind in ("note", "detail"):
            (self.console.note if event.kind == "note" else self.console.detail)(event.text)
            return
        if event.summary is not None:
            _end(self.console, event.summary)
            return
        self.count = event.count
        self.done += event.kind in ("done", "skipped")
        name = event.input.name if event.kind == "started" else None
        self.bar.update(event.batch, 1, name, f"{self.done}/{self.count}" if self.count > 1 else "")
        if self.console.json_lines:
            self.console.event(_event(event))
        elif event.result is not None:
            _tell(self.console, event.result)


def _end(console: Console, summary: Summary) -> None:
    """Print the last line or the document for scripts, also for an interrupted job."""
    if console.json_lines:
        ending = {"event": "summary", "ending": summary.ending, "count": summary.count}
        console.event({**ending, **_counts(summary.results)})
    elif console.json and (summary.results or summary.ending != "error"):
        document: dict[str, Any] = {"results": [_record(result) for result in summary.results]}
        if summary.ending != "complete":
            document["ending"] = summary.ending
        console.document(document)


def _show(console: Console, estimate: Estimate) -> int:
    """Show the dry run, as a table or as JSON; return the exit code that the run would have."""
    from sr_cli.storage import format_bytes
    from sr_cli.upscale.events import exit_code

    total = {
        "files": len(estimate.planned),
        "disk_bytes": estimate.disk_bytes,
        "disk_free_bytes": estimate.disk_free,
        "memory_bytes": estimate.memory_bytes,
        "seconds": round(estimate.seconds, 1),
    }
    records = [_planned(file) for file in estimate.files]
    shares = {kind: parts for kind, parts in (("shard", estimate.shards), ("worker", estimate.workers)) if parts}
    shared = {
        f"{kind}s": [{kind: p.name, "files": p.files, "pixels": p.pixels, "seconds": p.seconds} for p in parts]
        for kind, parts in shares.items()
    }
    if console.json:
        console.document({"dry_run": True, "results": records, "total": total, **shared})
    elif console.json_lines:
        for record in records:
            console.event({"event": record["status"], **record})
        console.event({"event": "summary", "ending": "complete", "count": len(records), **total, **shared})
    else:
        columns = ("output", "from", "to", "tiles", "memory", "disk", "time")
        console.table(columns, [_row(file) for file in estimate.planned])
        for kind, parts in shares.items():
            rows = [[p.name, str(p.files), f"{p.pixels / 1e6:.1f}", _duration(p.seconds)] for p in parts]
            console.table((kind, "photos", "megapixels", "time"), rows)
        for file in estimate.files:
            if file.status == "failed":
                console.error(file.error or "would fail")
        free = "" if estimate.disk_free is None else f" of {format_bytes(estimate.disk_free)} free"
        count, time = len(estimate.planned), _duration(estimate.seconds)
        skipped = sum(file.status == "skipped" for file in estimate.files)
        done = f"; {skipped} exist already" if skipped else ""
        photos = "1 photo" if count == 1 else f"{count} photos"
        console.note(f"{photos} would take about {time} and {format_bytes(estimate.disk_bytes)}{free}{done}")
    return exit_code(estimate.files)


def _planned(file: FileEstimate) -> dict[str, Any]:
    record = {name: value for name, value in vars(file).items() if name not in ("note", "error", "exit_code")}
    record.update(input=str(file.input), output=str(file.output), seconds=round(file.seconds, 3))
    if file.status == "skipped":
        record["reason"] = file.note
    if file.status == "failed":
        record.update(error=file.error, exit_code=file.exit_code)
    return record


def _row(file: FileEstimate) -> list[str]:
    from sr_cli.storage import format_bytes

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
    if result.computation is not None:
        record.update(vars(result.computation))
    if result.losses:
        record["losses"] = list(result.losses)
    if result.status == "skipped":
        record["reason"] = result.note
    if result.status == "failed":
        record.update(error=result.error, exit_code=result.exit_code)
    return record


def _event(event: UpscaleEvent) -> dict[str, Any]:
    record = {"event": event.kind, "input": str(event.input), "index": event.index, "count": event.count}
    if event.kind == "progress":
        record.update(done=event.done, total=event.total, batch=round(event.batch, 4))
    if event.result is not None:
        record.update(_record(event.result))
    return record


def _tell(console: Console, result: ImageResult) -> None:
    if result.status == "failed":
        console.error(_failure(result))
    elif result.status == "skipped":
        console.note(f"{result.output}  skipped: {result.note}")
    elif result.output != Path("-"):
        console.note(f"{result.output}  {result.width}x{result.height}  {result.seconds:.1f} s")
    if result.losses:
        console.note(f"  {'; '.join(result.losses)}")
    if result.redone:
        console.warn(f"{result.redone} tiles of {result.input} overflowed in half precision and were redone")


def _failure(result: ImageResult) -> str:
    """Return why a photo failed, with its path once."""
    error = result.error or "failed"
    named = str(result.input) in error or str(result.output) in error
    return error if named or result.input == Path("-") else f"{result.input}: {error}"


def _counts(results: Sequence[ImageResult]) -> dict[str, int]:
    return {status: sum(result.status == status for result in results) for status in ("done", "skipped", "failed")}
