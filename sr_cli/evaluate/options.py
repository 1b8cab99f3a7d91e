"""Options of an evaluation. Imports nothing heavy, since `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from sr_cli.errors import UsageError
from sr_cli.options import Device, Ensemble, Fidelity, Offline, Option, Precision, models_option, validate

if TYPE_CHECKING:
    from sr_cli.evaluate.learned import MetricFiles
    from sr_cli.evaluate.low_resolution import LowResolution
    from sr_cli.evaluate.protocols import Protocol

DatasetName = Literal["set5", "set14", "bsd100", "urban100", "div2k-val", "div2k-train"]
"""The sets of `datasets.NAMED`."""
MetricName = Literal[
    "psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "rmse", "niqe", "nrqm", "pi", "features", "lpips", "dists"
]
"""The metrics of `scores.METRICS`."""
METRIC_GROUPS = {"psnr": ("psnr_y", "psnr_rgb"), "ssim": ("ssim_y", "ssim_rgb")}
"""Names that stand for several metrics."""
ProtocolName = Literal["standard", "poster"]  #: The conventions of `protocols.PROTOCOLS`.
PublishedName = Literal["poster"]  #: Those of them that have published results.
DEFAULT_METRICS: tuple[MetricName, ...] = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "rmse", "niqe", "pi")

_data, _measure, _output = (partial(Option, group=group) for group in ("Data", "Measure", "Output"))


@dataclass(frozen=True)
class EvalOptions:
    """Options of `srup eval`. Raises UsageError for contradictions."""

    datasets: Annotated[
        tuple[DatasetName, ...],
        _data("Published set, downloaded when first used; repeatable.", names=("--dataset",), metavar="NAME"),
    ] = ()
    data: Annotated[
        tuple[Path, ...],
        _data("Folder of originals, or of HR/ and LR/, or of pairs *_HR and *_LR; repeatable.", metavar="FOLDER"),
    ] = ()
    input_jpeg: Annotated[
        tuple[int, ...],
        _data(
            "Compress each input as JPEG of this quality first; several (60,75,90) take turns.",
            metavar="Q",
            default="none",
            minimum=1,
            maximum=100,
        ),
    ] = ()
    degrade: Annotated[
        Literal["none", "photo"], _data("Damage to the inputs: photo adds random blur, noise and JPEG.")
    ] = "none"
    seed: Annotated[int, _data("Seed of --degrade.", minimum=0)] = 0
    models: Annotated[
        tuple[str, ...],
        models_option(
            "A model's name, name:stage, a .safetensors file, bicubic or lanczos; repeatable.",
            "Measure",
            "every bundled model",
        ),
    ] = ()
    metrics: Annotated[
        tuple[MetricName | Literal["psnr", "ssim"], ...],
        _measure("What to measure; repeatable, or several joined by commas.", metavar="NAME"),
    ] = DEFAULT_METRICS
    protocol: Annotated[ProtocolName | None, _measure("Convention of measurement.", default="standard")] = None
    against: Annotated[
        PublishedName | None, _measure("Also show published results, measured by their convention.", default="none")
    ] = None
    fidelity: Fidelity = None
    ensemble: Ensemble = False
    niqe_parameters: Annotated[Path | None, _measure("NIQE's parameters.", default="downloaded when first used")] = None
    nrqm_model: Annotated[Path | None, _measure("NRQM's model.", default="downloaded when first used")] = None
    feature_weights: Annotated[
        Path | None,
        _measure("SqueezeNet's weights, for features.", metavar="FILE", default="downloaded when first used"),
    ] = None
    fresh: Annotated[bool, _measure("Start over instead of resuming an interrupted run.")] = False
    self_check: Annotated[
        bool, _measure("Compare NIQE, NRQM and PI of this installation with official scores, and do nothing else.")
    ] = False
    save_images: Annotated[
        Path | None,
        _output("Save the enlarged images here, as DATASET/MODEL/NAME.png.", metavar="FOLDER", default="none"),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    offline: Offline = False
    for_report: bool = False  #: Also time each model, and keep a crop of each image.

    def __post_init__(self) -> None:
        if not (self.data or self.datasets or self.self_check):
            known = ", ".join(get_args(DatasetName))
            raise UsageError(f"say what to measure on: --dataset NAME ({known}) or --data FOLDER")
        validate(self)
        if self.against and self.protocol not in (None, self.against):
            name = self.against
            raise UsageError(f"{name}'s results have conventions of their own: use --against {name} without --protocol")
        names = [name for given in self.metrics for name in METRIC_GROUPS.get(given, (given,))]
        object.__setattr__(self, "metrics", tuple(dict.fromkeys(names)))
        if (self.input_jpeg or self.degrade != "none") and self.convention.fixed_input:
            raise UsageError(
                f"--input-jpeg and --degrade change the input that the {self.convention.name} protocol prescribes"
            )

    @property
    def files(self) -> MetricFiles:
        from sr_cli.evaluate.learned import MetricFiles

        return MetricFiles(self.niqe_parameters, self.nrqm_model, self.feature_weights)

    @property
    def low_resolution(self) -> LowResolution:
        from sr_cli.evaluate.low_resolution import LowResolution

        return LowResolution(self.degrade, self.input_jpeg, self.seed)

    @property
    def convention(self) -> Protocol:
        from sr_cli.evaluate.protocols import PROTOCOLS

        return PROTOCOLS[self.protocol or self.against or "standard"]
