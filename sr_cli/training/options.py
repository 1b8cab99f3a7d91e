"""Options of a training run. Imports nothing heavy, since `--help` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from sr_cli.options import Device, Offline, Option, PrecisionName, validate

Confirm = Callable[[str], bool]  #: Asks a question and returns whether the answer is yes.

_run, _data, _settings, _speed = (partial(Option, group=group) for group in ("Run", "Data", "Settings", "Speed"))


@dataclass(frozen=True)
class TrainOptions:
    """Options of `srup train`. None leaves a setting to the configuration."""

    model: Annotated[
        str | None, _run("Preset to train.", names=("-m", "--model"), metavar="PRESET", default="mesrgan")
    ] = None
    stage: Annotated[
        Literal["pixel", "photo", "gan", "both"] | None, _run("Stage (both: pixel, then gan)", default="both")
    ] = None
    out: Annotated[
        Path | None, _run("The run's folder.", names=("-o", "--out"), metavar="FOLDER", default="runs/MODEL")
    ] = None
    init: Annotated[
        Path | None,
        _run(
            "Weights or checkpoint to start from.",
            metavar="FILE",
            default="random weights, or the bundled pixel stage for photo and gan",
        ),
    ] = None
    teacher: Annotated[
        str | None, _run("Network whose results are the target: what -m accepts.", metavar="MODEL", default="none")
    ] = None
    teacher_weight: Annotated[
        float | None,
        _run(
            "Weight of the teacher's result in the target, 0 to 1; the original has the rest.",
            default="1.0",
            minimum=0,
            maximum=1,
        ),
    ] = None
    resume: Annotated[bool, _run("Resume the run in --out.")] = False
    steps: Annotated[int | None, _run("Total steps of each stage.", default="10000, gan 5000", minimum=1)] = None
    max_minutes: Annotated[
        float | None, _run("Save and stop after this many minutes.", default="no limit", minimum=0)
    ] = None
    data: Annotated[
        tuple[Path, ...],
        _data("Folder of training photos; repeatable.", metavar="FOLDER", default="the set of --dataset"),
    ] = ()
    dataset: Annotated[str | None, _data("Published set, downloaded when needed.", metavar="NAME", default="div2k")] = (
        None
    )
    val: Annotated[
        Path | None, _data("Folder of validation photos.", metavar="FOLDER", default="a few training photos")
    ] = None
    degrade: Annotated[
        Literal["none", "photo"] | None, _data("Damage to the inputs: photo adds blur, noise and JPEG.", default="none")
    ] = None
    recipe: Annotated[Literal["ours", "poster"], _settings("Settings to start from.")] = "ours"
    config: Annotated[
        Path | None, _settings("TOML file of settings, applied over the recipe.", metavar="FILE", default="none")
    ] = None
    batch: Annotated[int | None, _settings("Patches per step, over all processes.", default="16", minimum=1)] = None
    patch: Annotated[int | None, _settings("Side of a patch in output pixels.", default="128", minimum=16)] = None
    lr: Annotated[
        float | None,
        _settings(
            "Peak learning rate of the generator; the discriminator's changes in proportion.",
            default="0.001, gan 0.0001",
        ),
    ] = None
    seed: Annotated[int | None, _settings("Seed of weights and patches.", default="0", minimum=0)] = None
    feature_net: Annotated[
        Literal["vgg19", "squeezenet1_1", "none"] | None, _settings("Network of the feature loss", default="vgg19")
    ] = None
    feature_weights: Annotated[
        Path | None, _settings("File of its weights.", metavar="FILE", default="downloaded when first used")
    ] = None
    device: Device = "auto"
    precision: Annotated[PrecisionName | None, _speed("Number format", default="auto")] = None
    threads: Annotated[int | None, _speed("Threads to compute with on a CPU.", default="all cores", minimum=1)] = None
    workers: Annotated[
        int | None, _speed("Processes that prepare patches.", default="by number of cores", minimum=0)
    ] = None
    offline: Offline = False
    cache: Path | None = None  #: Where decoded images are kept.
    confirm: Confirm | None = None  #: Asked before large downloads; None stands for no.

    def __post_init__(self) -> None:
        validate(self)
