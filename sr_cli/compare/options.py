"""What to compare, and how to show it. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from sr_cli.options import Device, Ensemble, Offline, Option, Overlap, Precision, Tile, models_option, validate

_look, _output = (partial(Option, group=group) for group in ("Look", "Output"))


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
        _look(
            "Also show this blend of each model's stages: 0 is its GAN stage (crisp), 1 the stage that it was trained "
            "from (faithful). Repeatable, or several joined by commas.",
            names=("--fidelity",),
            metavar="0..1",
            default="each model as it is",
            minimum=0,
            maximum=1,
        ),
    ] = ()
    ensemble: Ensemble = False
    crop: Annotated[
        tuple[int, int, int, int] | None,
        _look(
            "Compare this part of the photo only: left, top, width and height in pixels.",
            metavar="X,Y,W,H",
            default="all of it",
        ),
    ] = None
    spots: Annotated[int, _look("Places to show where the models differ most.", minimum=0)] = 6
    max_mb: Annotated[float, _output("Largest size of the page, in megabytes.", minimum=1)] = 10.0
    overwrite: Annotated[bool, _output("Replace a page or PNG that exists.")] = False
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
