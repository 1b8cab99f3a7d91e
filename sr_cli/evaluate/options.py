"""What an evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sr_cli import datasets
from sr_cli.errors import UsageError
from sr_cli.evaluate.learned import MetricFiles
from sr_cli.evaluate.low_resolution import LowResolution
from sr_cli.evaluate.scores import DEFAULT_METRICS, GROUPS, METRICS, PROTOCOLS, Protocol


@dataclass(frozen=True)
class EvalOptions:
    """What to measure, and how. Raises UsageError for what contradicts itself."""

    models: tuple[str, ...] = ()
    """Names, paths, `bicubic`, `lanczos`; empty: every bundled model."""
    data: tuple[Path, ...] = ()
    """Folders of images."""
    datasets: tuple[str, ...] = ()
    """Published sets by name."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """What to compute; see `METRICS`."""
    protocol: str | None = None
    """`standard` or `poster`; None: `poster` if compared with it, else `standard`."""
    against: str | None = None
    """`poster`: put the poster's Table 1 beside the results."""
    fidelity: float | None = None
    """0 to 1: weights between a model's GAN and pixel stages; None: the stage's own."""
    ensemble: bool = False
    """Average the results of the eight flips and rotations."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`."""
    save_images: Path | None = None
    """Folder for the outputs, as PNG: DATASET/MODEL/NAME.png."""
    for_report: bool = False
    """Also time each model, and keep a crop of each image."""
    niqe_parameters: Path | None = None
    """NIQE's parameters; None: from the environment, the cache or the Hub."""
    nrqm_model: Path | None = None
    """NRQM's model; None: from the environment, the cache or the Hub."""
    offline: bool = False
    """Never touch the network."""
    feature_weights: Path | None = None
    """SqueezeNet's weights for `features`; None: from the environment or torchvision's download."""
    input_jpeg: tuple[int, ...] = ()
    """Qualities at which the networks' inputs are saved as JPEG, by turns."""
    degrade: str = "none"
    """`photo`: inputs are degraded at random as photos are."""
    seed: int = 0
    """Of `degrade`."""
    fresh: bool = False
    """Forget the results of an interrupted run."""

    def __post_init__(self) -> None:
        if not self.data and not self.datasets:
            raise UsageError(f"say what to measure on: --dataset NAME ({', '.join(datasets.NAMED)}) or --data FOLDER")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise UsageError(f"unknown metric {unknown[0]!r}; known: {', '.join((*METRICS, *GROUPS))}")
        if unknown := [name for name in self.datasets if name not in datasets.NAMED]:
            raise UsageError(f"unknown data set {unknown[0]!r}; known: {', '.join(datasets.NAMED)}")
        if self.protocol not in (None, *PROTOCOLS):
            raise UsageError(f"unknown protocol {self.protocol!r}; use {' or '.join(PROTOCOLS)}")
        if self.against not in (None, "poster"):
            raise UsageError(f"--against knows only the poster, not {self.against!r}")
        if self.against and self.protocol == "standard":
            raise UsageError("the poster measured by other conventions: use --against poster with --protocol poster")
        if wrong := [quality for quality in self.input_jpeg if not 1 <= quality <= 100]:
            raise UsageError(f"--input-jpeg takes qualities from 1 to 100, not {wrong[0]}")
        if self.degrade not in ("none", "photo"):
            raise UsageError(f"--degrade knows none and photo, not {self.degrade!r}")
        if self.low_resolution.changed and self.convention.name == "poster":
            raise UsageError("--input-jpeg and --degrade change the input that the poster protocol prescribes")

    @property
    def files(self) -> MetricFiles:
        """What the learned metrics are read from."""
        return MetricFiles(self.niqe_parameters, self.nrqm_model, self.feature_weights)

    @property
    def low_resolution(self) -> LowResolution:
        """What is done to the networks' inputs."""
        return LowResolution(self.degrade, self.input_jpeg, self.seed)

    @property
    def convention(self) -> Protocol:
        """The protocol that these options ask for."""
        return PROTOCOLS[self.protocol or self.against or "standard"]
