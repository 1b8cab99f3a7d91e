"""The compare job: one photograph enlarged by several models, and a page to look at them side by side."""

from sr_cli.compare.job import CompareEvent, CompareOptions, Comparison, Layer, run
from sr_cli.compare.spots import Spot

__all__ = ["CompareEvent", "CompareOptions", "Comparison", "Layer", "Spot", "run"]
