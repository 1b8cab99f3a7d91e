"""Enlarging by a network, tile by tile: batches, shortages of memory, and tiles that overflow half precision."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

from sr_cli.errors import OutOfMemory, WeightsError
from sr_cli.inference import backends, tiling
from sr_cli.inference.backends import Network
from sr_cli.inference.colours import keep_colours
from sr_cli.inference.devices import dtype_of
from sr_cli.inference.enlarger import EngineResult, OnRows, OnTiles
from sr_cli.inference.ensemble import Ensemble
from sr_cli.inference.pixels import AnyPixels, Windows, to_samples
from sr_cli.inference.setup import SMALLEST_TILE, Setup, largest_window

if TYPE_CHECKING:
    from sr_cli.weights import LoadedModel

T = TypeVar("T")

_WIDER = {"fp16": ("bf16", "fp32"), "bf16": ("fp32",), "fp32": ()}  #: Next precision to try if results are not finite.


class TiledNetwork:
    """Enlarges images by one network; see `Enlarger`. Threads may share it.

    `wrap_network` may put something around the network, a clock for instance.
    """

    def __init__(
        self,
        model: LoadedModel,
        setup: Setup,
        *,
        ensemble: bool = False,
        wrap_network: Callable[[Network], Network] | None = None,
    ) -> None:
        generator = model.generator
        self.name, self.scale, self.setup = model.name, generator.scale, setup
        self.device = torch.device(setup.device)
        self._alignment, self._values_per_pixel = generator.alignment, generator.peak_values_per_pixel
        self._folded = generator.fold().to(self.device)
        self._ensemble = ensemble
        network = self._prepare(setup.precision, setup.backend)
        self.network = network if wrap_network is None else wrap_network(network)
        backend = backends.get(setup.backend)
        self._lanes = backend.lanes(setup.threads)
        # One image at a time if the network has its own buffers.
        self._turn: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if backend.thread_safe else threading.Lock()
        )
        self.works_ahead = self.device.type == "cuda"
        """Whether a result is asked for before it is there, so that the next batch is begun before it is placed."""
        self._wider: dict[str, Network] = {}
        self._preparing = threading.Lock()

    def enlarge(
        self, pixels: AnyPixels, output: AnyPixels, progress: OnTiles | None, on_rows: OnRows | None
    ) -> EngineResult:
        with self._turn, torch.inference_mode(), _on(self.device):
            return _Enlargement(self, pixels, output, progress, on_rows).run()

    def plan(self, height: int, width: int) -> tiling.Plan:
        return self.plan_with(height, width, self.setup.tile, self.setup.batch)

    def plan_with(self, height: int, width: int, tile: int, batch: int) -> tiling.Plan:
        """Cut into tiles of at most `tile` a side (0: one for all), on a GPU not larger than its kernels can count."""
        plan = tiling.plan(height, width, tile, self.setup.overlap, self._alignment)
        most = largest_window(self._values_per_pixel, batch)
        if self.device.type == "cpu" or plan.window[0] * plan.window[1] <= most:
            return plan
        side = max(SMALLEST_TILE, int(most**0.5) - 2 * plan.overlap)
        return tiling.plan(height, width, side, plan.overlap, self._alignment)

    def working_bytes(self, height: int, width: int) -> int:
        rows, columns = self.plan(height, width).window
        return rows * columns * self._values_per_pixel * dtype_of(self.setup.precision).itemsize * self._lanes

    def compute_wider(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute again what was not finite, in bf16 (after fp16) and then in fp32. Raises WeightsError."""
        for precision in _WIDER[self.setup.precision]:
            with self._preparing:
                if precision not in self._wider:
                    self._wider[precision] = self._prepare(precision, "eager")
            result = self._wider[precision](batch)
            if bool(_is_finite(result)):
                return result
        raise WeightsError(f"the weights of {self.name} give values that are not finite, even in fp32")

    def release(self) -> None:
        """Give back what is kept between images, because memory is short."""
        self.network.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, precision: str, backend: str) -> Network:
        network = backends.prepare(self._folded, dtype_of(precision), backend)
        return Ensemble(network) if self._ensemble else network


@dataclass(frozen=True)
class _Batch:
    """Tiles that are computed together."""

    tiles: Sequence[tiling.Tile]
    cores: Sequence[tiling.Tile]  #: Where each of them is in its window; the last one may be there several times.
    source: torch.Tensor  #: Their windows.


class _Computed(NamedTuple):
    """A batch's result on its way to the host."""

    batch: _Batch
    samples: torch.Tensor  #: (n, h, w, C), perhaps still being copied.
    finite: torch.Tensor
    copied: torch.cuda.Event | None  #: When it is there; None: it is.


class _Enlargement:
    """One image on its way through a network; holds what its tiles share."""

    def __init__(
        self,
        network: TiledNetwork,
        pixels: AnyPixels,
        output: AnyPixels,
        progress: OnTiles | None,
        on_rows: OnRows | None,
    ) -> None:
        self.network, self.pixels, self.output = network, pixels, output
        self.progress, self.on_rows = progress, on_rows
        self.finished_rows = 0
        self.redone = 0

    def run(self) -> EngineResult:
        """Raise OutOfMemory where even the smallest tile does not fit."""
        height, width = self.pixels.shape[:2]
        try:
            self.windows = Windows(self.pixels, self.network.device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"out of memory on {self.network.device}: {width}x{height} pixels do not fit; reduce the photo first"
            ) from None
        tile, batch = self.network.setup.tile, self.network.setup.batch
        while True:
            plan = self.network.plan_with(height, width, tile, batch)
            # The plan's own core, not the wish, decides what "smaller" means for a small image.
            core = max(plan.tiles[0].height, plan.tiles[0].width)
            try:
                self._run_plan(plan, batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return EngineResult(self.output, len(plan.tiles), core, plan.overlap, self.redone, self.network.setup)
            # Only here: until the exception is gone, its traceback holds the activations.
            self.network.release()
            if batch > 1:
                batch //= 2
                continue
            tile = core // 2
            if tile < SMALLEST_TILE:
                raise OutOfMemory(
                    f"out of memory on {self.network.device} even with tiles of {core} pixels; "
                    "close other programs or use --device cpu"
                )

    def _run_plan(self, plan: tiling.Plan, batch: int) -> None:
        rows = [
            row
            for row in tiling.rows(plan.tiles)
            # After a shortage of memory, rows that are already out are not computed again.
            if (row[0].top + row[0].height) * self.network.scale > self.finished_rows
        ]
        size = _even_size(len(rows[0]), batch) if rows else 1
        groups = [row[start : start + size] for row in rows for start in range(0, len(row), size)]
        done = len(plan.tiles) - sum(len(tiles) for tiles in groups)
        computed = self._computed(plan, groups, size)
        # A GPU computes the next batch while the last one is placed.
        for result in one_behind(computed) if self.network.works_ahead else computed:
            self._place(result)
            done += len(result.batch.tiles)
            if self.progress:
                self.progress(done, len(plan.tiles))
            last = result.batch.tiles[-1]
            if last.left + last.width == plan.width:
                self._finish_rows((last.top + last.height) * self.network.scale)

    def _finish_rows(self, bottom: int) -> None:
        if self.on_rows:
            self.on_rows(self.output[self.finished_rows : bottom])
        self.finished_rows = bottom

    def _computed(self, plan: tiling.Plan, groups: Sequence[Sequence[tiling.Tile]], size: int) -> Iterator[_Computed]:
        """Yield each group of tiles with its result, without the overlap, of the output's type and channels.

        All batches have `size` tiles, so that they have one shape: the last of a smaller group is repeated.
        """
        started: deque[_Batch] = deque()

        def sources() -> Iterator[torch.Tensor]:
            for tiles in groups:
                filled = [tiles[min(index, len(tiles) - 1)] for index in range(size)]
                windows = [plan.window_of(tile) for tile in filled]
                cores = [tile.within(window) for tile, window in zip(filled, windows, strict=True)]
                started.append(_Batch(tiles, cores, self.windows.batch(windows)))
                yield started[-1].source

        for result in self.network.network.stream(sources(), len(groups)):
            batch = started.popleft()
            finite = _is_finite(result)
            if not self.network.works_ahead and not bool(finite):
                result, finite = self._computed_wider(batch), torch.tensor(True)
            yield self._landing(batch, self._finished(result, batch), finite)

    def _finished(self, result: torch.Tensor, batch: _Batch) -> torch.Tensor:
        return finished(result, batch.source, batch.cores, self.pixels.dtype, self.pixels.shape[2])

    def _computed_wider(self, batch: _Batch) -> torch.Tensor:
        self.redone += len(batch.tiles)
        return self.network.compute_wider(batch.source)

    def _landing(self, batch: _Batch, samples: torch.Tensor, finite: torch.Tensor) -> _Computed:
        """Begin to copy samples to the host, where a GPU made them."""
        if samples.device.type != "cuda":
            return _Computed(batch, samples.cpu(), finite, None)
        there = [
            torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            for value in (samples, finite)
        ]
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return _Computed(batch, there[0], there[1], copied)

    def _place(self, result: _Computed) -> None:
        if result.copied is not None:
            result.copied.synchronize()
        samples = result.samples
        if not bool(result.finite):
            samples = self._finished(self._computed_wider(result.batch), result.batch).cpu()
        scale = self.network.scale
        for tile, rows in zip(result.batch.tiles, samples.numpy(), strict=False):  # the last tile may be there twice
            top, left = tile.top * scale, tile.left * scale
            # Rows that are already out stay as they went out.
            skip = max(0, self.finished_rows - top)
            target = self.output[top + skip : top + tile.height * scale, left : left + tile.width * scale]
            target[...] = rows[skip:].view(np.uint16) if target.dtype == np.uint16 else rows[skip:]


def finished(
    result: torch.Tensor, source: torch.Tensor, cores: Sequence[tiling.Tile], dtype: np.dtype[Any], channels: int
) -> torch.Tensor:
    """Finish a network's output for the windows `source`: keep the colours and cut the cores out; see `to_samples`.

    Nothing here waits for a GPU.
    """
    result = keep_colours(result, source, cores)
    if channels == 1:
        result = result.mean(dim=1, keepdim=True)
    return to_samples(result, dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator and oneDNN have no exception type of their own.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "could not create a memory")
    )


def _even_size(count: int, most: int) -> int:
    """Choose the size of as few batches of at most `most` as possible, as equal as possible, for `count` tiles."""
    return -(-count // -(-count // most))


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, each one only after the next has been made."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _is_finite(values: torch.Tensor) -> torch.Tensor:
    """Tell whether no value is infinite or not a number; both show in the sum, which is found faster."""
    return torch.isfinite(values.sum())


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make `device` the current one for a context, where there are several."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
