"""What to do with each photo, and the sizes that follow from it. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from sr_cli.errors import UsageError
from sr_cli.options import (
    DEFAULT_MODEL,
    Backend,
    Device,
    Ensemble,
    Fidelity,
    Offline,
    Option,
    Overlap,
    Precision,
    Tile,
    validate,
)
from sr_cli.upscale.shards import Shard

if TYPE_CHECKING:
    from sr_cli import images

LARGEST_SCALE = 16  #: Two passes of a x4 model; beyond that a network only enlarges its own inventions.


_output, _size, _speed, _limit = (partial(Option, group=name) for name in ("Output", "Size", "Speed", "Limits"))


@dataclass(frozen=True)
class UpscaleOptions:
    """What to do with each photo; also the options of `srup upscale`.

    Raises UsageError where two options contradict each other or a value is out of range.
    """

    format: Annotated[
        str | None,
        _output(
            "Format of the results, if -o does not name a file: png, jpg, webp, tiff or gif.",
            metavar="FORMAT",
            default="the photo's own, else png",
        ),
    ] = None
    quality: Annotated[
        int | None, _output("Quality of JPEG and WebP, 1 to 100.", default="95, WebP 90", minimum=1, maximum=100)
    ] = None
    name: Annotated[
        str | None,
        _output(
            "Names of the results, made of {stem} {name} {parent} {model} {size} {scale} {ext}.",
            metavar="TEMPLATE",
            default="{stem}_{model}_{size}{ext}",
        ),
    ] = None
    recursive: Annotated[bool, _output("Include the folders inside folders.", names=("-r", "--recursive"))] = False
    overwrite: Annotated[bool, _output("Replace results that exist.")] = False
    skip_existing: Annotated[bool, _output("Keep results that exist and count them as done.")] = False
    shard: Annotated[
        str | None,
        _output(
            "Do only part I of N of the batch, such as 1/8; N such jobs do all of it.",
            metavar="I/N",
            default="all of it",
        ),
    ] = None
    strip: Annotated[bool, _output("Drop all metadata except the colour profile.")] = False
    scale: Annotated[
        float | None, _size("How many times larger, from 1 to 16.", default="4", minimum=1, maximum=LARGEST_SCALE)
    ] = None
    width: Annotated[
        int | None,
        _size(
            "Width of the result in pixels, instead of --scale; with --height, the largest that fits into both.",
            default="from --scale",
            minimum=1,
        ),
    ] = None
    height: Annotated[
        int | None, _size("Height of the result in pixels, instead of --scale.", default="from --scale", minimum=1)
    ] = None
    max_side: Annotated[
        int | None, _size("Shrink a result whose longer side has more pixels.", default="no limit", minimum=1)
    ] = None
    model: Annotated[
        str,
        Option(
            "A model's name (srup models list), name:stage, a .safetensors file, bicubic or lanczos.",
            names=("-m", "--model"),
            group="Look",
            metavar="MODEL",
            completion="model",
        ),
    ] = DEFAULT_MODEL
    fidelity: Fidelity = None
    ensemble: Ensemble = False
    device: Device = "auto"
    devices: Annotated[
        str | None,
        _speed(
            "Share a batch among devices, one process each: all (GPUs), 0,1,... or cpu:N (N processes).",
            metavar="DEVICES",
            default="one device",
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"], _speed("Work here, or on all machines of a Ray cluster (needs srup[ray]).")
    ] = "local"
    address: Annotated[
        str | None,
        _speed(
            "The Ray cluster, such as auto or HOST:6379.",
            metavar="ADDRESS",
            default="RAY_ADDRESS, else one started here",
        ),
    ] = None
    precision: Precision = "auto"
    backend: Backend = "auto"
    tile: Tile = "auto"
    overlap: Overlap = "auto"
    threads: Annotated[
        int | None, _speed("Threads of the processor to compute with.", default="one per core", minimum=1)
    ] = None
    max_pixels: Annotated[int, _limit("Refuse photos with more pixels.", default="250 million", minimum=1)] = (
        250_000_000
    )
    max_output_pixels: Annotated[int, _limit("Refuse results with more pixels.", default="4 billion", minimum=1)] = (
        4_000_000_000
    )
    max_frames: Annotated[int, _limit("Refuse animations with more frames.", minimum=1)] = 2_000
    max_metadata_bytes: Annotated[
        int, _limit("Refuse photos with more bytes of metadata.", default="64 MiB", minimum=1)
    ] = 64 * 2**20
    max_input: Annotated[
        int, _limit("Refuse more bytes from standard input or a pipe.", default="512 MiB", minimum=1)
    ] = 512 * 2**20
    offline: Offline = False

    def __post_init__(self) -> None:
        validate(self)
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing contradict each other; give one of them")
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise UsageError("--scale and --width or --height contradict each other; give one of them")
        if self.devices is not None and self.device != "auto":
            raise UsageError("--device and --devices contradict each other; give one of them")
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is that of a Ray cluster; give --engine ray as well")
        if self.engine == "ray" and self.device != "auto":
            raise UsageError("--device is for one machine; with --engine ray, --devices cpu:N or all chooses")
        if self.shard is not None:
            Shard.parse(self.shard)
        if self.format is not None:
            from sr_cli import images

            images.by_name(self.format)

    @property
    def part(self) -> Shard | None:
        """The part of the batch to do; None: all."""
        return None if self.shard is None else Shard.parse(self.shard)

    @property
    def limits(self) -> images.Limits:
        """What a file may ask for before it is refused."""
        from sr_cli import images

        return images.Limits(
            self.max_pixels, self.max_output_pixels, self.max_frames, self.max_metadata_bytes, self.max_input
        )

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
