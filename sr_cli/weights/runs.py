"""The results of a training run as weights to register."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_cli.weights import provenance
from sr_cli.weights.loading import read_file
from sr_cli.weights.manifest import Teacher, TrainingSummary


@dataclass(frozen=True)
class RunWeights:
    """The best weights of one stage of a run."""

    stage: str
    """`pixel`, `photo` or `gan`."""
    path: Path
    """Safetensors file with the generator's state dict."""
    data: bytes
    """The file's content: a run that is still going may replace the file at any moment."""
    config: Mapping[str, Any]
    """`GeneratorConfig.to_dict()` of the network, read from the tensors."""
    scale: int
    """Factor by which it enlarges."""
    sha256: str
    """Checksum of the file."""
    parent_sha256: str | None
    """Checksum of the weights that the stage started from."""
    training: TrainingSummary
    """As far as the file says."""
    teacher: Teacher | None = None
    """Whose outputs it learned from."""


def read_run(folder: Path) -> list[RunWeights]:
    """Read the `*.best.safetensors` of a run folder. Raises WeightsError if there are none or one is damaged."""
    return [_read(stage, path) for stage, path in provenance.best_files(folder).items()]


def _read(stage: str, path: Path) -> RunWeights:
    loaded, data = read_file(path)
    return RunWeights(
        stage=stage,
        path=path,
        data=data,
        config=loaded.generator.config.to_dict(),
        scale=loaded.scale,
        sha256=loaded.sha256,
        parent_sha256=provenance.info_of(loaded.metadata).get("parent_sha256"),
        training=provenance.training_of(loaded.metadata, stage),
        teacher=provenance.teacher_of(loaded.metadata),
    )
