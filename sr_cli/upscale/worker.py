"""A worker: reads photos ahead, enlarges them one by one, and writes results meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from sr_cli import __version__, images, inference, storage
from sr_cli.errors import INTERNAL_ERROR, InputError, OutOfMemory, OutputError, SrupError, reason_of
from sr_cli.inference import memory
from sr_cli.storage import Prefetch, RemotePath
from sr_cli.upscale.checks import (
    MARKED,
    History,
    check_source,
    check_target,
    checked_size,
    exists,
    is_marked_object,
    output_format,
)
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
    return inference.Upscaler(
        options.model,
        device=options.device,
        precision=options.precision,
        backend=options.backend,
        tile=options.tile,
        overlap=options.overlap,
        threads=options.threads,
        pixels=pixels,
        fidelity=options.fidelity,
        ensemble=options.ensemble,
        offline=options.offline,
    )


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
    """A task that has been looked at: a photo to enlarge, or an outcome already."""

    index: int
    task: Task
    sequence: images.PhotoSequence | None = None  #: What was read; None if there is an outcome.
    sizes: tuple[tuple[int, int], ...] = ()  #: Width and height of each result.
    content: str | None = None  #: Checksum of the input, for the journal.
    outcome: ImageResult | None = None
    seconds: float = 0.0  #: Time spent so far.


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
            if not self.several:
                with WriterPool(1, limit) as writers:
                    for job in self._jobs(tasks):
                        self._process(job, writers)
            else:
                with Prefetch(self._jobs(tasks), READ_AHEAD) as jobs, WriterPool(WRITERS, limit) as writers:
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

    def _jobs(self, tasks: Iterable[tuple[int, Task]]) -> Iterator[_Job]:
        for index, task in tasks:
            if self.history.may_be_done(task):
                self.upscaler()  # out here, where its failure ends the whole run
            started = time.monotonic()
            try:
                job = self._opened(index, task)
            except Exception as error:
                job = _Job(index, task, outcome=self._failure(task, error))
            yield replace(job, seconds=time.monotonic() - started)

    def _opened(self, index: int, task: Task) -> _Job:
        """Claim a task and read its photos, or say why there is nothing to do. Raises SrupError."""
        check_source(task)
        if self.claims and isinstance(task.target, Path) and not self.claims.take(task.target):
            return _skip(index, task, "another srup is working on it")
        content = None if self.options.skip_existing and _exists(task) else self.history.content(task)
        if reason := self.history.reason_to_skip(task, content):
            return _skip(index, task, reason)
        try:
            check_target(task, self.options)
        except OutputError as error:
            # By a worker that died before it could say so, perhaps.
            if reason := self.history.done_meanwhile(task, content):
                return _skip(index, task, reason)
            raise self.history.explained(task, error) from None
        limits = self.options.limits
        source: Path | BinaryIO | None
        if isinstance(task.source, RemotePath):
            source = task.source.read(limits.max_input_bytes)
            if is_marked_object(task, source):
                return _skip(index, task, MARKED)
        else:
            source = task.source
        # One that the user named: outputs found in a folder were skipped.
        if isinstance(task.source, Path) and images.is_output(task.source):
            self.listener.message("note", f"{task.source} is an output of srup already; it is enlarged again")
        sequence = images.read_all(source or self._stdin(), limits=limits)
        images.check_several(output_format(task, self.options), sequence.kind, len(sequence.frames))
        sizes = tuple(checked_size(photo.width, photo.height, task, self.options) for photo in sequence.frames)
        return _Job(index, task, sequence, sizes, content)

    def _stdin(self) -> BinaryIO:
        if self.streams.stdin is None:
            raise InputError("there is no standard input to read")
        return self.streams.stdin

    # The network.

    def _process(self, job: _Job, writers: WriterPool) -> None:
        """Enlarge a job's photos and hand them to a writer; one that can follow row by row begins at once."""
        self.listener.started(job.index)
        if job.sequence is None:
            assert job.outcome is not None
            self._finish(job, job.outcome)
            return
        if not self.several:
            # Of a batch they are not counted: the choice must stay when the batch is resumed or has grown.
            self._pixels = _pixels_to_come(job)
        self.upscaler()  # out here, where its failure ends the whole run
        counts = Counts()
        if len(job.sizes) > 1:  # one after the other into the file: memory holds one frame
            self._write(job, counts, self._enlarged(job, job.sequence, counts))
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

        follows = output_format(job.task, self.options).name == "PNG"
        started = time.monotonic()
        try:
            photo = next(self._enlarged(job, job.sequence, counts, begin if follows else None))
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

    def _enlarged(
        self, job: _Job, sequence: images.PhotoSequence, counts: Counts, begin: Begin | None = None
    ) -> Iterator[images.Photo]:
        upscaler = self.upscaler()
        for index, (photo, size) in enumerate(zip(sequence.frames, job.sizes, strict=True)):
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
            assert job.sequence is not None
            outcome = ImageResult(
                job.task.shown_source,
                job.task.shown_target,
                "done",
                *job.sizes[0],
                tiles=counts.tiles,
                redone=counts.redone,
                seconds=job.seconds + time.monotonic() - started,
                computation=_computation(self.upscaler()),
                losses=self._losses(job.task, job.sequence),
            )
        self._finish(job, outcome)

    def _losses(self, task: Task, sequence: images.PhotoSequence) -> tuple[str, ...]:
        return tuple(images.losses_of_all(sequence, output_format(task, self.options), strip=self.options.strip))

    def _put(self, job: _Job, frames: Iterable[images.Photo], wait_for_rows: Callable[[int], None] | None) -> None:
        """Write enlarged photos to their place. Raises SrupError."""
        assert job.sequence is not None
        task, options = job.task, self.options
        if task.target is None:
            self._put_on_stdout(job.sequence, frames, wait_for_rows)
            return
        if isinstance(task.target, RemotePath):
            with TemporaryDirectory(prefix="srup-") as folder:
                finished = Path(folder) / f"finished{Path(task.target.name).suffix}"
                self._write_file(job, finished, frames, wait_for_rows)
                if not options.overwrite and exists(task.target):  # it appeared meanwhile
                    raise OutputError(f"{task.target}: already exists; choose another name or pass --overwrite")
                self._record(job, finished)
                task.target.upload(finished)
            return
        _make_folder(task.target.parent)
        if isinstance(task.root, Path):
            check_inside(task.target, task.root)
        self._tidy(task.target.parent)
        self._write_file(job, task.target, frames, wait_for_rows, lambda finished: self._record(job, finished))

    def _write_file(
        self,
        job: _Job,
        file: Path,
        frames: Iterable[images.Photo],
        wait_for_rows: Callable[[int], None] | None,
        placing: Callable[[Path], None] | None = None,
    ) -> None:
        assert job.sequence is not None
        options = self.options
        images.write_all(
            job.sequence,
            file,
            images.WriteOptions(options.format, options.quality, options.overwrite, options.strip),
            frames=frames,
            placing=placing,
            wait_for_rows=wait_for_rows,
        )

    def _tidy(self, folder: Path) -> None:
        """Remove, once per folder, what killed processes left unfinished."""
        with self._lock:
            first = folder not in self._tidied
            self._tidied.add(folder)
        if first:
            storage.remove_leftovers(folder)

    def _put_on_stdout(
        self,
        sequence: images.PhotoSequence,
        frames: Iterable[images.Photo],
        wait_for_rows: Callable[[int], None] | None,
    ) -> None:
        if self.streams.stdout is None:
            raise OutputError("there is no standard output to write to")
        wish = self.options
        try:
            images.write_all(
                sequence,
                self.streams.stdout,
                images.WriteOptions(wish.format, wish.quality, strip=wish.strip),
                frames=frames,
                wait_for_rows=wait_for_rows,
            )
            self.streams.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {reason_of(error)}") from error

    def _record(self, job: _Job, finished: Path) -> None:
        if job.task.target is None:
            return
        try:
            self.history.record(job.task.target, job.content, finished)
        except OSError as error:
            self.listener.message("detail", f"{job.task.target} is not in the journal: {reason_of(error)}")

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

    def _finish(self, job: _Job, outcome: ImageResult) -> None:
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
    assert job.sequence is not None
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


def _exists(task: Task) -> bool:
    return task.target is not None and exists(task.target)


def _skip(index: int, task: Task, reason: str) -> _Job:
    return _Job(index, task, outcome=ImageResult(task.shown_source, task.shown_target, "skipped", note=reason))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made: {reason_of(error)}") from error
