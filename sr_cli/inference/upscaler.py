"""The inference path: device, precision, tiles, retries, batching. Everything that upscales goes through it.

Importing this module does not import torch; building an `Upscaler` for a network does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sr_cli.errors import OutOfMemory, UsageError, WeightsError
from sr_cli.inference import backends, colours, memory, pictures, tiling
from sr_cli.inference.backends import Network
from sr_cli.inference.pictures import Picture
from sr_cli.weights.specs import INTERPOLATIONS

if TYPE_CHECKING:
    import torch

    from sr_cli.weights import LoadedModel

Pixels = NDArray[Any]
"""(H, W, C), C = 1 or 3, as uint8 (0..255), uint16 (0..65535) or float32 (0..1)."""

PRECISIONS = ("auto", "fp32", "fp16", "bf16")

SMALLEST_TILE = 16
DEFAULT_OVERLAP = 24
"""For weights whose own overlap has not been measured."""

# Larger tiles waste less on overlap; smaller ones keep activations in the processor's cache.
_CPU_TILE = 256
_GPU_TILE = 512
_GPU_BATCH = 8


@dataclass(frozen=True)
class EngineResult:
    """What one picture became, and how."""

    pixels: Pixels
    """(scale * H, scale * W, C), of the input's type and channels."""
    tiles: int
    """Tiles that were computed; 0 for interpolation."""
    tile: int
    """Side of the largest core that was used, in input pixels; smaller than asked after a shortage of memory."""
    overlap: int
    """Input pixels around each core."""
    redone: int
    """Tiles that were computed again in a wider format because the first result was not finite."""


Progress = Callable[[int, int], None]
"""Called with the tiles done and their total."""
OnRows = Callable[[Pixels], None]
"""Called with finished rows of the output, top to bottom, each row once."""


def to_unit(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels of any accepted type as float32 in 0..1."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(65535)
    return pixels.astype(np.float32, copy=False)


def _check(pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W, 1 or 3) and not empty, not {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"pixels must be uint8, uint16 or float32, not {pixels.dtype}")


def interpolate(pixels: Pixels, scale: int, kind: str) -> Pixels:
    """Enlarges by Pillow's BICUBIC (cubic, a = -0.5) or LANCZOS (a = 3); clamped to the type's range."""
    from PIL import Image

    resample = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}[kind]
    height, width, channels = pixels.shape
    size = (width * scale, height * scale)
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).resize(size, resample)
        return np.asarray(image).reshape(size[1], size[0], channels)
    output = np.empty((size[1], size[0], channels), pixels.dtype)
    top = 65535.0 if pixels.dtype == np.uint16 else 1.0
    for channel in range(channels):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32)).resize(size, resample)
        values = np.clip(np.asarray(plane), 0.0, top)
        output[:, :, channel] = np.rint(values) if pixels.dtype == np.uint16 else values
    return output


def choose_device(name: str) -> torch.device:
    """`auto` (cuda, else mps, else cpu) or a named device. Raises UsageError where it is not there."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unsupported device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count() if cuda else 0
        raise UsageError(f"no device {name!r} here ({found} CUDA devices found); use --device cpu or auto")
    if device.type == "mps" and not mps:
        raise UsageError("no Apple GPU (mps) here; use --device cpu or auto")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` (fp16 on CUDA, fp32 elsewhere) or a named precision. Raises UsageError for another name."""
    import torch

    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; use {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def precision_name(dtype: torch.dtype) -> str:
    """The inverse of `choose_precision`."""
    return {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}[str(dtype)]


class Upscaler:
    """Enlarges pictures with one model.

    `model` is a name (`mesrgan`), a name with its stage (`mesrgan:pixel`), a path to a safetensors file,
    `bicubic` or `lanczos`, or weights already loaded. `tile` is the side of a tile's core in input pixels,
    0 for the whole picture in one pass, "auto" for a choice by memory; `overlap` the pixels that a tile
    sees beyond its core, "full" for all that has influence on it, "auto" for what was measured to
    hide the tiles (at most 1 of 255 levels away from the whole picture in one pass).

    `fidelity` 0..1 draws the model's GAN stage towards the stage it was fine-tuned from (1), see
    `weights.load_blend`. `ensemble` averages the results of the eight flips and rotations of the picture
    (Lim et al. 2017, "EDSR", section 3.4: "self-ensemble"), in eight times the time.

    `backend` names a way to run the network (`backends.NAMES`); "auto" runs it with plain torch until enough
    pixels have come by to repay a conversion for OpenVINO, where that is installed.

    Raises UsageError for an unknown device, precision or backend, WeightsError where the weights cannot be had.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel = "mesrgan",
        *,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        tile: int | Literal["auto"] = "auto",
        overlap: int | Literal["auto", "full"] = "auto",
        fidelity: float | None = None,
        ensemble: bool = False,
        offline: bool = False,
        download_progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self._tile = tile
        self.network: Network | None = None
        self.fidelity, self.ensemble = fidelity, ensemble
        if isinstance(model, str) and model in INTERPOLATIONS and fidelity is None:
            self.name, self.stage, self.weights_sha256 = model, None, None
            self.scale, self.overlap, self._alignment = 4, 0, 1
            self.device_name, self.precision = "cpu", "fp32"
            return
        if fidelity is not None:
            from sr_cli import weights

            model = weights.load_blend(model, fidelity, offline=offline, progress=download_progress)
        elif isinstance(model, str | Path):
            from sr_cli import weights

            model = weights.load(model, offline=offline, progress=download_progress)
        self.name, self.stage, self.weights_sha256 = model.name, model.stage, model.sha256
        generator = model.generator
        self.scale = generator.scale
        self._alignment = generator.alignment
        measured = DEFAULT_OVERLAP if model.overlap is None else model.overlap
        full = generator.receptive_radius + colours.REACH
        chosen = {"auto": min(measured, full), "full": full}
        self.overlap = chosen[overlap] if isinstance(overlap, str) else overlap
        self._device = choose_device(device)
        if self._device.type == "cpu":
            memory.keep_freed_memory()
        self._dtype = choose_precision(precision, self._device)
        self.device_name, self.precision = str(self._device), precision_name(self._dtype)
        self._folded = generator.fold().to(self._device)
        if backend == "auto" and not generator.traceable:
            backend = "eager"
        self.backend = backends.choose(backend, self._device, self._dtype)
        self._repays_after = backends.REPAYS_AFTER if backend == "auto" and self.backend != "eager" else 0
        self.network = self._prepare(self._dtype, "eager" if self._repays_after else self.backend)
        self._peak_values_per_pixel = generator.peak_values_per_pixel

    def _prepare(self, dtype: torch.dtype, backend: str) -> Network:
        network = backends.prepare(self._folded, dtype, backend)
        return _ensemble(network) if self.ensemble else network

    def _expect(self, plan: tiling.Plan) -> None:
        """Converts the network for a faster backend once the pixels seen and to come repay that."""
        if self._repays_after <= 0:
            return
        height, width = plan.window
        self._repays_after -= len(plan.tiles) * height * width * (8 if self.ensemble else 1)
        if self._repays_after <= 0:
            self.network = self._prepare(self._dtype, self.backend)

    def upscale(self, pixels: Pixels, progress: Progress | None = None, on_rows: OnRows | None = None) -> EngineResult:
        """Enlarges one picture by `self.scale`.

        Raises ValueError for arrays of another shape or type, OutOfMemory where even the smallest tile
        does not fit.
        """
        _check(pixels)
        height, width, channels = pixels.shape
        try:
            if self.network is None:
                output = interpolate(pixels, self.scale, self.name)
                if on_rows:
                    on_rows(output)
                return EngineResult(output, 0, 0, 0, 0)
            output = np.empty((height * self.scale, width * self.scale, channels), pixels.dtype)
        except MemoryError:
            raise OutOfMemory(
                f"the output of {width * self.scale}x{height * self.scale} pixels does not fit into memory; "
                "reduce the picture first"
            ) from None
        return _Pass(self, pixels, output, progress, on_rows).run()

    def __call__(self, picture: Picture, progress: Progress | None = None) -> Picture:
        """Enlarges a Pillow image, numpy array or tensor and gives it back in the same form; see `pictures.enlarge`.

        `progress` is called with the tiles done and their total, anew for each plane that is enlarged.
        """
        return pictures.enlarge(picture, lambda pixels: self.upscale(pixels, progress).pixels)

    def plan(self, height: int, width: int) -> tiling.Plan:
        """The tiles that a picture of this size would be cut into now."""
        return tiling.plan(height, width, self._auto_tile(height, width), self.overlap, self._alignment)

    def working_bytes(self, height: int, width: int) -> int:
        """Memory that the network takes for a picture of this size beside the pictures themselves, roughly."""
        if self.network is None:
            return 0
        rows, columns = self.plan(height, width).window
        return rows * columns * self._bytes_per_pixel

    @property
    def _bytes_per_pixel(self) -> int:
        assert self.network is not None
        return self._peak_values_per_pixel * self._dtype.itemsize * backends.lanes(self.network)

    def _auto_tile(self, height: int, width: int) -> int:
        if self._tile != "auto":
            return self._tile
        largest = max(height, width)
        if self.network is None:
            return largest
        wanted = _GPU_TILE if self._device.type == "cuda" else _CPU_TILE
        # Half of what is free: the output buffer, the encoder and other programs need some as well.
        affordable = int((self._free_bytes() / 2 / self._bytes_per_pixel) ** 0.5) - 2 * self.overlap
        return max(SMALLEST_TILE, min(wanted, affordable, largest))

    def _batch_size(self, plan: tiling.Plan) -> int:
        if self._device.type != "cuda":
            return 1
        height, width = plan.window
        fits = int(self._free_bytes() / 2 / (height * width * self._bytes_per_pixel))
        return max(1, min(_GPU_BATCH, fits))

    def _free_bytes(self) -> int:
        import torch

        if self._device.type == "cuda":
            return torch.cuda.mem_get_info(self._device)[0]
        return memory.free_bytes()


class _Pass:
    """One picture on its way through the network; holds what its tiles share."""

    def __init__(
        self, upscaler: Upscaler, pixels: Pixels, output: Pixels, progress: Progress | None, on_rows: OnRows | None
    ) -> None:
        self.upscaler = upscaler
        self.pixels = pixels
        self.output = output
        self.progress = progress
        self.on_rows = on_rows
        self.finished_rows = 0
        self.redone = 0

    def run(self) -> EngineResult:
        height, width = self.pixels.shape[:2]
        tile = self.upscaler._auto_tile(height, width) or max(height, width)
        while True:
            plan = tiling.plan(height, width, tile, self.upscaler.overlap, self.upscaler._alignment)
            try:
                self._run_plan(plan)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                _empty_cache(self.upscaler)
                # The plan's own core, not the wish, decides what "smaller" means for a small picture.
                core = max(plan.tiles[0].height, plan.tiles[0].width)
                tile = core // 2
                if tile < SMALLEST_TILE:
                    raise OutOfMemory(
                        f"out of memory on {self.upscaler.device_name} even with tiles of {core} pixels; "
                        "close other programs or use --device cpu"
                    ) from None
                continue
            core = max(plan.tiles[0].height, plan.tiles[0].width)
            return EngineResult(self.output, len(plan.tiles), core, plan.overlap, self.redone)

    def _run_plan(self, plan: tiling.Plan) -> None:
        import torch

        upscaler = self.upscaler
        upscaler._expect(plan)
        size = upscaler._batch_size(plan)
        groups = [
            row[start : start + size]
            for row in _rows(plan.tiles)
            # After a shortage of memory, rows that are already out are not computed again.
            if (row[0].top + row[0].height) * upscaler.scale > self.finished_rows
            for start in range(0, len(row), size)
        ]
        done = len(plan.tiles) - sum(len(tiles) for tiles in groups)
        with torch.inference_mode():
            for tiles, results in self._computed(groups, plan.overlap):
                self._place(tiles, results)
                done += len(tiles)
                if self.progress:
                    self.progress(done, len(plan.tiles))
                last = tiles[-1]
                if last.left + last.width == plan.width:
                    bottom = (last.top + last.height) * upscaler.scale
                    if self.on_rows:
                        self.on_rows(self.output[self.finished_rows : bottom])
                    self.finished_rows = bottom

    def _computed(
        self, groups: Sequence[list[tiling.Tile]], overlap: int
    ) -> Iterator[tuple[list[tiling.Tile], torch.Tensor]]:
        """Each group of tiles with its results (n, C, scale*h, scale*w), without the overlap."""
        upscaler = self.upscaler
        assert upscaler.network is not None
        started: deque[tuple[list[tiling.Tile], torch.Tensor]] = deque()

        def batches() -> Iterator[torch.Tensor]:
            for tiles in groups:
                started.append((tiles, self._batch(tiles, overlap)))
                yield started[-1][1]

        for result in backends.stream(upscaler.network, batches(), len(groups)):
            tiles, batch = started.popleft()
            if not _is_finite(result):
                result = self._compute_wider(batch)
            result = colours.keep_colours(result, batch, overlap)
            yield tiles, result.mean(dim=1, keepdim=True) if self.pixels.shape[2] == 1 else result

    def _batch(self, tiles: list[tiling.Tile], overlap: int) -> torch.Tensor:
        """The tiles' windows as the network takes them: (n, 3, h, w) in 0..1, channels-last, on its device."""
        import torch

        windows = np.stack([_cut(self.pixels, tile, overlap) for tile in tiles])
        batch = torch.from_numpy(windows).to(self.upscaler._device, non_blocking=True)
        # In memory order (n, h, w, C): seen as (n, C, h, w) this is channels-last already.
        batch = batch.permute(0, 3, 1, 2).to(torch.float32).div_(_top(windows.dtype))
        if windows.shape[3] == 1:
            batch = batch.expand(-1, 3, -1, -1)
        return batch.contiguous(memory_format=torch.channels_last)

    def _place(self, tiles: list[tiling.Tile], results: torch.Tensor) -> None:
        scale = self.upscaler.scale
        for tile, result in zip(tiles, results, strict=True):
            top, left = tile.top * scale, tile.left * scale
            # Rows that are already out stay as they went out.
            skip = max(0, self.finished_rows - top)
            rows = self.output[top + skip : top + tile.height * scale, left : left + tile.width * scale]
            _write(rows, result[:, skip:])

    def _compute_wider(self, batch: torch.Tensor) -> torch.Tensor:
        """Computes again what was not finite, in bf16 (after fp16) and then in fp32."""
        import torch

        upscaler = self.upscaler
        self.redone += batch.shape[0]
        wider = {torch.float16: [torch.bfloat16, torch.float32], torch.bfloat16: [torch.float32]}
        for dtype in wider.get(upscaler._dtype, []):
            result = upscaler._prepare(dtype, "eager")(batch)
            if _is_finite(result):
                return result
        raise WeightsError(f"the weights of {upscaler.name} give values that are not finite, even in fp32")


def _ensemble(network: Network) -> Network:
    """The mean of a network's results for the eight flips and rotations of its input, in fp32."""

    def averaged(batch: torch.Tensor) -> torch.Tensor:
        import torch

        total: torch.Tensor | None = None
        for turn in range(4):
            for flipped in (False, True):
                turned = torch.rot90(batch.flip(3) if flipped else batch, turn, (2, 3))
                result = network(turned.contiguous(memory_format=torch.channels_last)).float()
                upright = torch.rot90(result, -turn, (2, 3))
                upright = upright.flip(3) if flipped else upright
                total = upright.clone() if total is None else total.add_(upright)
        assert total is not None
        return total.div_(8)

    return averaged


def _rows(tiles: Sequence[tiling.Tile]) -> Iterator[list[tiling.Tile]]:
    """The tiles of each row of a plan."""
    row: list[tiling.Tile] = []
    for tile in tiles:
        if row and tile.top != row[0].top:
            yield row
            row = []
        row.append(tile)
    yield row


def _cut(pixels: Pixels, tile: tiling.Tile, overlap: int) -> Pixels:
    """A tile's window, filled beyond the picture by replicating its border."""
    height, width = pixels.shape[:2]
    rows = np.arange(tile.top - overlap, tile.top + tile.height + overlap).clip(0, height - 1)
    columns = np.arange(tile.left - overlap, tile.left + tile.width + overlap).clip(0, width - 1)
    return pixels[rows[:, None], columns[None, :]]


def _top(dtype: np.dtype[Any]) -> float:
    """The value that stands for full intensity."""
    return {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}[dtype]


def _is_finite(values: torch.Tensor) -> bool:
    """Whether no value is infinite or not a number; both show in the sum, which is found faster."""
    import torch

    return bool(torch.isfinite(values.sum()))


def _write(target: Pixels, planes: torch.Tensor) -> None:
    """Floats (C, h, w), clamped to 0..1 and rounded in place, into an array (h, w, C)."""
    import torch

    planes = planes.clamp_(0.0, 1.0)
    if target.dtype != np.float32:
        planes = planes.mul_(_top(target.dtype)).round_()
    if target.dtype == np.uint8:
        planes = planes.to(torch.uint8)  # a quarter of the bytes to move; uint16 is not to be had on every device
    for channel, plane in enumerate(planes.cpu().numpy()):
        target[:, :, channel] = plane  # all channels in one step take three times as long


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator and oneDNN have no exception type of their own.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "could not create a memory")
    )


def _empty_cache(upscaler: Upscaler) -> None:
    import torch

    if upscaler._device.type == "cuda":
        torch.cuda.empty_cache()
