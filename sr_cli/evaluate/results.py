"""Results of an evaluation: scores of images and models, and the JSON document."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sr_cli import __version__
from sr_cli.evaluate import crops
from sr_cli.evaluate.low_resolution import LowResolution
from sr_cli.evaluate.protocols import Protocol, PublishedTable


@dataclass(frozen=True)
class ImageScores:
    """One model's scores on one image."""

    name: str  #: The image.
    metrics: Mapping[str, float | None]  #: By name; None where the metric cannot be computed.
    unavailable: Mapping[str, str] = field(default_factory=dict)  #: For each None, why.
    error: str | None = None  #: Why the image could not be measured at all.
    exit_code: int = 0  #: The exit code of that failure.
    seconds: float | None = field(default=None, compare=False)
    """Time to enlarge it, while other threads read and score."""
    megapixels: float | None = None  #: Size of the output.


@dataclass(frozen=True)
class ModelScores:
    """One model's scores on one data set."""

    model: str  #: As it was asked for; a path's stem.
    dataset: str  #: Name of the set, or of the folder.
    lr: str  #: Origin of the low-resolution inputs: `shipped` with the set, or `made` from HR.
    metrics: Mapping[str, float | None]  #: Means over the images that have a value; None where none has.
    unavailable: Mapping[str, str]  #: For a metric that some image lacks, why.
    images: tuple[ImageScores, ...]  #: In the order of their names, those that failed among them.
    stage: str | None = None  #: The weights' stage.
    weights_sha256: str | None = None  #: The weights' checksum.
    milliseconds: float | None = None  #: Median time to upscale 128x128 pixels, where it was measured.
    multiplications: int | None = None  #: Multiplications of its convolutions per input pixel, where they are known.

    @property
    def seconds_per_megapixel(self) -> float | None:
        """Time to enlarge, per megapixel of output: the images' median, so that warming up hardly counts."""
        rates = [image.seconds / image.megapixels for image in self.images if image.seconds and image.megapixels]
        return statistics.median(rates) if rates else None

    @property
    def costs(self) -> tuple[str, str]:
        """Seconds per megapixel and multiplications per pixel, as tables show them."""
        seconds, count = self.seconds_per_megapixel, self.multiplications
        return "–" if seconds is None else f"{seconds:.3g}", "–" if count is None else f"{count:,}"

    @property
    def measured(self) -> int:
        """Images that could be measured."""
        return sum(image.error is None for image in self.images)

    @property
    def heading(self) -> str:
        """Title of the set's table: its name, the number of images and the origin of the inputs."""
        inputs = "the set's own inputs" if self.lr == "shipped" else "inputs reduced by 4"
        return f"{self.dataset}: {self.counted}, {inputs}"

    @property
    def counted(self) -> str:
        """How many images, for people."""
        text = f"{len(self.images)} {'image' if len(self.images) == 1 else 'images'}"
        return text if self.measured == len(self.images) else f"{text}, {self.measured} of them measured"


@dataclass(frozen=True)
class Evaluation:
    """Results of a run."""

    protocol: Protocol  #: The convention.
    metrics: tuple[str, ...]  #: Options of the run.
    device: str  #: Device of the networks.
    precision: str  #: Precision of the networks.
    results: tuple[ModelScores, ...]  #: Data set by data set, model by model.
    against: PublishedTable | None = None  #: Published results to show as well.
    fidelity: float | None = None  #: The blend of GAN and pixel weights, where one was asked for.
    ensemble: bool = False  #: Whether flips and rotations were averaged.
    crops: Mapping[tuple[str, str], crops.Crop] = field(default_factory=dict)  #: By data set and image, for a report.
    low_resolution: LowResolution = field(default_factory=LowResolution)  #: Degradation of the inputs.

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that tables show: those that have a value somewhere, or all if none has."""
        rows = [result.metrics for result in self.results] + list(self.against.scores.values() if self.against else ())
        found = tuple(name for name in self.metrics if any(row.get(name) is not None for row in rows))
        return found or self.metrics

    @property
    def convention(self) -> str:
        """How it was measured: the protocol, and what was done to the inputs."""
        changed = self.low_resolution.description
        return f"{self.protocol.description}; {changed}" if changed else self.protocol.description

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document: dict[str, Any] = {
            "protocol": self.protocol.name,
            "convention": self.convention,
            "device": self.device,
            "precision": self.precision,
            "version": __version__,
            **({} if self.fidelity is None else {"fidelity": self.fidelity}),
            **({"ensemble": True} if self.ensemble else {}),
            **({"input": vars(self.low_resolution)} if self.low_resolution.changed else {}),
            "results": [_model_dict(result) for result in self.results],
        }
        if self.against:
            document["against"] = self.against.to_dict()
        return document


def _model_dict(result: ModelScores) -> dict[str, Any]:
    return {
        "model": result.model,
        "dataset": result.dataset,
        "lr": result.lr,
        "stage": result.stage,
        "weights_sha256": result.weights_sha256,
        "metrics": dict(result.metrics),
        "unavailable": dict(result.unavailable),
        "measured": result.measured,
        "failed": [{"name": image.name, "error": image.error} for image in result.images if image.error],
        "multiplications": result.multiplications,
        "seconds_per_megapixel": result.seconds_per_megapixel,
        **({} if result.milliseconds is None else {"milliseconds_128": round(result.milliseconds, 2)}),
        "images": [image_dict(image) for image in result.images],
    }


def image_dict(image: ImageScores) -> dict[str, Any]:
    """Return one image's scores as plain values, without empty parts."""
    return {
        "name": image.name,
        "metrics": dict(image.metrics),
        **({} if image.seconds is None else {"seconds": round(image.seconds, 4)}),
        **({"unavailable": dict(image.unavailable)} if image.unavailable else {}),
        **({"error": image.error} if image.error else {}),
    }


def exit_code(evaluation: Evaluation) -> int:
    """Return 0 if every image was measured; the failures' common code if all failed alike; else 1."""
    scores = [image for result in evaluation.results for image in result.images]
    codes = {image.exit_code for image in scores if image.error}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 and all(image.error for image in scores) else 1
