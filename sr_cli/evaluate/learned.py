"""Metrics that need trained weights or fitted parameters: from a file of the user's, the cache, or a download."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sr_cli import hub
from sr_cli.errors import InputError, WeightsError
from sr_cli.metrics.niqe import niqe, parse_parameters
from sr_cli.metrics.nrqm import NrqmModel, nrqm, parse_model
from sr_cli.metrics.perceptual import perceptual_index

T = TypeVar("T")

REPO, REVISION = "chaofengc/IQA-PyTorch-Weights", "67f48567fc02bc5f0c280256ec547a69a7ae29a2"
NIQE_FILE, NRQM_FILE = "niqe_modelparameters.mat", "NRQM_model.mat"
NIQE_VARIABLE, NRQM_VARIABLE, FEATURE_VARIABLE = "SRUP_NIQE_PARAMETERS", "SRUP_NRQM_MODEL", "SRUP_FEATURE_WEIGHTS"
FEATURE_NET = "squeezenet1_1"

LICENCE_NOTE = (
    "NRQM's trained model, which NRQM and PI use, is licensed CC BY-NC-SA 4.0: for non-commercial purposes only"
)

Measure = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Takes an output and its reference, both (H, W, 3); raises ValueError where the metric is not defined."""


@dataclass(frozen=True)
class LearnedMetrics:
    """The learned metrics that can be computed here, and why the others cannot."""

    measures: Mapping[str, Measure] = field(default_factory=dict)  #: By the metric's name.
    reasons: Mapping[str, str] = field(default_factory=dict)
    """For each wanted metric that cannot be computed at all, why."""


@dataclass(frozen=True)
class MetricFiles:
    """The user's own files; None: from the environment, the cache or a download."""

    niqe_parameters: Path | None = None  #: NIQE's pristine model, MAT or NPZ.
    nrqm_model: Path | None = None  #: NRQM's forests, MAT.
    feature_weights: Path | None = None  #: SqueezeNet 1.1's convolutions, as `metrics.features.feature_net` reads them.

    def resolved(self) -> MetricFiles:
        """Return the same with files that the environment names where none was given."""
        return MetricFiles(
            self.niqe_parameters or _from_environment(NIQE_VARIABLE),
            self.nrqm_model or _from_environment(NRQM_VARIABLE),
            self.feature_weights or _from_environment(FEATURE_VARIABLE),
        )


@dataclass(frozen=True)
class _Missing:
    """A metric that is not available."""

    reason: str  #: Why not.


def load(
    wanted: Collection[str], files: MetricFiles, *, offline: bool = False, note: Callable[[str], None] = lambda _: None
) -> LearnedMetrics:
    """Load what the wanted metrics need, with the reason for each that is not available.

    A file that was given or is named by the environment must be there and right, else InputError or WeightsError;
    what would be downloaded may be missing. `note` hears of NRQM's licence when the model is downloaded.
    """
    files = files.resolved()
    niqe_override = f"--niqe-parameters or {NIQE_VARIABLE}"
    parameters = cache(lambda: _read(files.niqe_parameters, NIQE_FILE, parse_parameters, niqe_override, offline))
    model = cache(lambda: _nrqm_model(files.nrqm_model, offline, note))
    loaders: dict[str, Callable[[], Measure | _Missing]] = {
        "niqe": lambda: _blind(niqe, parameters()),
        "nrqm": lambda: _blind(nrqm, model()),
        "pi": lambda: _blind(perceptual_index, parameters(), model()),
        "features": lambda: _features(files.feature_weights, offline),
        "lpips": lambda: _lpips_or_dists("lpips", offline),
        "dists": lambda: _lpips_or_dists("dists", offline),
    }
    found = {name: loader() for name, loader in loaders.items() if name in wanted}
    return LearnedMetrics(
        {name: measure for name, measure in found.items() if not isinstance(measure, _Missing)},
        {name: measure.reason for name, measure in found.items() if isinstance(measure, _Missing)},
    )


def _blind(measure: Callable[..., float], *needs: Any) -> Measure | _Missing:
    """Return a metric that looks at the output alone, or why one of its needs is missing."""
    missing = next((need for need in reversed(needs) if isinstance(need, _Missing)), None)
    return missing or (lambda output, _: measure(output, *needs))


def _nrqm_model(given: Path | None, offline: bool, note: Callable[[str], None]) -> NrqmModel | _Missing:
    cached = hub.cached(hub.Source(REPO, REVISION, NRQM_FILE))
    if given is None and cached is None and not (offline or hub.is_offline()):
        note(LICENCE_NOTE)
    return _read(given, NRQM_FILE, parse_model, f"--nrqm-model or {NRQM_VARIABLE}", offline)


def _features(given: Path | None, offline: bool) -> Measure | _Missing:
    """Return the feature distance. Raises WeightsError for a given file."""
    from sr_cli.metrics import features

    try:
        return features.FeatureDistance(features.feature_net(FEATURE_NET, given, offline))
    except WeightsError as error:
        if given:
            raise
        return _Missing(str(error))


def _lpips_or_dists(name: str, offline: bool) -> Measure | _Missing:
    if importlib.util.find_spec("torchmetrics") is None:
        return _Missing("needs torchmetrics: pip install 'srup[metrics]'")
    from sr_cli.metrics import lpips_dists

    try:
        return lpips_dists.load(name, offline=offline)
    except WeightsError as error:
        return _Missing(f"{error}; the metric `features` is its substitute with weights of 5 MB")


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _read(given: Path | None, file: str, parse: Callable[[bytes], T], override: str, offline: bool) -> T | _Missing:
    """Return what a file holds, or why it is not available. Raises InputError for a given file."""
    if given is not None:
        try:
            return parse(given.read_bytes())
        except OSError as error:
            raise InputError(f"{given}: cannot be read: {error.strerror}; it was given by {override}") from None
        except ValueError as error:
            raise InputError(f"{given}: {error}; it was given by {override}") from None
    try:
        path = hub.download(hub.Source(REPO, REVISION, file), offline=offline, error=InputError)
        return parse(path.read_bytes())
    except InputError as error:
        return _Missing(f"{error}; a local copy can be given by {override}")
    except ValueError as error:
        return _Missing(f"{file} from the Hub: {error}")
