"""What to compare, and how to show it. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sr_cli.options import Device, Ensemble, Offline, Option, Overlap, Precision, Tile, models_option, validate


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, and how to show it; also the options of `srup compare`.

    Raises UsageError for values out of range.
    """

    models: Annotated[
        tuple[str, ...],
        models_option(
            "A model to show: a name (srup models list), name:stage, a .safetensors file, bicubic or lanczos. "
            "Repeat it for several.",
            "Look",
            "every bundled model",
        ),
    ] = ()
    fidelities: Annotated[
        tuple[float, ...],
        Option(
            "Also show this blend of each model's stages: 0 is its GAN stage (crisp), 1 the stage that it was trained "
            "from (faithful). Repeatable, or several joined by commas.",
            names=("--fidelity",),
            group="Look",
            metavar="0..1",
            default="each model as it is",
            minimum=0,
            maximum=1,
        ),
    ] = ()
    ensemble: Ensemble = False
    crop: Annotated[
        tuple[int, int, int, int] | None,
        Option(
            "Compare this part of the photo only: left, top, width and height in pixels.",
            group="Look",
            metavar="X,Y,W,H",
            default="all of it",
        ),
    ] = None
    spots: Annotated[int, Option("Places to show where the models differ most.", group="Look", minimum=0)] = 6
    max_mb: Annotated[float, Option("Largest size of the page, in megabytes.", group="Output", minimum=1)] = 10.0
    overwrite: Annotated[bool, Option("Replace a page or PNG that exists.", group="Output")] = False
    device: Device = "auto"
    precision: Precision = "auto"
    tile: Tile = "auto"
    overlap: Overlap = "auto"
    offline: Offline = False

    def __post_init__(self) -> None:
        validate(self)

    @property
    def max_bytes(self) -> int:
        """Largest size of the page, in bytes."""
        return int(self.max_mb * 1e6)
