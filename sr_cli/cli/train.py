"""`srup train`."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import options
from sr_cli.cli.console import Console

if TYPE_CHECKING:
    from sr_cli.training.events import Event, Progress, Report, TrainResult

PLAIN_SECONDS = 10.0
"""Time between two progress lines where there is no terminal."""
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train(
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folder of training images; may be repeated.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Published set, downloaded when needed. [div2k]")] = None,
    stage: Annotated[str | None, typer.Option(help="pixel, gan or both. [both]")] = None,
    model: Annotated[str | None, typer.Option("-m", "--model", help="Preset to train. [mesrgan]")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The run's folder. [runs/MODEL]")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights or checkpoint to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Total steps of each stage.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Save and stop after this time.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches per step, over all processes. [16]")] = None,
    patch: Annotated[int | None, typer.Option(min=16, help="Side of a patch in output pixels. [128]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    degrade: Annotated[str | None, typer.Option(help="none, or photo: blur, noise and JPEG as well.")] = None,
    val: Annotated[Path | None, typer.Option(help="Validation images; some are held out otherwise.")] = None,
    recipe: Annotated[str, typer.Option(help="Settings to start from: ours, or poster.")] = "ours",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings over the recipe.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and patches. [0]")] = None,
    device: options.Device = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or bf16.")] = None,
    feature_net: Annotated[str | None, typer.Option(help="vgg19, squeezenet1_1 or none. [vgg19]")] = None,
    feature_weights: Annotated[Path | None, typer.Option(help="File of its weights; no download.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with on CPU.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare patches.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download gigabytes without asking.")] = False,
    offline: options.Offline = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
) -> int:
    """Train a generator: pixel stage, GAN stage, or both."""
    from sr_cli.training.job import TrainOptions, run_training

    # Of torchrun's processes, the first one speaks.
    first = os.environ.get("RANK", "0") == "0"
    console = Console(json_lines=json_lines and first, quiet=quiet or not first)
    asked = TrainOptions(
        model=model,
        stage=stage,
        out=out,
        data=tuple(data or ()),
        dataset=dataset,
        val=val,
        init=init,
        resume=resume,
        recipe=recipe,
        config=config,
        steps=steps,
        max_minutes=max_minutes,
        batch=batch,
        patch=patch,
        lr=lr,
        degrade=degrade,
        seed=seed,
        precision=precision,
        feature_net=feature_net,
        feature_weights=feature_weights,
        device=device,
        threads=threads,
        workers=workers,
        offline=offline,
        confirm=_confirm(yes),
    )
    with _view(console) as report:
        result = run_training(asked, report)
    return _finish(console, result)


def _confirm(yes: bool) -> Callable[[str], bool] | None:
    """How to ask before downloads: not at all with --yes, and where nobody can answer."""
    if yes:
        return lambda _: True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: typer.confirm(question, err=True)


def _finish(console: Console, result: TrainResult) -> int:
    if console.machine:
        console.event({"event": "done", **result.to_dict()})
    for done in result.stages:
        console.note(f"{done.stage}: {done.step}/{done.steps} steps, {done.val_psnr_y:.2f} dB, {done.weights}")
    if result.skipped_images:
        console.note(f"{result.skipped_images} images could not be used")
    if result.interrupted:
        console.note(f"stopped by {result.interrupted}, saved; continue with --resume --out {result.run}")
    return EXIT_CODES.get(result.interrupted or "", 0)


@contextmanager
def _view(console: Console) -> Iterator[Report]:
    """What shows a run while it goes on: JSON lines, a live line on a terminal, or plain lines."""
    from sr_cli.training.events import Download, Notice

    if console.machine:
        yield lambda event: console.event(event.to_dict())
        return
    with console.progress("starting") as bar:
        live = sys.stderr.isatty()
        shown = 0.0
        psnr: float | None = None

        def report(event: Event) -> None:
            nonlocal shown, psnr
            if isinstance(event, Notice):
                console.note(event.message)
                return
            if isinstance(event, Download):
                bar.update(event.done, event.total or 0, f"downloading {event.what}")
                return
            psnr = psnr if event.val_psnr_y is None else event.val_psnr_y
            bar.update(event.step, event.steps, _short(event, psnr))
            now = time.monotonic()
            if event.val_psnr_y is not None or (not live and now - shown >= PLAIN_SECONDS):
                console.note(f"{event.stage} {event.step}/{event.steps}: {_long(event)}")
                shown = now

        yield report


def _short(event: Progress, psnr: float | None) -> str:
    """What fits beside a bar."""
    quality = "" if psnr is None else f" {psnr:.2f} dB"
    return (
        f"{event.stage} loss {event.losses.get('loss', math.nan):.4f}{quality} {event.images_per_second:.1f} images/s"
    )


def _long(event: Progress) -> str:
    losses = " ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
    psnr = "" if event.val_psnr_y is None else f", validation {event.val_psnr_y:.2f} dB"
    bad = f", {event.bad_steps} bad steps" if event.bad_steps else ""
    return f"{losses}{psnr}, {event.images_per_second:.1f} images/s, {event.waiting:.0%} waiting for data{bad}"
