"""How the images of a job are computed: the request, and the choices that are made once, before the job starts."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, SupportsIndex, TypedDict

from sr_cli.errors import UsageError
from sr_cli.inference import backends, colours, memory
from sr_cli.inference.devices import PRECISIONS, choose_device, choose_precision, dtype_of
from sr_cli.inference.processor import Processor

if TYPE_CHECKING:
    import torch

    from sr_cli.weights import LoadedModel

SMALLEST_TILE = 16
DEFAULT_OVERLAP = 24  #: For weights whose own overlap has not been measured.
INDEXABLE = 2**31  #: Values in one tensor that a GPU's kernels can count in 32 bits.

# Larger tiles waste less on overlap; smaller ones keep activations in the processor's cache.
_CPU_TILES = (256, 192, 128, 96, 64, 48, 32, 24, 16)
_GPU_TILES = (512, 384, *_CPU_TILES)
_GPU_BATCHES = (8, 4, 2, 1)


class OptionValues(TypedDict, total=False):
    """The arguments of `InferenceOptions`, for signatures that pass them on."""

    device: str
    precision: str
    backend: str
    tile: int | Literal["auto"]
    overlap: int | Literal["auto", "full"]
    ensemble: bool
    threads: int | None
    pixels: int | None


@dataclass(frozen=True)
class InferenceOptions:
    """How images are to be computed. Raises ValueError or UsageError naming the invalid argument."""

    device: str = "auto"  #: `auto` (cuda, else mps, else cpu), `cpu`, `cuda`, `cuda:N` or `mps`.
    precision: str = "auto"  #: `auto`, `fp32`, `fp16` or `bf16`; see `devices.choose_precision`.
    backend: str = "auto"  #: `auto` or a name of `backends.BACKENDS`; see `backends.choose`.
    tile: int | Literal["auto"] = "auto"
    """Side of a tile's core in input pixels; 0: the whole image in one pass; `auto`: by memory."""
    overlap: int | Literal["auto", "full"] = "auto"
    """Input pixels that a tile sees beyond its core. `full`: all that have influence on it; `auto`: as many as were
    measured to hide the tiles (at most 1 of 255 levels away from the whole image in one pass)."""
    ensemble: bool = False
    """Average the results of the eight flips and rotations of the image (Lim et al. 2017, "EDSR", section 3.4:
    "self-ensemble"), in eight times the time."""
    threads: int | None = None  #: Threads that the CPU computes with, in the whole process; None: as torch chooses.
    pixels: int | None = None
    """Input pixels that the job will enlarge, None: not known. Converting a network does not repay for few."""

    def __post_init__(self) -> None:
        _check_number("tile", self.tile, ("auto",), 0)
        _check_number("overlap", self.overlap, ("auto", "full"), 0)
        _check_number("threads", self.threads, (None,), 1)
        _check_number("pixels", self.pixels, (None,), 0)
        for name in ("device", "precision", "backend"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}; use {', '.join(PRECISIONS)}")
        if self.backend != "auto":
            backends.get(self.backend)


def _check_number(name: str, value: object, words: tuple[str | None, ...], least: int) -> None:
    """Raise ValueError unless `value` is one of `words` or a whole number from `least` on."""
    if value is None or isinstance(value, str):
        valid = value in words
    else:
        valid = isinstance(value, SupportsIndex) and not isinstance(value, bool) and operator.index(value) >= least
    if not valid:
        others = "".join(f", or {word!r}" if word else ", or None" for word in words)
        raise ValueError(f"{name} must be a whole number from {least}{others}, not {value!r}")


@dataclass(frozen=True)
class Setup:
    """The choices, which are the same for all images of a job."""

    device: str  #: `cpu`, `cuda:0`, ...
    precision: str  #: `fp32`, `fp16` or `bf16`.
    backend: str  #: A name of `backends.BACKENDS`, or `pillow` for interpolation.
    tile: int  #: Side of the largest core of a tile, in input pixels; 0: the whole image.
    overlap: int  #: Input pixels around each core.
    batch: int = 1  #: Tiles that are computed together, at most.
    threads: int = 1  #: Threads of the CPU.
    reasons: tuple[str, ...] = field(default=(), compare=False)  #: Why, a line each.

    @property
    def label(self) -> str:
        """In a few words: `mesrgan on` this."""
        tiles = f"tiles of {self.tile}" if self.tile else "the photo in one pass"
        return f"{self.device}, {self.precision}, {self.backend}, {tiles}"

    @property
    def key(self) -> str:
        """All that the bytes of a result depend on.

        Threads of the processor are among it: now and then one rounds a value to the next level.
        """
        tiles = f"{self.tile}+{self.overlap}x{self.batch}"
        kind = self.device.partition(":")[0]  # whichever of several GPUs
        return f"{kind} {self.precision} {self.backend} {tiles}" + (f" {self.threads}" if kind == "cpu" else "")


def choose_setup(options: InferenceOptions, model: LoadedModel, processor: Processor | None = None) -> Setup:
    """Choose device, precision, backend and tiles for a model on this machine.

    Depends on nothing that happens later, nor on what happened before: installed packages, the device, the processor
    and its memory. Raises UsageError for a device, precision or backend that is not there.
    """
    import torch

    generator = model.generator
    device = choose_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    precision, why = choose_precision(options.precision, device.type, bf16_share(model), processor)
    backend = backends.choose(options.backend, device.type, precision, generator, options.pixels)
    full = generator.receptive_radius + colours.REACH
    measured = min(DEFAULT_OVERLAP if model.overlap is None else model.overlap, full)
    chosen = {"auto": measured, "full": full}
    overlap = chosen[options.overlap] if isinstance(options.overlap, str) else options.overlap
    values = generator.peak_values_per_pixel
    bytes_per_pixel = values * dtype_of(precision).itemsize * backends.get(backend).lanes(threads)
    tile, batch = choose_tiles(options.tile, overlap, device, bytes_per_pixel, values)
    return Setup(
        device=str(device),
        precision=precision,
        backend=backend,
        tile=tile,
        overlap=overlap,
        batch=batch,
        threads=threads,
        reasons=(f"precision {precision}: {why}", f"backend {backend}: {_why(options, backend, device.type)}"),
    )


def bf16_share(model: LoadedModel) -> float | None:
    """Return the share of values that bf16 keeps within 1 level with a model's weights; None if not measured."""
    if model.entry is None or model.stage is None:
        return None
    stage = model.entry.stages[model.stage]
    return stage.bf16_share if stage.sha256 == model.sha256 else None  # a blend of two stages is neither of them


def largest_window(values_per_pixel: int, batch: int = 1) -> int:
    """Return the pixels of a window for which a GPU's kernels can count all values of a batch."""
    return (INDEXABLE - 1) // (values_per_pixel * batch)


def choose_tiles(
    wish: int | Literal["auto"], overlap: int, device: torch.device, bytes_per_pixel: int, values: int
) -> tuple[int, int]:
    """Choose the side of the tiles' cores, and how many are computed together.

    `bytes_per_pixel` and `values` are what a network holds at its peak for a pixel that it sees.
    """
    if wish == 0:
        return 0, 1
    gpu = device.type != "cpu"
    free, total = memory.device_bytes(device)
    # A share of all memory, so that the choice is the same tomorrow; of what is free now only where that is little.
    # The output, the encoder and other programs need some as well.
    budget = min(total // (2 if gpu else 4), free * 3 // 4)

    def fits(tile: int, batch: int) -> bool:
        window = (tile + 2 * overlap) ** 2
        counted = not gpu or window <= largest_window(values, batch)
        return counted and batch * window * bytes_per_pixel <= budget

    sides = _GPU_TILES if gpu else _CPU_TILES
    tile = next((side for side in sides if fits(side, 1)), SMALLEST_TILE) if wish == "auto" else wish
    batches = _GPU_BATCHES if device.type == "cuda" else (1,)
    return tile, next((batch for batch in batches if fits(tile, batch)), 1)


def _why(options: InferenceOptions, backend: str, device: str) -> str:
    """Say why a backend was chosen."""
    if options.backend != "auto":
        return "asked for"
    if backend == "openvino":
        return "installed, and the fastest on a processor"
    if device != "cpu":
        return "the one that needs no kernels to be compiled or recorded"
    missing = backends.get("openvino").missing(device)
    if missing is not None:
        return "openvino is not installed"
    few = options.pixels is not None and options.pixels < backends.REPAYS_AFTER
    return "too few pixels to repay a conversion for openvino" if few else "openvino cannot run this network"
