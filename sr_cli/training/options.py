"""Options of a training run. Imports nothing heavy, since `--help` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sr_cli.options import Device, Offline, Option, PrecisionName, validate

Confirm = Callable[[str], bool]  #: Asks a question and returns whether the answer is yes.


@dataclass(frozen=True)
class TrainOptions:
    """Options of `srup train`. None leaves a setting to the configuration."""

    model: Annotated[
        str | None,
        Option("Preset to train.", names=("-m", "--model"), group="Run", metavar="PRESET", default="mesrgan"),
    ] = None
    stage: Annotated[
        Literal["pixel", "photo", "gan", "both"] | None,
        Option("Stage (both: pixel, then gan)", group="Run", default="both"),
    ] = None
    out: Annotated[
        Path | None,
        Option("The run's folder.", names=("-o", "--out"), group="Run", metavar="FOLDER", default="runs/MODEL"),
    ] = None
    init: Annotated[
        Path | None,
        Option(
            "Weights or checkpoint to start from.",
            group="Run",
            metavar="FILE",
            default="random weights, or the bundled pixel stage for photo and gan",
        ),
    ] = None
    teacher: Annotated[
        str | None,
        Option("Network whose results are the target: what -m accepts.", group="Run", metavar="MODEL", default="none"),
    ] = None
    teacher_weight: Annotated[
        float | None,
        Option(
            "Weight of the teacher's result in the target, 0 to 1; the original has the rest.",
            group="Run",
            default="1.0",
            minimum=0,
            maximum=1,
        ),
    ] = None
    resume: Annotated[bool, Option("Resume the run in --out.", group="Run")] = False
    steps: Annotated[
        int | None, Option("Total steps of each stage.", group="Run", default="10000, gan 5000", minimum=1)
    ] = None
    max_minutes: Annotated[
        float | None, Option("Save and stop after this many minutes.", group="Run", default="no limit", minimum=0)
    ] = None
    data: Annotated[
        tuple[Path, ...],
        Option(
            "Folder of training photos; repeatable.", group="Data", metavar="FOLDER", default="the set of --dataset"
        ),
    ] = ()
    dataset: Annotated[
        str | None, Option("Published set, downloaded when needed.", group="Data", metavar="NAME", default="div2k")
    ] = None
    val: Annotated[
        Path | None,
        Option("Folder of validation photos.", group="Data", metavar="FOLDER", default="a few training photos"),
    ] = None
    degrade: Annotated[
        Literal["none", "photo"] | None,
        Option("Damage to the inputs: photo adds blur, noise and JPEG.", group="Data", default="none"),
    ] = None
    recipe: Annotated[Literal["ours", "poster"], Option("Settings to start from.", group="Settings")] = "ours"
    config: Annotated[
        Path | None,
        Option("TOML file of settings, applied over the recipe.", group="Settings", metavar="FILE", default="none"),
    ] = None
    batch: Annotated[
        int | None, Option("Patches per step, over all processes.", group="Settings", default="16", minimum=1)
    ] = None
    patch: Annotated[
        int | None, Option("Side of a patch in output pixels.", group="Settings", default="128", minimum=16)
    ] = None
    lr: Annotated[
        float | None,
        Option(
            "Peak learning rate of the generator; the discriminator's changes in proportion.",
            group="Settings",
            default="0.001, gan 0.0001",
        ),
    ] = None
    seed: Annotated[int | None, Option("Seed of weights and patches.", group="Settings", default="0", minimum=0)] = None
    feature_net: Annotated[
        Literal["vgg19", "squeezenet1_1", "none"] | None,
        Option("Network of the feature loss", group="Settings", default="vgg19"),
    ] = None
    feature_weights: Annotated[
        Path | None,
        Option("File of its weights.", group="Settings", metavar="FILE", default="downloaded when first used"),
    ] = None
    device: Device = "auto"
    precision: Annotated[PrecisionName | None, Option("Number format", group="Speed", default="auto")] = None
    threads: Annotated[
        int | None, Option("Threads to compute with on a CPU.", group="Speed", default="all cores", minimum=1)
    ] = None
    workers: Annotated[
        int | None, Option("Processes that prepare patches.", group="Speed", default="by number of cores", minimum=0)
    ] = None
    offline: Offline = False
    cache: Path | None = None  #: Where decoded images are kept.
    confirm: Confirm | None = None  #: Asked before large downloads; None stands for no.

    def __post_init__(self) -> None:
        validate(self)
