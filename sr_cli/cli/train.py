"""`srup train`."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli.console import Bar, Console, JsonLines, Quiet, wrapped
from sr_cli.errors import Interrupted
from sr_cli.options import Option
from sr_cli.training.options import TrainOptions

if TYPE_CHECKING:
    from sr_cli.training.events import OnEvent, StageProgress, TrainEvent, TrainResult

PLAIN_SECONDS = 10.0  #: Time between two progress lines where there is no terminal.
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


@dataclass(frozen=True)
class TrainConsole(Console):
    """The console of `srup train`."""

    json_lines: JsonLines = False
    quiet: Quiet = False


def train(
    options: TrainOptions,
    yes: Annotated[
        bool, Option("Download gigabytes without asking.", names=("-y", "--yes"), group="For scripts")
    ] = False,
    *,
    console: TrainConsole,
) -> int:
    """Train a network: pixel stage, photo stage, GAN stage."""
    from sr_cli.training.job import run_training

    # Of torchrun's processes, the first one speaks.
    first = os.environ.get("RANK", "0") == "0"
    console = console if first else TrainConsole(quiet=True)
    with console.progress("starting") as bar:
        result = run_training(replace(options, confirm=_confirm(yes, bar)), _report(console, bar))
    _summarise(console, result)
    if result.interrupted is None:
        return 0
    hint = f"stopped by {result.interrupted}, saved; continue with --resume --out {result.run}"
    code = EXIT_CODES.get(result.interrupted, 0)
    if code and first:
        raise Interrupted(hint, code)  # said under --quiet and --json-lines as well, as for a batch
    console.note(hint)
    return code


def _confirm(yes: bool, bar: Bar) -> Callable[[str], bool] | None:
    """Return how to ask before downloads; None where there is no terminal to answer on."""
    if yes:
        return lambda _: True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(question: str) -> bool:
        with bar.hidden():
            return typer.confirm(wrapped(f"{question} [y/N]", spare=len(": y")), err=True, show_default=False)

    return ask


def _summarise(console: Console, result: TrainResult) -> None:
    from sr_cli.training.events import to_dict

    if console.machine:
        console.event({"event": "done", **to_dict(result)})
    for done in result.stages:
        quality = "not yet validated" if done.val_psnr_y is None else f"{done.val_psnr_y:.2f} dB, {done.weights}"
        console.note(f"{done.stage}: {done.step}/{done.steps} steps, {quality}")
    if result.skipped_images:
        console.note(f"{result.skipped_images} photos could not be used")


def _report(console: Console, bar: Bar) -> OnEvent:
    """Return the function that shows a run while it lasts: JSON lines, a live line on a terminal, or plain lines."""
    from sr_cli.training.events import Download, Notice, Teaching, to_dict

    if console.machine:
        return lambda event: console.event(to_dict(event))
    live = sys.stderr.isatty()
    shown = 0.0
    psnr: float | None = None

    def report(event: TrainEvent) -> None:
        nonlocal shown, psnr
        if isinstance(event, Notice):
            console.note(event.message)
            return
        if isinstance(event, Download):
            bar.update(event.done, event.total or 0, f"downloading {event.what}")
            return
        if isinstance(event, Teaching):
            bar.update(event.done, event.total, f"{event.teacher} enlarges the training photos")
            return
        psnr = psnr if event.val_psnr_y is None else event.val_psnr_y
        loss = event.losses.get("loss", math.nan)
        quality = "" if psnr is None else f" {psnr:.2f} dB"
        text = f"{event.stage} loss {loss:.4f}{quality} {event.images_per_second:.1f} images/s"
        bar.update(event.step, event.steps, text, f"{event.step}/{event.steps}")
        now = time.monotonic()
        if event.val_psnr_y is not None or (not live and now - shown >= PLAIN_SECONDS):
            console.note(f"{event.stage} {event.step}/{event.steps}: {_long(event)}")
            shown = now

    return report


def _long(event: StageProgress) -> str:
    losses = " ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
    bicubic = "" if event.bicubic_psnr_y is None else f" (bicubic {event.bicubic_psnr_y:.2f})"
    psnr = "" if event.val_psnr_y is None else f", validation {event.val_psnr_y:.2f} dB{bicubic}"
    bad = f", {event.bad_steps} bad steps" if event.bad_steps else ""
    return f"{losses}{psnr}, {event.images_per_second:.1f} images/s, {event.waiting:.0%} waiting for data{bad}"
