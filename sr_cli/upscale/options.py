"""What to do with each photograph, and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sr_cli import images
from sr_cli.errors import UsageError

LARGEST_SCALE = 16
"""Two passes of a x4 model; beyond that a network only enlarges its own inventions."""


def limits(
    max_pixels: int | None,
    max_output_pixels: int | None,
    max_frames: int | None,
    max_metadata_bytes: int | None,
    max_input: int | None = None,
) -> images.Limits:
    """The limits with those changed that are given. Raises UsageError for a limit below 1."""
    wishes = {
        "max_pixels": max_pixels,
        "max_output_pixels": max_output_pixels,
        "max_frames": max_frames,
        "max_metadata_bytes": max_metadata_bytes,
        "max_input": max_input,
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if "max_input" in given:
        given["max_input_bytes"] = given.pop("max_input")
    return images.Limits(**given)


@dataclass(frozen=True)
class UpscaleOptions:
    """What to do with each photograph.

    Raises UsageError where two options contradict each other or one makes no sense.
    """

    model: str = "mesrgan"
    """Model name, `name:stage`, a path to weights, `bicubic` or `lanczos`."""
    scale: float | None = None
    """Factor from 1 to 16; None: 4, or what `width` and `height` ask for."""
    width: int | None = None
    """Columns of the result; its height follows. With `height`: the largest that fits into both."""
    height: int | None = None
    """Rows of the result; its width follows."""
    max_side: int | None = None
    """Longest side that the result may have; a larger one is reduced to it."""
    name: str | None = None
    """Template of output names; None: `{stem}_{model}_{size}{ext}`."""
    recursive: bool = False
    """Look into the folders inside folders as well."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`."""
    tile: int | Literal["auto"] = "auto"
    """Side of a tile's core in input pixels; 0: the whole picture in one pass."""
    overlap: int | Literal["auto", "full"] = "auto"
    """Input pixels that a tile sees beyond its core."""
    format: str | None = None
    """Output format; None: by the output's suffix."""
    quality: int | None = None
    """1 to 100 for JPEG and WebP; None: 95 and 90."""
    overwrite: bool = False
    """Replace an output that exists."""
    skip_existing: bool = False
    """Leave an output that exists as it is, and count the input as done."""
    strip: bool = False
    """Write no metadata but the colour profile."""
    fidelity: float | None = None
    """0 (the GAN stage) to 1 (the stage it was fine-tuned from); None: the model as it is."""
    ensemble: bool = False
    """Average the results of the eight flips and rotations."""
    offline: bool = False
    """Never touch the network."""
    limits: images.Limits = field(default_factory=images.Limits)
    """What a file may ask for before it is refused."""

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing contradict each other; give one of them")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must be between 1 and 100, not {self.quality}")
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise UsageError("--scale and --width or --height contradict each other; give one of them")
        if self.scale is not None and not 1 <= self.scale <= LARGEST_SCALE:
            raise UsageError(f"--scale must be between 1 and {LARGEST_SCALE}, not {self.scale:g}")
        for option in ("width", "height", "max_side"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UsageError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
        if self.format is not None:
            images.by_name(self.format)

    @property
    def size_label(self) -> str:
        """The wished size as names show it: `x4`, `x2.5`, `w2000`, `h1000`, `2000x1000`, `x4max3000`."""
        if self.width is not None and self.height is not None:
            label = f"{self.width}x{self.height}"
        elif self.width is not None:
            label = f"w{self.width}"
        elif self.height is not None:
            label = f"h{self.height}"
        else:
            label = f"x{self.scale or 4:g}"
        return label if self.max_side is None else f"{label}max{self.max_side}"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the result for an input of this size; its proportions are kept.

        Raises UsageError where that would be more than 16 times the input.
        """
        factor = self.scale or 4.0
        if self.width is not None or self.height is not None:
            factor = min(wish / side for wish, side in ((self.width, width), (self.height, height)) if wish)
        if self.max_side is not None:
            factor = min(factor, self.max_side / max(width, height))
        if factor > LARGEST_SCALE:
            raise UsageError(
                f"{width}x{height} would have to grow {factor:.1f} times, more than {LARGEST_SCALE}; "
                "choose a smaller --width or --height"
            )
        return max(1, round(width * factor)), max(1, round(height * factor))
