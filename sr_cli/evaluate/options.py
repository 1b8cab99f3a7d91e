"""Options of an evaluation. Imports nothing heavy, since `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class EvalOptions:
    """Options of `srup eval`. Raises UsageError for contradictions."""

    datasets: Annotated[
        tuple[DatasetName, ...],
        Option(
            "Published set, downloaded when first used; repeatable.", names=("--dataset",), group="Data", metavar="NAME"
        ),
    ] = ()
    data: Annotated[
        tuple[Path, ...],
        Option(
            "Folder of originals, or of HR/ and LR/, or of pairs *_HR and *_LR; repeatable.",
            group="Data",
            metavar="FOLDER",
        ),
    ] = ()
    input_jpeg: Annotated[
        tuple[int, ...],
        Option(
            "Compress each input as JPEG of this quality first; several (60,75,90) take turns.",
            group="Data",
            metavar="Q",
            default="none",
            minimum=1,
            maximum=100,
        ),
    ] = ()
    degrade: Annotated[
        Literal["none", "photo"],
        Option("Damage to the inputs: photo adds random blur, noise and JPEG.", group="Data"),
    ] = "none"
    seed: Annotated[int, Option("Seed of --degrade.", group="Data", minimum=0)] = 0
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
        Option(
            "What to measure; repeatable, or several joined by commas.",
            group="Measure",
            metavar="NAME",
        ),
    ] = DEFAULT_METRICS
    protocol: Annotated[
        ProtocolName | None,
        Option("Convention of measurement.", group="Measure", default="standard"),
    ] = None
    against: Annotated[
        PublishedName | None,
        Option("Also show published results, measured by their convention.", group="Measure", default="none"),
    ] = None
    fidelity: Fidelity = None
    ensemble: Ensemble = False
    niqe_parameters: Annotated[
        Path | None, Option("NIQE's parameters.", group="Measure", default="downloaded when first used")
    ] = None
    nrqm_model: Annotated[
        Path | None, Option("NRQM's model.", group="Measure", default="downloaded when first used")
    ] = None
    feature_weights: Annotated[
        Path | None,
        Option(
            "SqueezeNet's weights, for features.", group="Measure", metavar="FILE", default="downloaded when first used"
        ),
    ] = None
    fresh: Annotated[bool, Option("Start over instead of resuming an interrupted run.", group="Measure")] = False
    self_check: Annotated[
        bool,
        Option(
            "Compare NIQE, NRQM and PI of this installation with official scores, and do nothing else.",
            group="Measure",
        ),
    ] = False
    save_images: Annotated[
        Path | None,
        Option(
            "Save the enlarged images here, as DATASET/MODEL/NAME.png.",
            group="Output",
            metavar="FOLDER",
            default="none",
        ),
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
        """Files of the learned metrics."""
        from sr_cli.evaluate.learned import MetricFiles

        return MetricFiles(self.niqe_parameters, self.nrqm_model, self.feature_weights)

    @property
    def low_resolution(self) -> LowResolution:
        """Degradation of the networks' inputs."""
        from sr_cli.evaluate.low_resolution import LowResolution

        return LowResolution(self.degrade, self.input_jpeg, self.seed)

    @property
    def convention(self) -> Protocol:
        """The protocol that these options ask for."""
        from sr_cli.evaluate.protocols import PROTOCOLS

        return PROTOCOLS[self.protocol or self.against or "standard"]
