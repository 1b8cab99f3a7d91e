"""The user's own models: a manifest in the data folder, and a folder with the files that were added."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sr_cli import hub, storage
from sr_cli.errors import OutputError, UsageError, WeightsError, reason_of
from sr_cli.hub import OnBytes
from sr_cli.options import AddOptions
from sr_cli.weights import manifest, provenance
from sr_cli.weights.loading import load, read_file
from sr_cli.weights.manifest import HubFile, ModelEntry, Stage

if TYPE_CHECKING:
    from sr_cli.models import Generator

CARD = "srup.json"  #: Manifest of the models in a repository that `publish` made.

_DEFAULTS = AddOptions()
_HUB_SPEC = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?/(?P<file>.+)")


@dataclass(frozen=True)
class Verification:
    """The result of checking one file."""

    name: str  #: Model.
    stage: str  #: Stage.
    status: str  #: `ok`, `damaged`, `missing` (a local file that should be there) or `not downloaded`.
    path: Path | None  #: The file, None if it is not on this machine.
    error: str | None = None  #: What is wrong, in a line.


def add(source: str, name: str, options: AddOptions = _DEFAULTS, *, progress: OnBytes | None = None) -> ModelEntry:
    """Register weights under a name of the user's: `hf:USER/REPO[@REVISION]/FILE`, a run folder, or a file.

    Files on the Hub are pinned to the commit that the revision stands for now (default `main`) and stay in
    the Hub's cache; others are copied. A model that exists gains stages. The bare name stands for the stage photo,
    pixel or gan, whichever is first.

    Raises UsageError for a name or stage that cannot be used, WeightsError for weights that are not available
    or do not belong to the model, OutputError where nothing can be written.
    """
    _check_name(name)
    if options.stage is not None and options.stage not in manifest.STAGES:
        raise UsageError(f"--stage must be one of {', '.join(manifest.STAGES)}, not {options.stage!r}")
    sources = list(_sources(source, name, options, progress))  # outside of the lock: it may download
    with _changing() as own:
        entry = own.get(name)
        contents: dict[str, bytes] = {}
        for config, scale, new, data in sources:
            if entry is None:
                summary, folder = options.summary or f"added from {source}", manifest.user_folder()
                entry = ModelEntry(
                    name=name, summary=summary, config=config, scale=scale, stages={}, folder=folder, origin="user"
                )
            if entry.config != config:
                raise WeightsError(f"{source} is {config}, but {name} is {entry.config}; choose another name")
            if new.name in entry.stages and not options.overwrite:
                raise UsageError(f"{name}:{new.name} exists; choose another name, or pass --overwrite")
            entry = manifest.with_stage(entry, new)
            if new.file is not None:
                contents[new.file] = data
        assert entry is not None
        default = next(choice for choice in manifest.DEFAULT_ORDER if choice in entry.stages)
        entry = replace(entry, summary=options.summary or entry.summary, default_stage=default)
        own[name] = entry
        for file, data in contents.items():
            storage.write_file(entry.folder / file, data)
        storage.write_file(manifest.user_path(), manifest.dump(own).encode())
    return entry


@contextmanager
def _changing() -> Iterator[dict[str, ModelEntry]]:
    """Give the user's own models, while no other process may change them. Raises OutputError."""
    try:
        with storage.locked(manifest.user_path().with_suffix(".lock")):
            yield dict(user_models())
    except OSError as error:
        raise OutputError(f"cannot write {manifest.user_path()}: {reason_of(error)}") from None


def remove(name: str) -> list[Path]:
    """Remove a model of the user's and delete its files; of a built-in one, only what was downloaded.

    Gives the deleted files. Raises WeightsError for an unknown name, UsageError where there is nothing to delete.
    """
    with _changing() as own:
        mine = name in own
        entry = own.pop(name) if mine else manifest.read_manifest().model(name)
        paths = [path for stage in entry.stages.values() if mine and (path := entry.path(stage)) and path.exists()]
        downloaded = [path for stage in entry.stages.values() if (path := cached(stage))]
        if not mine and not downloaded:
            raise UsageError(f"{name} is built in and nothing of it was downloaded: there is nothing to remove")
        if mine:
            storage.write_file(manifest.user_path(), manifest.dump(own).encode())
        for path in paths:
            path.unlink()
        for path in downloaded:
            hub.discard(path)
    return paths + downloaded


def verify(names: list[str]) -> Iterator[Verification]:
    """Check the files of models (all where none is named): present, checksum, and fitting their network.

    Nothing is downloaded. Raises WeightsError for an unknown name or a broken manifest.
    """
    models = manifest.read_manifest()
    entries = [models.model(name) for name in names] or list(models.models.values())
    for entry in entries:
        for stage in entry.stages.values():
            yield _verify(entry, stage)


def present(entry: ModelEntry, stage: Stage) -> Path | None:
    """Return where a stage's file is on this machine, or None."""
    local = entry.path(stage)
    return local if local is not None and local.exists() else cached(stage)


def cached(stage: Stage) -> Path | None:
    """Return where a stage's file is in the Hub's cache, or None."""
    return None if stage.hub is None else hub.cached(stage.hub.source)


def user_models() -> Mapping[str, ModelEntry]:
    """Read the user's own models. Raises WeightsError if their manifest is broken."""
    path = manifest.user_path()
    return manifest.read_file(path, manifest.user_folder(), "user").models if os.path.exists(path) else {}


def describe(generator: Generator) -> dict[str, Any]:
    """Measure a network: its size, and its multiplications and receptive radius per LR pixel where they are known."""
    from sr_cli import models

    known = generator.config.family != models.FOREIGN
    return {
        "family": generator.config.family,
        "config": generator.config.to_dict(),
        "scale": generator.scale,
        "parameters": models.count_parameters(generator),
        "multiplications": models.count_multiplications(generator) if known else None,
        "receptive_radius": generator.receptive_radius if known else None,
    }


def _check_name(name: str) -> None:
    if not manifest.NAME.fullmatch(name):
        raise UsageError(f"a name is lower-case letters, digits, '.', '_' and '-', not {name!r}")
    built_in = manifest.read_file(manifest.builtin_path(), manifest.PACKAGE / "bundled").models
    if name in built_in:
        raise UsageError(f"{name} is a built-in model; choose another name")


_Source = tuple[dict[str, Any], int, Stage, bytes]


def _sources(source: str, name: str, options: AddOptions, progress: OnBytes | None) -> Iterator[_Source]:
    """Yield the configuration, scale, stage and content of all weights that `source` stands for."""
    stage, licence = options.stage, options.licence
    if source.startswith("hf:"):
        yield _from_hub(source, stage, licence, progress)
        return
    path = Path(source)
    files: dict[str | None, Path] = {stage: path}
    if path.is_dir():
        files = dict([provenance.best_file(path, stage)] if stage else provenance.best_files(path).items())
    for known, file in files.items():
        loaded, data = read_file(file)
        kind = known or provenance.stage_of(loaded.metadata) or "pixel"
        new = Stage(
            name=kind,
            file=f"{name}-{kind}.safetensors",
            sha256=loaded.sha256,
            size=len(data),
            parent_sha256=loaded.parent_sha256,
            licence=licence or "unknown",
            training=provenance.training_of(loaded.metadata, kind),
            teacher=provenance.teacher_of(loaded.metadata),
            scores={},
        )
        yield loaded.generator.config.to_dict(), loaded.scale, new, data


def _from_hub(source: str, stage: str | None, licence: str | None, progress: OnBytes | None) -> _Source:
    match = _HUB_SPEC.fullmatch(source)
    if match is None:
        raise UsageError(f"{source!r} is not of the form hf:USER/REPO[@REVISION]/FILE")
    if not manifest.is_inside(match["file"]) or not manifest.is_inside(match["repo"]):
        raise UsageError(f"{source!r}: the file must be a path inside the repository, without '..'")
    if not match["file"].endswith(".safetensors"):
        raise UsageError(f"{source}: only .safetensors files can be added; `srup models convert` makes one of a .pth")
    remote = hub.resolve(hub.Source(match["repo"], match["revision"] or "main", match["file"]))
    place = HubFile(match["repo"], remote.commit, match["file"])
    path = hub.download(place.source, sha256=remote.sha256, progress=progress)
    loaded = load(path)
    known = _published(place, loaded.sha256) or Stage(
        name=loaded.stage or "pixel", sha256=loaded.sha256, size=path.stat().st_size, licence="unknown", scores={}
    )
    new = replace(
        known,
        name=stage or known.name,
        file=None,
        hub=place,
        licence=licence or known.licence,
        licence_source=f"https://huggingface.co/{match['repo']}",
    )
    return loaded.generator.config.to_dict(), loaded.scale, new, b""


def _published(place: HubFile, sha256: str) -> Stage | None:
    """Read what a repository's own manifest says of a file; None where it has none, or one we cannot read."""
    try:
        path = hub.download(replace(place, file=CARD).source)
        found = manifest.read_file(path, path.parent).by_sha256(sha256)
    except WeightsError:
        return None
    return found[1] if found else None


def _verify(entry: ModelEntry, stage: Stage) -> Verification:
    result = partial(Verification, entry.name, stage.name)
    path = present(entry, stage)
    if path is None:
        if stage.hub is not None:
            return result("not downloaded", None)
        return result("missing", entry.path(stage), f"no file {entry.path(stage)}")
    try:
        if storage.sha256_of_file(path) != stage.sha256:
            raise WeightsError(f"{path}: its sha256 is not the one in the manifest")
        load(f"{entry.name}:{stage.name}", offline=True)
    except OSError as error:
        return result("damaged", path, f"cannot read {path}: {error.strerror}")
    except WeightsError as error:
        return result("damaged", path, str(error))
    return result("ok", path)
