"""Where the metrics without a reference get what they need: a file of the user's, the cache, the Hub."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from sr_cli import hub
from sr_cli.errors import InputError
from sr_cli.evaluate.scores import Perception
from sr_cli.metrics import niqe, nrqm

T = TypeVar("T")

REPO, REVISION = "chaofengc/IQA-PyTorch-Weights", "67f48567fc02bc5f0c280256ec547a69a7ae29a2"
NIQE_FILE, NRQM_FILE = "niqe_modelparameters.mat", "NRQM_model.mat"
NIQE_VARIABLE, NRQM_VARIABLE = "SRUP_NIQE_PARAMETERS", "SRUP_NRQM_MODEL"

LICENCE_NOTE = (
    "NRQM's trained model, which NRQM and PI use, is licensed CC BY-NC-SA 4.0: for non-commercial purposes only"
)


def find(
    wanted: Collection[str],
    niqe_file: Path | None = None,
    nrqm_file: Path | None = None,
    *,
    offline: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Perception:
    """What the wanted metrics need, and reasons for what cannot be had.

    A file that was given, or named by SRUP_NIQE_PARAMETERS or SRUP_NRQM_MODEL, must be there and right,
    else InputError; what would come from the Hub may be missing. `note` hears of NRQM's licence when the
    model is downloaded.
    """
    needs_nrqm = bool({"nrqm", "pi"} & set(wanted))
    needs_niqe = bool({"niqe", "pi"} & set(wanted))
    reasons: dict[str, str] = {}
    parameters = model = None
    if needs_niqe:
        source = niqe_file or _from_environment(NIQE_VARIABLE)
        parameters, reason = _load(
            source, NIQE_FILE, niqe.parse_parameters, f"--niqe-parameters or {NIQE_VARIABLE}", offline
        )
        if reason:
            reasons["niqe"] = reasons["pi"] = reason
    if needs_nrqm and importlib.util.find_spec("scipy") is None:
        reasons["nrqm"] = reasons["pi"] = "needs scipy: pip install 'srup[metrics]'"
    elif needs_nrqm:
        source = nrqm_file or _from_environment(NRQM_VARIABLE)
        if source is None and not (offline or hub.is_offline()) and hub.cached(REPO, REVISION, NRQM_FILE) is None:
            note(LICENCE_NOTE)
        model, reason = _load(source, NRQM_FILE, nrqm.parse_model, f"--nrqm-model or {NRQM_VARIABLE}", offline)
        if reason:
            reasons["nrqm"] = reasons["pi"] = reason
    return Perception(parameters, model, reasons)


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _load(
    given: Path | None, file: str, parse: Callable[[bytes], T], override: str, offline: bool
) -> tuple[T | None, str | None]:
    """What a file holds, or why it cannot be had. Raises InputError for a given file."""
    if given is not None:
        try:
            return parse(given.read_bytes()), None
        except OSError as error:
            raise InputError(f"{given}: cannot be read: {error.strerror}; it was given by {override}") from None
        except ValueError as error:
            raise InputError(f"{given}: {error}; it was given by {override}") from None
    try:
        path = hub.download(REPO, REVISION, file, offline=offline, error=InputError)
        return parse(path.read_bytes()), None
    except InputError as error:
        return None, f"{error}; a local copy can be given by {override}"
    except ValueError as error:
        return None, f"{file} from the Hub: {error}"
