"""Generators from weights: find the file, verify it, load it strictly."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli import hub, storage
from sr_cli.errors import WeightsError
from sr_cli.hub import Progress
from sr_cli.weights.manifest import Manifest, ModelEntry, Stage, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from sr_cli.models import Generator, GeneratorConfig

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx")
INTERPOLATION = ("bicubic", "lanczos")


@dataclass(frozen=True)
class LoadedModel:
    """A generator with its weights, and where they came from."""

    name: str
    """The model's name, or the stem of the file the user gave."""
    stage: str | None
    """`pixel`, `photo` or `gan`; None for a file that no manifest knows."""
    generator: Generator
    """On the CPU, in fp32, in evaluation mode; not folded, except where it is a blend of two."""
    overlap: int | None
    """Low-resolution pixels of overlap at which tiles do not show; None: not measured."""
    sha256: str
    """Checksum of the file."""
    path: Path
    """The file."""
    entry: ModelEntry | None
    """The manifest entry; None for a file that no manifest knows."""


def load(spec: str | Path, *, offline: bool = False, progress: Progress | None = None) -> LoadedModel:
    """The generator that `spec` stands for: a manifest name, `name:stage`, or a path to a `.safetensors` file.

    A name's file is looked for in the package (or the user's own weights), then in the cache, then on
    the Hub; with `offline`, or HF_HUB_OFFLINE set, never on the Hub. The file's sha256 is verified
    before it is parsed. Weights stored in half precision are loaded as fp32.

    Raises WeightsError: unknown name, no weights yet, missing or damaged file, failed verification,
    failed download, tensors that do not fit the network.
    """
    if is_path(spec):
        return _load_path(Path(spec))
    if spec in INTERPOLATION:
        raise WeightsError(f"{spec} is an interpolation and has no weights")
    entry, stage = read_manifest().stage(str(spec))
    path, data = fetch(entry, stage, offline=offline, progress=progress)
    where = f"{entry.name}:{stage.name} ({path})"
    generator = _assemble(_tensors(data, where), where, config_of(entry))
    return LoadedModel(entry.name, stage.name, generator, stage.overlap, stage.sha256, path, entry)


def is_path(spec: str | Path) -> bool:
    """Whether `-m` was given a file and not a name."""
    text = str(spec)
    return isinstance(spec, Path) or text.lower().endswith(_FILE_SUFFIXES) or "/" in text or os.sep in text


def config_of(entry: ModelEntry) -> GeneratorConfig:
    """The network's configuration that a manifest entry holds. Raises WeightsError if it makes no network."""
    from sr_cli import models

    try:
        return models.config_from_dict(dict(entry.config))
    except ValueError as error:
        raise WeightsError(f"the manifest entry of {entry.name}: {error}") from None


def network_of(entry: ModelEntry) -> Generator:
    """The network of a manifest entry, its weights undefined where it has no need of them. Raises WeightsError."""
    from sr_cli import models

    config = config_of(entry)
    return load(entry.name).generator if config.family == models.FOREIGN else models.create(config).eval()


def fetch(
    entry: ModelEntry, stage: Stage, *, offline: bool = False, progress: Progress | None = None
) -> tuple[Path, bytes]:
    """A stage's file and its verified content, downloaded if need be. Raises WeightsError."""
    local = entry.path(stage)
    if local is not None and (local.exists() or stage.hub is None):
        data = read_bytes(local)
        if storage.sha256_of_bytes(data) != stage.sha256:
            advice = (
                "reinstall srup"
                if entry.origin == "built-in"
                else f"`srup models remove {entry.name}` and add it again"
            )
            raise WeightsError(f"{local} is damaged: its sha256 is not the one in the manifest; {advice}")
        return local, data
    assert stage.hub is not None
    place = stage.hub
    path = hub.download(
        place.repo,
        place.revision,
        place.file,
        sha256=stage.sha256,
        size=stage.size,
        offline=offline,
        progress=progress,
    )
    return path, read_bytes(path)


def read_bytes(path: Path) -> bytes:
    """A weights file's content. Raises WeightsError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"no weights file {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {error.strerror}") from None


def _assemble(tensors: dict[str, Tensor], where: str, config: GeneratorConfig | None = None) -> Generator:
    """The network that a state dict belongs to; `config` is what it must be, if a manifest says so."""
    from sr_cli import models
    from sr_cli.models import foreign

    if found := models.recognise(tensors):
        return build(config or found[0], found[1], where)
    if config is not None and config.family != models.FOREIGN:
        return build(config, tensors, where)
    generator = foreign.load(tensors)
    if generator is None:
        hint = "" if foreign.available() else "; pip install 'srup[spandrel]' opens further architectures"
        raise WeightsError(
            f"{where}: not an architecture that srup knows; its first tensors are {_some(tensors)}{hint}"
        )
    return generator


def build(config: GeneratorConfig, tensors: dict[str, Tensor], where: str) -> Generator:
    """The network of `config` with these weights, in evaluation mode. Raises WeightsError where they do not fit."""
    from sr_cli import models

    generator = models.create(config).eval()
    expected = generator.state_dict()
    problems = []
    if missing := expected.keys() - tensors.keys():
        problems.append(f"missing {_some(missing)}")
    if unexpected := tensors.keys() - expected.keys():
        problems.append(f"unexpected {_some(unexpected)}")
    if wrong := [k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape]:
        first = min(wrong)
        shapes = f"{tuple(tensors[first].shape)} instead of {tuple(expected[first].shape)}"
        problems.append(f"of other shape {_some(wrong)} ({first} is {shapes})")
    if problems:
        raise WeightsError(f"{where} does not fit the network {config.family!r}: {'; '.join(problems)}")
    generator.load_state_dict(tensors)
    return generator


def _some(keys: Iterable[str], limit: int = 4) -> str:
    names = sorted(keys)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _load_path(path: Path) -> LoadedModel:
    if path.suffix.lower() != ".safetensors":
        if not path.exists():
            raise WeightsError(f"no weights file {path}")
        converted = path.with_suffix(".safetensors")
        raise WeightsError(f"{path} is not a .safetensors file; `srup models convert {path} {converted}` makes one")
    data = read_bytes(path)
    sha256 = storage.sha256_of_bytes(data)
    generator = _assemble(_tensors(data, str(path)), str(path))
    entry, stage = _known(sha256)
    return LoadedModel(
        name=path.stem,
        stage=stage.name if stage else None,
        generator=generator,
        overlap=stage.overlap if stage else None,
        sha256=sha256,
        path=path,
        entry=entry,
    )


def _known(sha256: str) -> tuple[ModelEntry | None, Stage | None]:
    """What the manifest says of a file the user gave; a broken manifest must not keep it from loading."""
    try:
        manifest = read_manifest()
    except WeightsError:
        manifest = Manifest()
    return manifest.by_sha256(sha256) or (None, None)


def _tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """A safetensors file's tensors, floating-point ones as fp32. Raises WeightsError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{where} is not a readable safetensors file ({error})") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
