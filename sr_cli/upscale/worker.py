"""A worker: reads photos ahead, enlarges them one by one, and writes results meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from sr_cli import __version__, images, inference, storage
from sr_cli.errors import INTERNAL_ERROR, InputError, OutOfMemory, OutputError, SrupError, reason_of
from sr_cli.inference import memory
from sr_cli.storage import Place, Prefetch, RemotePath
from sr_cli.upscale import checks
from sr_cli.upscale.checks import History, check_source
from sr_cli.upscale.enlarge import Begin, Counts, enlarge
from sr_cli.upscale.events import Computation, ImageResult
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.naming import check_inside
from sr_cli.upscale.news import Listener, Sender
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.pipeline import Abandoned, RowGate, WriterPool

READ_AHEAD = 3  #: Photos that are read before their turn.
WRITERS = min(4, os.cpu_count() or 1)  #: Threads that encode and write.
_WAITING_BYTES = 2**30  #: Enlarged photos that may wait for a writer, at most; a larger one waits alone.


def make_upscaler(options: UpscaleOptions, pixels: int | None = None) -> inference.Upscaler:
    """Load the model as the options ask for it; `pixels` of the input are to come, if that is known."""
    names = ("device", "precision", "backend", "tile", "overlap", "threads", "fidelity", "ensemble", "offline")
    wishes: dict[str, Any] = {name: getattr(options, name) for name in names}
    return inference.Upscaler(options.model, pixels=pixels, **wishes)


def for_device(options: UpscaleOptions, device: inference.WorkerDevice) -> UpscaleOptions:
    """Return the options of one of several processes.

    Interpolation has no use for a number of threads, nor for torch, which would have to be asked.
    """
    threads = options.threads
    if threads is None and options.model not in inference.INTERPOLATIONS:
        threads = device.threads()
    return replace(options, devices=None, device=device.device, threads=threads)


def describe(upscaler: inference.Upscaler, listener: Listener) -> None:
    """Report the choices of the model, with their reasons."""
    if upscaler.blend is not None:
        listener.message("note", str(upscaler.blend))
    listener.message("detail", f"{upscaler.name} on {upscaler.setup.label}")
    for reason in upscaler.setup.reasons:
        listener.message("detail", reason)


@dataclass(frozen=True)
class _Job:
    """A task whose photos are read."""

    index: int
    task: Task
    sequence: images.PhotoSequence  #: What was read.
    sizes: tuple[tuple[int, int], ...]  #: Width and height of each result.
    content: str | None  #: Checksum of the input, for the journal.
    seconds: float  #: Time spent so far.


@dataclass(frozen=True)
class _Settled:
    """A task that needs no work."""

    index: int
    task: Task
    outcome: ImageResult


@dataclass(frozen=True)
class Streams:
    """What `-` stands for; None where there is none."""

    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None


class Worker:
    """Enlarges photos with one model, several at a time in its threads."""

    listener: Listener

    def __init__(
        self,
        options: UpscaleOptions,
        journals: Journals,
        several: bool,
        streams: Streams | None = None,
        upscaler: inference.Upscaler | None = None,
    ) -> None:
        """`several`: it is a batch, in which what was done before is skipped. `upscaler`: one that is loaded."""
        self.options, self.several = options, several
        self.history = History(several, options, journals, self.upscaler)
        self.streams = streams or Streams()
        self.claims: storage.Claims | None = None
        self._upscaler = upscaler
        self._pixels: int | None = None
        self._loading = threading.Lock()
        self._tidied: set[Path] = set()
        self._lock = threading.Lock()

    def work(self, tasks: Iterable[tuple[int, Task]], listener: Listener) -> None:
        """Do tasks, each with its position in the batch, as they come. Raises what is not about one photo."""
        self.listener = listener
        self.claims = storage.Claims() if self.several else None
        try:
            limit = min(_WAITING_BYTES, memory.free_bytes() // 4)
            coming = self._jobs(tasks)
            reading = Prefetch(coming, READ_AHEAD) if self.several else contextlib.nullcontext(coming)
            with reading as jobs, WriterPool(WRITERS if self.several else 1, limit) as writers:
                for job in jobs:
                    self._process(job, writers)
        finally:
            if self.claims is not None:
                self.claims.close()

    def upscaler(self) -> inference.Upscaler:
        """Return the model, built when first needed: cheap refusals come before it is loaded."""
        with self._loading:
            if self._upscaler is None:
                self._upscaler = make_upscaler(self.options, self._pixels)
                describe(self._upscaler, self.listener)
            return self._upscaler

    # Reading, ahead of the network.

    def _jobs(self, tasks: Iterable[tuple[int, Task]]) -> Iterator[_Job | _Settled]:
        for index, task in tasks:
            if self.history.may_be_done(task):
                self.upscaler()  # out here, where its failure ends the whole run
            yield self._job(index, task)

    def _job(self, index: int, task: Task) -> _Job | _Settled:
        """Open a task. Out of the generator, which would keep the pixels and the exception while it waits."""
        try:
            return self._opened(index, task)
        except Exception as error:
            return _Settled(index, task, self._failure(task, error))

    def _opened(self, index: int, task: Task) -> _Job | _Settled:
        """Claim a task and read its photos, or say why there is nothing to do. Raises SrupError."""
        started = time.monotonic()
        check_source(task)
        if self.claims and isinstance(task.target, Path) and not self.claims.take(task.target):
            return _skip(index, task, "another srup is working on it")
        wanted = self.options.skip_existing and task.target is not None and checks.exists(task.target)
        content = None if wanted else self.history.content(task)
        if reason := self.history.reason_to_skip(task, content):
            return _skip(index, task, reason)
        try:
            checks.check_target(task, self.options)
        except OutputError as error:
            # By a worker that died before it could say so, perhaps.
            if reason := self.history.done_meanwhile(task, content):
                return _skip(index, task, reason)
            raise self.history.explained(task, error) from None
        limits = self.options.limits
        source = storage.readable(task.source, limits.max_input_bytes) if task.source else self._stdin()
        if checks.is_marked_object(task, source):
            return _skip(index, task, checks.MARKED)
        # One that the user named: outputs found in a folder were skipped.
        if isinstance(task.source, Path) and images.is_output(task.source):
            self.listener.message("note", f"{task.source} is an output of srup already; it is enlarged again")
        sequence = images.read_all(source, limits=limits)
        images.check_several(checks.output_format(task, self.options), sequence.kind, len(sequence.frames))
        sizes = tuple(checks.checked_size(photo.width, photo.height, task, self.options) for photo in sequence.frames)
        return _Job(index, task, sequence, sizes, content, time.monotonic() - started)

    def _stdin(self) -> BinaryIO:
        if self.streams.stdin is None:
            raise InputError("there is no standard input to read")
        return self.streams.stdin

    # The network.

    def _process(self, job: _Job | _Settled, writers: WriterPool) -> None:
        """Enlarge a job's photos and hand them to a writer; one that can follow row by row begins at once."""
        self.listener.started(job.index)
        if isinstance(job, _Settled):
            self._finish(job, job.outcome)
            return
        if not self.several:
            # Of a batch they are not counted: the choice must stay when the batch is resumed or has grown.
            self._pixels = _pixels_to_come(job)
        self.upscaler()  # out here, where its failure ends the whole run
        counts = Counts()
        if len(job.sizes) > 1:  # one after the other into the file: memory holds one frame
            self._write(job, counts, self._enlarged(job, counts))
            return
        pixels = job.sequence.frames[0].pixels
        amount = job.sizes[0][0] * job.sizes[0][1] * pixels.itemsize * (pixels.shape[2] + 1)
        writers.reserve(amount)
        gate: RowGate | None = None

        def begin(photo: images.Photo) -> Callable[[int], None]:
            nonlocal gate
            gate = following = RowGate()
            writers.submit(lambda: self._write(job, counts, [photo], following), amount)
            return gate.advance

        follows = checks.output_format(job.task, self.options).name == "PNG"
        started = time.monotonic()
        try:
            photo = next(self._enlarged(job, counts, begin if follows else None))
        except Abandoned:
            return  # the writer has reported why
        except BaseException as error:
            writers.release(amount) if gate is None else gate.abandon()
            if not isinstance(error, Exception):
                raise
            self._finish(job, self._failure(job.task, error))
            return
        if gate is None:
            enlarged = replace(job, seconds=job.seconds + time.monotonic() - started)
            writers.submit(lambda: self._write(enlarged, counts, [photo]), amount)

    def _enlarged(self, job: _Job, counts: Counts, begin: Begin | None = None) -> Iterator[images.Photo]:
        upscaler = self.upscaler()
        for index, (photo, size) in enumerate(zip(job.sequence.frames, job.sizes, strict=True)):
            before = counts.tiles

            def progress(done: int, total: int, index: int = index, before: int = before) -> None:
                # Frames that are to come count like this one.
                coming = (total - before) * (len(job.sizes) - index - 1)
                self.listener.progress(job.index, done, total + coming)

            yield enlarge(upscaler, photo, size, counts, progress, begin)

    # Writing, while the network works on the next photo.

    def _write(self, job: _Job, counts: Counts, frames: Iterable[images.Photo], gate: RowGate | None = None) -> None:
        """Write a job's photos and report what became of it; with a gate, while they are being computed."""
        started = time.monotonic()
        try:
            self._put(job, frames, None if gate is None else gate.wait_for)
        except Abandoned:
            return  # the network's failure is reported where it happened
        except Exception as error:
            if gate is not None:
                gate.abandon()
            outcome = self._failure(job.task, error)
        else:
            output = checks.output_format(job.task, self.options)
            outcome = ImageResult(
                job.task.shown_source,
                job.task.shown_target,
                "done",
                *job.sizes[0],
                tiles=counts.tiles,
                redone=counts.redone,
                seconds=job.seconds + time.monotonic() - started,
                computation=_computation(self.upscaler()),
                losses=tuple(images.losses_of_all(job.sequence, output, strip=self.options.strip)),
            )
        self._finish(job, outcome)

    def _put(self, job: _Job, frames: Iterable[images.Photo], wait_for_rows: Callable[[int], None] | None) -> None:
        """Write enlarged photos to their place. Raises SrupError."""
        target, wish = job.task.target, self.options
        options = images.WriteOptions(wish.format, wish.quality, wish.overwrite, wish.strip)
        write = partial(images.write_all, job.sequence, options=options, frames=frames, wait_for_rows=wait_for_rows)
        if target is None:
            self._put_on_stdout(write)
        elif isinstance(target, RemotePath):
            with TemporaryDirectory(prefix="srup-") as folder:
                finished = Path(folder) / f"finished{Path(target.name).suffix}"
                write(finished)
                if not wish.overwrite and checks.exists(target):  # it appeared meanwhile
                    raise OutputError(f"{target}: already exists; choose another name or pass --overwrite")
                self._record(target, job.content, finished)
                target.upload(finished)
        else:
            _make_folder(target.parent)
            if isinstance(job.task.root, Path):
                check_inside(target, job.task.root)
            self._tidy(target.parent)
            write(target, placing=lambda finished: self._record(target, job.content, finished))

    def _tidy(self, folder: Path) -> None:
        """Remove, once per folder, what killed processes left unfinished."""
        with self._lock:
            first = folder not in self._tidied
            self._tidied.add(folder)
        if first:
            storage.remove_leftovers(folder)

    def _put_on_stdout(self, write: Callable[[BinaryIO], None]) -> None:
        if self.streams.stdout is None:
            raise OutputError("there is no standard output to write to")
        try:
            write(self.streams.stdout)
            self.streams.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {reason_of(error)}") from error

    def _record(self, target: Place, content: str | None, finished: Path) -> None:
        try:
            self.history.record(target, content, finished)
        except OSError as error:
            self.listener.message("detail", f"{target} is not in the journal: {reason_of(error)}")

    # Telling.

    def _failure(self, task: Task, error: Exception) -> ImageResult:
        """Return what an exception means for its input. Raises what is not about one input."""
        if isinstance(error, MemoryError):
            error = OutOfMemory(f"{task.shown_source}: does not fit into memory")
        if isinstance(error, SrupError):
            return task.failed(str(error), error.exit_code)
        if isinstance(error, BrokenPipeError) or not self.several:
            raise error
        # A defect of ours must not cost a batch the thousands of files that it does not concern.
        message = f"{task.shown_source}: internal error: {type(error).__name__}: {error}; please report it"
        return task.failed(message, INTERNAL_ERROR)

    def _finish(self, job: _Job | _Settled, outcome: ImageResult) -> None:
        if self.claims and isinstance(job.task.target, Path):
            self.claims.release(job.task.target)
        # Network and writer may run out of memory at once: the listener takes the first reason.
        self.listener.finished(job.index, outcome)


def serve(options: UpscaleOptions, journals: Journals, tasks: Iterable[tuple[int, Task]], sender: Sender) -> None:
    """Be a worker of a `Team`: load the model, say so, and do tasks as they come. Raises what ends the whole job."""
    upscaler = make_upscaler(options)
    describe(upscaler, sender)
    sender.ready()
    Worker(options, journals, several=True, upscaler=upscaler).work(tasks, sender)


def _pixels_to_come(job: _Job) -> int:
    """Count the input pixels of a job, at least; the last pass of a x4 model sees a sixteenth of its output."""
    seen = sum(photo.width * photo.height for photo in job.sequence.frames)
    return max(seen, sum(width * height for width, height in job.sizes) // 16)


def _computation(upscaler: inference.Upscaler) -> Computation:
    setup = upscaler.setup
    return Computation(
        model=upscaler.name,
        stage=upscaler.stage,
        weights_sha256=upscaler.weights_sha256,
        fidelity=upscaler.fidelity,
        ensemble=upscaler.ensemble,
        device=setup.device,
        precision=setup.precision,
        backend=setup.backend,
        tile=setup.tile,
        version=__version__,
    )


def _skip(index: int, task: Task, reason: str) -> _Settled:
    return _Settled(index, task, ImageResult(task.shown_source, task.shown_target, "skipped", note=reason))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made: {reason_of(error)}") from error
