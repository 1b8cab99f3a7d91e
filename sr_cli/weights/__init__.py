"""Weights: which there are, where their files come from, and generators loaded from them.

`load` is what everything else uses. Importing this package costs nothing: torch and the Hub library
are imported when a file is really opened or fetched.
"""

from sr_cli.weights.blend import load_blend
from sr_cli.weights.loading import LoadedModel, load
from sr_cli.weights.manifest import HubFile, Manifest, ModelEntry, Stage, TrainingSummary, read_manifest

__all__ = [
    "HubFile",
    "LoadedModel",
    "Manifest",
    "ModelEntry",
    "Stage",
    "TrainingSummary",
    "load",
    "load_blend",
    "read_manifest",
]
