"""Turns the inputs that the user named into a list of tasks, before any work starts."""

from __future__ import annotations

import functools
import glob
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from sr_cli import images
from sr_cli.errors import InputError, OutputError, SrupError, UsageError
from sr_cli.storage import Place, RemotePath, place
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.journal import Journals
from sr_cli.upscale.naming import Namer
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.shards import Shard

PIPE = "-"  #: Standard input or output on the command line.
_real_folder = functools.lru_cache(maxsize=4096)(os.path.realpath)
_HERE = PurePath()


@dataclass(frozen=True)
class Task:
    """One input and where its output goes."""

    source: Place | None  #: The photo; None: standard input.
    target: Place | None  #: The output; None: standard output.
    root: Place | None = None
    """The folder that the output must not leave; None where the user named the output itself."""
    problem: SrupError | None = None  #: Why this cannot be done, found while planning.
    relative: str = PIPE  #: The input's name relative to the folder that the user named; decides its shard.
    alone: bool = False  #: Named by the user, and nothing else with it: then an output of srup is meant.

    @property
    def shown_source(self) -> Place:
        """The input as results name it."""
        return self.source or Path(PIPE)

    @property
    def shown_target(self) -> Place:
        """The output as results name it."""
        return self.target or Path(PIPE)

    def failed(self, error: str, exit_code: int) -> ImageResult:
        """Return the result of a failure."""
        return ImageResult(self.shown_source, self.shown_target, "failed", error=error, exit_code=exit_code)


@dataclass(frozen=True)
class Batch:
    """All tasks of a batch."""

    tasks: tuple[Task, ...]  #: In the order of the command line, folders in the order of their names.
    several: bool  #: Whether the user asked for more than one file: only then is what was done before skipped.
    left_out: tuple[Place, ...] = ()
    """Photos in folders that are outputs of this or an earlier batch, and so no inputs."""


@dataclass(frozen=True)
class _Found:
    """An input file, and how it was named."""

    source: Place | None
    below: PurePath = _HERE  #: Its folder, relative to the folder that the user named.
    listed: bool = False  #: Found in a folder or by a pattern, not named by the user.
    problem: SrupError | None = None

    @property
    def relative(self) -> str:
        """The name below the folder that the user named."""
        return PIPE if self.source is None else (self.below / self.source.name).as_posix()


def plan(inputs: Sequence[str], output: str | None, options: UpscaleOptions, journals: Journals) -> Batch:
    """Plan `srup upscale INPUTS -o OUTPUT`. Raises UsageError for an invalid request or outputs that collide.

    An input is a file, a folder, a pattern (`*`, `?`, `[...]`, `**`), a URL of a file or folder, or `-`. `output` is a
    file, a folder (made when needed), the URL of one, `-`, or None for names next to the inputs.
    """
    _real_folder.cache_clear()
    folder = place(output) if output is not None and output != PIPE else None
    found = [item for name in inputs for item in _find(name, options.recursive, folder)]
    several = len(found) != 1 or found[0].listed
    if several and output is not None:
        _check_output(output, len(found))
    to_folder = folder is not None and (several or _ends_in_separator(output) or _is_folder(folder))
    namer = Namer(options)
    items = [
        (replace(_task(item, folder, output == PIPE, to_folder, namer), relative=item.relative), item.listed)
        for item in found
    ]
    return _settled(items, several, options, journals)


def of_shard(batch: Batch, shard: Shard) -> Batch:
    """Return the part of a batch that belongs to a shard."""
    return replace(batch, tasks=tuple(task for task in batch.tasks if shard.has(task.relative)), several=True)


def _ends_in_separator(output: str | None) -> bool:
    return output is not None and output.endswith(("/", os.sep))


def _is_folder(path: Place) -> bool:
    return os.path.isdir(path) if isinstance(path, Path) else path.is_folder(OutputError)


def _check_output(output: str, count: int) -> None:
    """Raise UsageError unless several outputs can go there."""
    if output == PIPE:
        raise UsageError(f"{count} inputs cannot go to standard output; give a folder with -o")
    path = place(output)
    looks_like_a_file = images.by_suffix(Path(path.name)) is not None and not _ends_in_separator(output)
    exists = isinstance(path, Path) and os.path.lexists(path)
    if (exists and not _is_folder(path)) or (looks_like_a_file and not exists):
        raise UsageError(f"{count} inputs cannot go into one file {path}; give a folder with -o (end it with /)")


def _task(item: _Found, folder: Place | None, to_pipe: bool, to_folder: bool, namer: Namer) -> Task:
    if to_pipe:
        return Task(item.source, None, problem=item.problem)
    if folder is not None and not to_folder:
        return Task(item.source, folder, problem=item.problem)
    if item.source is None and item.problem is None and folder is None:
        raise UsageError("standard input needs an output: -o FILE, or -o - for standard output")
    root: Place = item.source.parent if folder is None and item.source is not None else folder or Path()
    try:
        name = namer(item.source)
    except OutputError as problem:
        return Task(item.source, root, root, item.problem or problem)
    below = item.below if folder is not None else PurePath()
    return Task(item.source, root / below / name, root, item.problem)


def _find(name: str, recursive: bool, output: Place | None) -> Iterator[_Found]:
    path = place(name)
    if name == PIPE:
        yield _Found(None)
    elif not isinstance(path, Path):
        yield from _in_store(path, name.endswith("/"), recursive, output)
    elif os.path.isdir(path):
        yield from _in_folder(path, recursive, output if isinstance(output, Path) else None)
    elif not os.path.lexists(path) and glob.has_magic(name):
        yield from _by_pattern(name)
    else:
        yield _Found(path)


def _in_folder(folder: Path, recursive: bool, output: Path | None) -> Iterator[_Found]:
    """Yield the photos in a folder, without hidden ones; links to folders are followed, but never in circles.

    A folder that cannot be listed is a failure of its own.
    """
    seen: set[tuple[int, int]] = set()
    if output is not None and os.path.isdir(output) and not output.samefile(folder):
        seen.add(_identity(output))  # outputs are no inputs
    count, inner = 0, False
    unreadable: list[OSError] = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable.append):
        here = _identity(Path(root))
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        inner = inner or bool(folders)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(files):
            path = Path(root, name)
            if _is_picture_name(path) and path.is_file():
                count += 1
                yield _Found(path, Path(root).relative_to(folder), listed=True)
    for error in unreadable:
        problem = InputError(f"{error.filename}: cannot list this folder: {error.strerror}")
        yield _Found(Path(error.filename), problem=problem, listed=True)
    if count == 0 and not unreadable:
        hint = "; --recursive looks into the folders inside" if inner and not recursive else ""
        yield _Found(folder, problem=InputError(f"{folder}: no photos in this folder{hint}"), listed=True)


def _in_store(path: RemotePath, named_as_folder: bool, recursive: bool, output: Place | None) -> Iterator[_Found]:
    """Yield the file of that URL, or the photos in the folder of that URL; one that cannot be listed is a failure."""
    if not named_as_folder and path.suffix.lower() in images.READABLE_SUFFIXES:
        yield _Found(path)
        return
    try:
        files = list(path.files(recursive))
    except InputError as problem:
        yield _Found(path, problem=problem, listed=True)
        return
    count = 0
    apart = output.url + "/" if isinstance(output, RemotePath) and output != path else None
    for file in files:
        if _is_picture_name(file) and not (apart and file.url.startswith(apart)):  # outputs are no inputs
            count += 1
            yield _Found(file, file.parent.below(path), listed=True)
    if count == 0:
        hint = "" if recursive else "; --recursive looks into the folders inside"
        yield _Found(path, problem=InputError(f"{path}: no photos in this folder{hint}"), listed=True)


def _by_pattern(pattern: str) -> Iterator[_Found]:
    matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    pictures = [path for path in matches if _is_picture_name(path) and path.is_file()]
    if not pictures:
        yield _Found(Path(pattern), problem=InputError(f"{pattern}: no photo matches this pattern"), listed=True)
    for path in pictures:
        yield _Found(path, listed=True)


def _is_picture_name(path: Place) -> bool:
    return path.suffix.lower() in images.READABLE_SUFFIXES and not path.name.startswith(".")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _settled(items: list[tuple[Task, bool]], several: bool, options: UpscaleOptions, journals: Journals) -> Batch:
    """Return the batch without duplicates and without outputs among its inputs. Raises UsageError for collisions."""
    unique = {_place(task.source) if task.source else PIPE: (task, listed) for task, listed in reversed(items)}
    items = list(reversed(unique.values()))
    tasks, left_out = _without_outputs(items, journals)
    inputs: dict[str, Task] = {}
    for task in tasks:
        if task.source is not None:
            # By its own name and by what that may be a link to: both must stay as they are.
            inputs[_place(task.source)] = task
            if isinstance(task.source, Path):
                inputs[os.path.realpath(task.source)] = task
    targets: dict[str, Task] = {}
    for index, task in enumerate(tasks):
        if task.target is None or task.problem is not None:
            continue
        try:
            images.for_target(Path(task.target.name), options.format)
        except UsageError as problem:
            if not several:
                raise
            tasks[index] = replace(task, problem=problem)
            continue
        key = _place(task.target)
        if key in inputs:
            which = "the input itself" if inputs[key] is task else "also an input"
            raise UsageError(f"the output {task.target} is {which}; choose another name")
        if key in targets:
            raise UsageError(
                f"{targets[key].shown_source} and {task.shown_source} would both become {task.target}; "
                "choose a --name with {name} or {parent}"
            )
        targets[key] = task
    return Batch(tuple(tasks), several, tuple(left_out))


def _without_outputs(items: list[tuple[Task, bool]], journals: Journals) -> tuple[list[Task], list[Place]]:
    """Return the tasks to do, and the photos that are outputs themselves.

    One that is named alone is meant; among several the shell may have named it (`srup upscale *.jpg`), so there
    its own mark counts, too. Those found in folders are targets of this batch, or in the journal of an earlier one,
    or marked by themselves: then no journal, name or folder is needed (`images.is_output`). The mark of an object in a
    store is looked at when it is read (`checks.is_marked_object`).
    """
    targets = {_place(task.target) for task, _ in items if task.target and not task.problem}
    tasks: list[Task] = []
    left_out: list[Place] = []
    for task, listed in items:
        source = None if task.problem else task.source
        if source is None or (len(items) == 1 and not listed):
            tasks.append(replace(task, alone=True))
        elif _is_output(task, source, targets, journals) if listed else _is_marked(source):
            left_out.append(source)
        else:
            tasks.append(task)
    return tasks, left_out


def _is_output(task: Task, source: Place, targets: set[str], journals: Journals) -> bool:
    known = journals.made(source)
    if _onto_itself(task):  # which is named as done before, where the journal knows it
        return not known and _is_marked(source)
    return known or _place(source) in targets or _is_marked(source)


def _is_marked(source: Place) -> bool:
    return isinstance(source, Path) and images.is_output(source)


def _onto_itself(task: Task) -> bool:
    return task.target is not None and task.source is not None and _place(task.target) == _place(task.source)


def _place(path: Place) -> str:
    """Return a key that is the same for all spellings of one place, as far as the system sees them as one."""
    if not isinstance(path, Path):
        return path.url
    # The folder is resolved, the file is not: an output replaces a link and never writes through it.
    place = os.path.join(_real_folder(str(path.parent)), path.name)
    if sys.platform == "darwin":
        return unicodedata.normalize("NFC", place).casefold()
    return os.path.normcase(place)
