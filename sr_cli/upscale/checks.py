"""Checks of a task before its photo is decoded, the same for the batch and the dry run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sr_cli import images, inference
from sr_cli.errors import InputError, OutputError, reason_of
from sr_cli.storage import Place, RemotePath, check_name, sha256_of_file
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.journal import Journals, key_of
from sr_cli.upscale.naming import check_inside
from sr_cli.upscale.options import UpscaleOptions

MARKED = "it is an output of srup; to enlarge it again, name it alone"  #: Why an object is skipped.


def check_source(task: Task) -> None:
    """Raise the problem found while planning, or InputError for a missing file."""
    if task.problem is not None:
        raise task.problem
    if isinstance(task.source, RemotePath):
        if task.source.listed is None and task.source.info() is None:
            raise InputError(f"{task.source} does not exist; check the name")
    elif task.source is not None and not os.path.exists(task.source):
        broken = os.path.islink(task.source)
        raise InputError(f"{task.source} {'is a link to nothing' if broken else 'does not exist'}; check the name")


def check_target(task: Task, options: UpscaleOptions) -> None:
    """Raise OutputError if the output certainly cannot be written."""
    target = task.target
    if target is None:
        return
    if isinstance(target, RemotePath):
        target.check_bucket()
    if exists(target) and not options.overwrite:
        raise OutputError(f"{target}: already exists; use --overwrite to replace it or --skip-existing to keep it")
    if isinstance(target, RemotePath):
        return
    check_name(target)
    if os.path.isdir(target):
        raise OutputError(f"{target}: is a folder, not a file to write")
    if isinstance(task.root, Path):
        check_inside(target, task.root)
    folder = existing_folder(target)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: cannot be written: no permission in {folder}, or it is read-only")
    # An enlargement is practically never smaller than what it was made from.
    if isinstance(task.source, Path) and shutil.disk_usage(folder).free < task.source.stat().st_size:
        raise OutputError(f"{target}: cannot be written: the disk is full")


def is_marked_object(task: Task, content: Path | BinaryIO) -> bool:
    """Return whether a task's source is an unnamed object of a store that srup made; files were skipped before."""
    if task.alone or not isinstance(task.source, RemotePath) or isinstance(content, Path):
        return False
    marked = images.is_output(content)
    content.seek(0)
    return marked


def exists(target: Place) -> bool:
    """Return whether the name is taken, also by a broken link. Raises OutputError for a store's."""
    return os.path.lexists(target) if isinstance(target, Path) else target.info(OutputError) is not None


def existing_folder(target: Path) -> Path:
    """Return the folder of an output, or the closest one above that is there. Raises OutputError for a file or none."""
    folder = target.parent
    while not os.path.isdir(folder):
        if folder == folder.parent:  # a drive
            raise OutputError(f"{target}: {folder} does not exist")
        if not os.path.lexists(folder):
            folder = folder.parent
        elif not os.path.isdir(folder):  # asked again: a writer may have made it between the two questions
            raise OutputError(f"{target}: {folder} is not a folder")
    return folder


def output_format(task: Task, options: UpscaleOptions) -> images.OutputFormat:
    """Return the format that the output will have. Raises UsageError."""
    if task.target is None:
        return images.by_name(options.format or "png")
    return images.for_target(Path(task.target.name), options.format)


def checked_size(width: int, height: int, task: Task, options: UpscaleOptions) -> tuple[int, int]:
    """Return width and height of the result. Raises UsageError for the format's limits, InputError for ours."""
    width, height = options.size_of(width, height)
    images.check_size(output_format(task, options), width, height)
    if width * height > options.limits.max_output_pixels:
        raise InputError(
            f"{task.shown_source}: would become {width}x{height}, more than "
            f"{options.limits.max_output_pixels:,} pixels; raise the limit with --max-output-pixels"
        )
    return width, height


class History:
    """What earlier runs did for the tasks of a batch."""

    def __init__(
        self, several: bool, options: UpscaleOptions, journals: Journals, upscaler: Callable[[], inference.Upscaler]
    ) -> None:
        """`several`: only in a batch is what was done before skipped."""
        self._several, self._options, self._journals, self._upscaler = several, options, journals, upscaler

    def may_be_done(self, task: Task) -> bool:
        """Return whether the journal knows the output, so that the weights decide whether it is still the right one."""
        options = self._options
        if not self._several or options.overwrite or options.skip_existing or task.target is None:
            return False
        return self._journals.made(task.target, OutputError)

    def reason_to_skip(self, task: Task, content: str | None) -> str | None:
        """Return why there is nothing to do, if so; `content` as from `content`."""
        if task.target is None:
            return None
        if self._options.skip_existing:
            return "it exists" if exists(task.target) else None
        if content and self.may_be_done(task) and self._journals.recognises(task.target, self._key(content)):
            return "it was done before"
        return None

    def done_meanwhile(self, task: Task, content: str | None) -> str | None:
        """Return why there is nothing to do by journals that others have written since they were read first."""
        if not self._several or task.target is None:
            return None
        self._journals.refresh(task.target)
        return self.reason_to_skip(task, content)

    def explained(self, task: Task, error: OutputError) -> OutputError:
        """Return the error of an output that exists, with the reason why it does not count as done."""
        if not self.may_be_done(task):
            return error
        return OutputError(
            f"{task.target}: already exists, made from another photo or with other options, weights or threads; give "
            "the same again, or --overwrite to replace it, or --skip-existing to keep it"
        )

    def content(self, task: Task) -> str | None:
        """Return the input's checksum where there is one and a journal for it, else None. Raises InputError."""
        if task.source is None or task.target is None:
            return None
        if isinstance(task.source, RemotePath):
            info = task.source.listed or task.source.info()
            return f"{info.version} {info.size}" if info and info.version else None  # nothing need be read to know it
        if not os.path.isfile(task.source):
            return None  # a pipe can be read only once
        try:
            return sha256_of_file(task.source)
        except OSError as error:
            raise InputError(f"{task.source}: cannot be read: {reason_of(error)}") from error

    def record(self, target: Place, content: str | None, finished: Path) -> None:
        """Note that `finished` is about to be given the name `target`. Raises OSError."""
        # What was made from a pipe is known as an output as well, though never as done before.
        self._journals.record(target, self._key(content) if content else "", finished)

    def _key(self, content: str) -> str:
        upscaler = self._upscaler()
        return key_of(content, upscaler.weights_sha256 or upscaler.name, upscaler.setup.key, self._options)
