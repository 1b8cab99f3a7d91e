"""The origin of a weights file: the JSON that training writes into its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_cli import state_dicts
from sr_cli.errors import WeightsError
from sr_cli.weights.manifest import DEFAULT_ORDER, STAGES, Teacher, TrainingSummary

BEST = ".best.safetensors"  #: How the names of a run's chosen weights end.


def info_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Parse the JSON in a file's `srup` metadata; {} where there is none or it is damaged."""
    try:
        info = json.loads(metadata.get("srup", "{}"))
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def stage_of(metadata: Mapping[str, str]) -> str | None:
    """Return the stage that a file says it is: `pixel`, `photo` or `gan`; None where it says none."""
    return _stage(info_of(metadata))


def _stage(info: Mapping[str, Any]) -> str | None:
    stage = info.get("stage")
    if stage == "pixel" and _settings(info).get("degrade") == "photo":
        return "photo"
    return stage if stage in STAGES else None


def best_files(folder: Path) -> dict[str, Path]:
    """Find the chosen weights of a run, by stage. Raises WeightsError if there are none or a header is damaged."""
    found = {}
    for path in sorted(folder.glob(f"*{BEST}")):
        with state_dicts.opened(path) as file:
            # The first runs did not write the stage; their file's name is it.
            info = {"stage": path.name.removesuffix(BEST), **info_of(file.header.metadata)}
        found[_stage(info) or info["stage"]] = path
    if not found:
        raise WeightsError(f"{folder} is not a training run with results: it has no *{BEST}")
    return found


def best_file(folder: Path, stage: str | None) -> tuple[str, Path]:
    """Find a run's stage and its chosen weights; without a stage photo, pixel or gan, whichever is first.

    Raises WeightsError if it has none, or not this one.
    """
    files = best_files(folder)
    chosen = stage or next((name for name in DEFAULT_ORDER if name in files), next(iter(files)))
    if chosen not in files:
        raise WeightsError(f"{folder} has the stages {', '.join(files)}, not {chosen}")
    return chosen, files[chosen]


def training_of(metadata: Mapping[str, str], stage: str) -> TrainingSummary | None:
    """Describe how weights of a run came about, as far as their file says; None for a file that no run wrote."""
    info = info_of(metadata)
    if "step" not in info:
        return None
    seconds = info.get("seconds")
    return TrainingSummary(
        data=", ".join(Path(place).name for place in info.get("data", [])) or "unknown",
        recipe=_recipe(_settings(info), stage),
        steps=info["step"],
        hours=None if seconds is None else round(seconds / 3600, 2),
        seed=_settings(info).get("seed"),
        commit=info.get("commit"),
    )


def teacher_of(metadata: Mapping[str, str]) -> Teacher | None:
    """Say whose outputs the weights learned from, as far as their file says."""
    info = info_of(metadata)
    name, sha256 = info.get("teacher"), info.get("teacher_sha256")
    return Teacher(sha256=sha256, owner=name) if isinstance(name, str) and isinstance(sha256, str) else None


def _settings(info: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = info.get("config", info)  # the first runs had the settings at the top level
    return settings if isinstance(settings, dict) else {}


def _recipe(settings: Mapping[str, Any], stage: str) -> str | None:
    """Return the recipe in a line; None for a file that does not say."""
    own = settings.get("gan" if stage == "gan" else "pixel")
    if not isinstance(own, dict):
        return None
    optimiser = own.get("generator", {})
    losses = [str(own.get("content") or own.get("loss"))]  # the first runs' pixel stage called it `loss`
    if own.get("feature_net", "none") != "none" and own.get("feature_weight", 1):
        losses.append(f"{own['feature_net']} features")
    if stage == "gan":
        losses.append("adversarial")
    rate = f"Adam {optimiser.get('lr'):g} {optimiser.get('schedule')}" if "lr" in optimiser else "Adam"
    return (
        f"{' + '.join(losses)}, {rate}, {own.get('steps')} steps planned, batch {settings.get('batch')}, "
        f"patch {settings.get('patch')}, degradation {settings.get('degrade')}, EMA {settings.get('ema_decay')}"
    )
