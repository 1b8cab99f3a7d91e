"""Weights: finds the files of models and loads generators from them.

`load` is what everything else uses. Importing this package costs nothing: torch and the Hub library
are imported when a file is really opened or fetched.
"""

from sr_cli.weights.blend import check as check_fidelity
from sr_cli.weights.blend import load_blend
from sr_cli.weights.loading import Blend, LoadedModel, draw, load
from sr_cli.weights.manifest import HubFile, Manifest, ModelEntry, Stage, TrainingSummary, read_manifest
from sr_cli.weights.specs import INTERPOLATION_LOOKS, INTERPOLATIONS, Spec, is_path, styled
from sr_cli.weights.specs import parse as parse_spec

__all__ = [
    "INTERPOLATIONS",
    "INTERPOLATION_LOOKS",
    "Blend",
    "HubFile",
    "LoadedModel",
    "Manifest",
    "ModelEntry",
    "Spec",
    "Stage",
    "TrainingSummary",
    "check_fidelity",
    "draw",
    "is_path",
    "load",
    "load_blend",
    "parse_spec",
    "read_manifest",
    "styled",
]
