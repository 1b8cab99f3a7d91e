"""What a training run left behind, seen as weights to register."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_cli.errors import WeightsError
from sr_cli.weights.loading import load, read_bytes
from sr_cli.weights.manifest import TrainingSummary


@dataclass(frozen=True)
class RunWeights:
    """The best weights of one stage of a run."""

    stage: str
    """`pixel`, `photo` or `gan`."""
    path: Path
    """Safetensors file with the generator's state dict."""
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


def read_run(folder: Path) -> list[RunWeights]:
    """The `*.best.safetensors` of a run folder. Raises WeightsError if there are none or one is damaged."""
    paths = sorted(folder.glob("*.best.safetensors"))
    if not paths:
        raise WeightsError(f"{folder} is not a training run with results: it has no *.best.safetensors")
    return [_read(path) for path in paths]


def file_info(path: Path) -> dict[str, Any]:
    """What a file says of itself: the JSON in its `srup` metadata, {} where there is none. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    read_bytes(path)  # for its clear errors
    try:
        with safe_open(path, framework="numpy") as file:
            info = json.loads((file.metadata() or {}).get("srup", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error})") from None
    return info if isinstance(info, dict) else {}


def _read(path: Path) -> RunWeights:
    loaded = load(path)
    info = file_info(path)
    settings = info.get("config", info)  # the first runs had the settings at the top level
    stage = info.get("stage") or path.name.split(".")[0]
    if stage == "pixel" and settings.get("degrade") == "photo":
        stage = "photo"
    seconds = info.get("seconds")
    training = TrainingSummary(
        data=", ".join(Path(place).name for place in info.get("data", [])) or "unknown",
        recipe=_recipe(settings, stage),
        steps=info.get("step"),
        hours=None if seconds is None else round(seconds / 3600, 2),
        seed=settings.get("seed"),
        commit=info.get("commit"),
    )
    return RunWeights(
        stage=stage,
        path=path,
        config=loaded.generator.config.to_dict(),
        scale=loaded.generator.scale,
        sha256=loaded.sha256,
        parent_sha256=info.get("parent_sha256"),
        training=training,
    )


def _recipe(settings: Mapping[str, Any], stage: str) -> str | None:
    """The recipe in a line; None for a file that does not say."""
    own = settings.get("gan" if stage == "gan" else "pixel")
    if not isinstance(own, dict):
        return None
    optimiser = own.get("generator", {})
    losses = own.get("loss") or f"{own.get('content')} + {own.get('feature_net')} features + adversarial"
    rate = f"Adam {optimiser.get('lr'):g} {optimiser.get('schedule')}" if "lr" in optimiser else "Adam"
    return (
        f"{losses}, {rate}, {own.get('steps')} steps planned, batch {settings.get('batch')}, "
        f"patch {settings.get('patch')}, degradation {settings.get('degrade')}, EMA {settings.get('ema_decay')}"
    )
