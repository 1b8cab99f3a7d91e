"""The dry run: estimates what a batch needs and which photos would fail, without writing anything."""

from __future__ import annotations

import functools
import heapq
import io
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from sr_cli import images, inference
from sr_cli.errors import OutOfMemory, OutputError, SrupError
from sr_cli.inference import memory, tiling
from sr_cli.storage import Place, format_bytes, readable
from sr_cli.upscale import checks
from sr_cli.upscale import inputs as planning
from sr_cli.upscale.checks import History
from sr_cli.upscale.enlarge import passes_for
from sr_cli.upscale.inputs import Batch, Task
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.shards import shard_of
from sr_cli.upscale.worker import for_device, make_upscaler

# Bytes per sample of enlarged photos; nine in ten take less (24 photos, bicubic and a network);
# the lower byte of 16 bits is noise and stays whole.
_BYTES_PER_SAMPLE = {"PNG": 0.65, "JPEG": 0.19, "WEBP": 0.08, "TIFF": 1.0, "GIF": 0.35}
_HEADERS = 4096
# Formats that are written as they arrive; for the others Pillow takes a copy of four bytes a pixel.
_STREAMED = ("PNG", "TIFF")
_PILLOW_BYTES = 4
_CALIBRATION_SIDES = (64, 192)
_ENCODED_SIDE = 512

Size: TypeAlias = tuple[int, int]  #: Width and height.


@dataclass(frozen=True)
class FileEstimate:
    """What one input would take."""

    input: Place  #: The photo; `-` is standard input.
    output: Place  #: Where the enlarged one would be; `-` is standard output.
    status: Literal["planned", "skipped", "failed"]  #: `failed`: it would fail, `error` says why.
    input_width: int = 0  #: Columns of the input, upright.
    input_height: int = 0  #: Rows of the input, upright.
    frames: int = 0  #: Pages or frames; 1 for most photos.
    width: int = 0  #: Columns of the output.
    height: int = 0  #: Rows of the output.
    tiles: int = 0  #: Tiles to compute, all frames and passes; 0 for interpolation.
    memory_bytes: int = 0  #: Memory while it is enlarged, without that of the program itself.
    disk_bytes: int = 0  #: Size of the output; nine of ten photos take less.
    seconds: float = 0.0  #: Time for the network and for writing.
    note: str | None = None  #: Why it would be skipped.
    error: str | None = None  #: Why it would fail.
    exit_code: int = 0  #: The exit code that this failure alone would have.


@dataclass(frozen=True)
class Part:
    """What one of the jobs or workers that share a batch would take."""

    name: str  #: `I/N` of a shard; a worker's device and number.
    files: int  #: Inputs that it would enlarge.
    pixels: int  #: Pixels of its inputs.
    seconds: float  #: Time on this machine.


@dataclass(frozen=True)
class Estimate:
    """What a batch would take."""

    files: tuple[FileEstimate, ...]  #: In the order of the batch.
    left_out: tuple[Place, ...]  #: Photos in folders that are outputs themselves.
    disk_free: int | None  #: Bytes free where the first output goes; None without an output file.
    shards: tuple[Part, ...] = ()  #: All jobs that share the batch, if it is shared; `files` are those of one.
    workers: tuple[Part, ...] = ()  #: All workers that share `files`, if there are several (`--devices`).

    @property
    def planned(self) -> list[FileEstimate]:
        """The inputs that would be enlarged."""
        return [file for file in self.files if file.status == "planned"]

    @property
    def seconds(self) -> float:
        """Time until all are done: that of the last worker."""
        if self.workers:
            return max(worker.seconds for worker in self.workers)
        return sum(file.seconds for file in self.planned)

    @property
    def disk_bytes(self) -> int:
        """Size of all outputs."""
        return sum(file.disk_bytes for file in self.planned)

    @property
    def memory_bytes(self) -> int:
        """Memory of the file that takes most."""
        return max((file.memory_bytes for file in self.planned), default=0)


def estimate(
    inputs: Sequence[str | Path],
    output: str | Path | None,
    options: UpscaleOptions,
    *,
    stdin: BinaryIO | None = None,
) -> Estimate:
    """Foresee what `run` with the same arguments would do, from a calibration of about a second.

    Reads the headers of the inputs and writes nothing. Raises as `run` does before it touches a photo.
    """
    shard = options.part
    journals = Journals.of(options)
    batch = planning.plan([str(name) for name in inputs], None if output is None else str(output), options, journals)
    devices = () if options.devices is None or options.engine == "ray" else inference.choose_devices(options.devices)
    if devices:
        options = for_device(options, devices[0])
    upscaler = make_upscaler(options, None if batch.several else _pixels_to_come(batch.tasks[0], options))
    history = History(batch.several, options, journals, lambda: upscaler)
    estimator = _Estimator(options, upscaler, history, stdin)
    files = [estimator.file(task) for task in batch.tasks]
    shards: tuple[Part, ...] = () if shard is None else _shards(files, batch, shard.count)
    if shard is not None:
        files = [file for file, task in zip(files, batch.tasks, strict=True) if shard.has(task.relative)]
        batch = planning.of_shard(batch, shard)
    files = _within_disk(files, batch)
    workers = _workers(files, devices)
    return Estimate(tuple(files), batch.left_out, _free(batch.tasks[0]) if batch.tasks else None, shards, workers)


def _workers(files: Sequence[FileEstimate], devices: Sequence[inference.WorkerDevice]) -> tuple[Part, ...]:
    """Return what each worker would do: whoever is free first takes the next file from the queue."""
    groups: list[list[FileEstimate]] = [[] for _ in devices]
    free_at = [(0.0, number) for number in range(len(devices))]
    for file in files:
        if devices and file.status == "planned":
            seconds, number = heapq.heappop(free_at)
            groups[number].append(file)
            heapq.heappush(free_at, (seconds + file.seconds, number))
    names = [
        f"{device.device} {number}" if device.device == "cpu" else device.device
        for number, device in enumerate(devices, 1)
    ]
    return tuple(_part(name, group) for name, group in zip(names, groups, strict=True))


def _part(name: str, files: Sequence[FileEstimate]) -> Part:
    pixels = sum(file.input_width * file.input_height * file.frames for file in files)
    return Part(name, len(files), pixels, sum(file.seconds for file in files))


def _shards(files: Sequence[FileEstimate], batch: Batch, count: int) -> tuple[Part, ...]:
    """Return what each of `count` jobs would do."""
    groups: list[list[FileEstimate]] = [[] for _ in range(count)]
    for file, task in zip(files, batch.tasks, strict=True):
        if file.status == "planned":
            groups[shard_of(task.relative, count) - 1].append(file)
    return tuple(_part(f"{index}/{count}", group) for index, group in enumerate(groups, 1))


def _pixels_to_come(task: Task, options: UpscaleOptions) -> int | None:
    """Count the input pixels of a single task; None where its header does not tell, or a pipe would have to be read."""
    if task.source is None or (isinstance(task.source, Path) and not os.path.isfile(task.source)):
        return None
    try:
        source = readable(task.source, options.limits.max_input_bytes)
        return sum(width * height for width, height in images.probe(source, limits=options.limits).sizes)
    except SrupError:
        return None


class _Estimator:
    """Estimates file by file; measures how fast this machine is when that is first needed."""

    def __init__(
        self, options: UpscaleOptions, upscaler: inference.Upscaler, history: History, stdin: BinaryIO | None
    ) -> None:
        self.options, self.upscaler, self.history, self.stdin = options, upscaler, history, stdin
        self._writing_rates: dict[str, float] = {}

    def file(self, task: Task) -> FileEstimate:
        empty = FileEstimate(task.shown_source, task.shown_target, "planned")
        try:
            checks.check_source(task)
            if reason := self.history.reason_to_skip(task, self.history.content(task)):
                return replace(empty, status="skipped", note=reason)
            checks.check_target(task, self.options)
            limits = self.options.limits
            stdin = self.stdin or io.BytesIO()
            source = readable(task.source, limits.max_input_bytes) if task.source else stdin
            if checks.is_marked_object(task, source):
                return replace(empty, status="skipped", note=checks.MARKED)
            return self._planned(task, empty, images.probe(source, limits=limits))
        except SrupError as error:
            return replace(empty, status="failed", error=str(error), exit_code=error.exit_code)

    def _planned(self, task: Task, empty: FileEstimate, header: images.Header) -> FileEstimate:
        target = checks.output_format(task, self.options)
        images.check_several(target, header.kind, len(header.sizes))
        sizes = [checks.checked_size(*size, task, self.options) for size in header.sizes]
        depth = header.bits // 8
        passes = [self._passes(size, wish) for size, wish in zip(header.sizes, sizes, strict=True)]
        pixels = sum(width * height for width, height in sizes)
        needed = max(
            self._memory(size, wish, steps, header.channels * depth, target.name)
            for size, wish, steps in zip(header.sizes, sizes, passes, strict=True)
        )
        held = sum(width * height for width, height in header.sizes) * header.channels * depth
        if needed + held > memory.free_bytes():
            raise OutOfMemory(f"{task.shown_source}: would take {format_bytes(needed + held)}, more than is free now")
        per_sample = _BYTES_PER_SAMPLE[target.name] + (depth - 1 if target.sixteen_bits else 0)
        plans = [self.upscaler.plan(height, width) for steps in passes for width, height in steps]
        seconds = self._rate * sum(map(_seen_pixels, plans)) if plans else 0.0
        return replace(
            empty,
            input_width=header.sizes[0][0],
            input_height=header.sizes[0][1],
            frames=len(sizes),
            width=sizes[0][0],
            height=sizes[0][1],
            tiles=sum(len(plan.tiles) for plan in plans) if self.upscaler.weights_sha256 else 0,
            memory_bytes=needed + held,
            disk_bytes=int(pixels * header.channels * per_sample) + _HEADERS,
            seconds=seconds + pixels * self._writing_rate(target.name),
        )

    def _passes(self, size: Size, wish: Size) -> list[Size]:
        """Return width and height of what goes into each pass of the model."""
        scale = self.upscaler.scale
        count = passes_for(scale, *size, wish)
        return [(size[0] * scale**step, size[1] * scale**step) for step in range(count)]

    def _memory(self, size: Size, wish: Size, passes: list[Size], bytes_per_pixel: int, format: str) -> int:
        """Count the bytes at the height of the work on one frame: in the last pass, or in the writing after it."""
        width, height = passes[-1] if passes else size
        pixels = width * height
        enlarged = pixels * self.upscaler.scale**2 if passes else pixels
        wished = wish[0] * wish[1]
        writing = wished * (0 if format in _STREAMED else _PILLOW_BYTES)
        resampled = 0 if wished == enlarged else wished * bytes_per_pixel
        network = self.upscaler.working_bytes(height, width) if passes else 0
        return (pixels + enlarged) * bytes_per_pixel + max(network, resampled + writing)

    @functools.cached_property
    def _rate(self) -> float:
        """Seconds per pixel that the network sees, overlap included, measured."""
        for side in _CALIBRATION_SIDES:  # the first warms up
            sample = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
            started = time.perf_counter()
            self.upscaler.upscale(sample)
            seconds = time.perf_counter() - started
        return seconds / _seen_pixels(self.upscaler.plan(side, side))

    def _writing_rate(self, format: str) -> float:
        """Measure the seconds per pixel of output."""
        if format not in self._writing_rates:
            small = np.random.default_rng(0).integers(0, 256, (_ENCODED_SIDE // 4, _ENCODED_SIDE // 4, 3), np.uint8)
            photo = images.Photo(inference.interpolate(small, 4, "bicubic"))
            started = time.perf_counter()
            images.write(photo, io.BytesIO(), format=format, quality=self.options.quality)
            self._writing_rates[format] = (time.perf_counter() - started) / _ENCODED_SIDE**2
        return self._writing_rates[format]


def _seen_pixels(plan: tiling.Plan) -> int:
    return len(plan.tiles) * math.prod(plan.window)


def _within_disk(files: list[FileEstimate], batch: Batch) -> list[FileEstimate]:
    """Return the estimates, failed from the first file on for which a disk has no room left."""
    room: dict[int, int] = {}
    checked = []
    for file, task in zip(files, batch.tasks, strict=True):
        if file.status == "planned" and isinstance(task.target, Path):
            folder = checks.existing_folder(task.target)
            device = folder.stat().st_dev
            room.setdefault(device, shutil.disk_usage(folder).free)
            room[device] -= file.disk_bytes
            if room[device] < 0:
                error = OutputError(
                    f"{task.target}: too little disk left, about {format_bytes(-room[device])} are missing"
                )
                file = replace(file, status="failed", error=str(error), exit_code=error.exit_code)
        checked.append(file)
    return checked


def _free(task: Task) -> int | None:
    if not isinstance(task.target, Path):
        return None
    try:
        return shutil.disk_usage(checks.existing_folder(task.target)).free
    except OutputError:  # a file where the folder would be
        return None
