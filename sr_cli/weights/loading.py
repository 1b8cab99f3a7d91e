"""Generators from weights: find the file, verify it, load it strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli import hub, state_dicts, storage
from sr_cli.errors import WeightsError
from sr_cli.hub import OnBytes
from sr_cli.state_dicts import StateFile
from sr_cli.weights import provenance, specs
from sr_cli.weights.manifest import Manifest, ModelEntry, Stage, read_manifest

if TYPE_CHECKING:
    from sr_cli.models import Generator, GeneratorConfig

_AVERAGED = "ema."  #: What the names of the averaged weights begin with in a training checkpoint.


@dataclass(frozen=True)
class Blend:
    """Which two stages were blended, and how."""

    gan: str  #: The GAN stage, `NAME:STAGE`: fidelity 0.
    base: str  #: The other stage: fidelity 1.
    fidelity: float  #: Its share.

    def __str__(self) -> str:
        return f"fidelity {self.fidelity:g}: between {self.gan} (0, crisp) and {self.base} (1, faithful)"


@dataclass(frozen=True)
class LoadedModel:
    """A generator with its weights, and where they came from."""

    name: str  #: The model's name, or the stem of the file the user gave.
    stage: str | None  #: `pixel`, `photo` or `gan`; None for a file that no manifest knows.
    generator: Generator  #: On the CPU, in fp32, in evaluation mode; not folded, except where it is a blend of two.
    overlap: int | None  #: Low-resolution pixels of overlap at which tiles do not show; None: not measured.
    sha256: str  #: Checksum of the file.
    path: Path  #: The file.
    entry: ModelEntry | None  #: The manifest entry; None for a file that no manifest knows.
    metadata: Mapping[str, str] = field(default_factory=dict)  #: What the file says of itself; `provenance` reads it.
    blend: Blend | None = None  #: What was blended, where it is no single file's weights.

    @property
    def scale(self) -> int:
        """Factor by which it enlarges."""
        return self.generator.scale

    @property
    def parent_sha256(self) -> str | None:
        """Checksum of the weights that its training started from, where the file says so."""
        return provenance.info_of(self.metadata).get("parent_sha256")


def load(spec: str | Path, *, offline: bool = False, progress: OnBytes | None = None) -> LoadedModel:
    """Load the generator that `spec` stands for: a name, `name:stage`, a `.safetensors` file or a run's folder.

    A name's file is looked for in the package (or the user's own weights), then in the cache, then on
    the Hub; with `offline`, or HF_HUB_OFFLINE set, never on the Hub. Its sha256 is verified before it is parsed.
    Of a training run the best weights of the stage asked for are loaded, else of photo, pixel or gan, whichever is
    first. A training checkpoint gives its averaged weights. Weights stored in half precision are loaded as fp32.

    Raises WeightsError: unknown name, no weights yet, missing or damaged file, failed verification,
    failed download, tensors that do not fit the network.
    """
    parsed = specs.parse(spec)
    if parsed.path is not None:
        if parsed.path.is_dir() and parsed.path.suffix.lower() != ".safetensors":
            stage, path = provenance.best_file(parsed.path, parsed.stage)
            return replace(read_file(path)[0], name=parsed.name, stage=stage)
        return read_file(parsed.path)[0]
    if parsed.is_interpolation:
        raise WeightsError(f"{spec} is an interpolation and has no weights")
    entry, stage_ = read_manifest().stage(str(spec))
    path, data = fetch(entry, stage_, offline=offline, progress=progress)
    file = state_dicts.from_bytes(data, f"{entry.name}:{stage_.name} ({path})")
    generator, _ = _assemble(file, config_of(entry))
    return LoadedModel(
        entry.name, stage_.name, generator, stage_.overlap, stage_.sha256, path, entry, file.header.metadata
    )


def draw(preset: str) -> LoadedModel:
    """Build a preset with seeded random weights, with which it begins near the bicubic enlargement."""
    import torch

    from sr_cli import models

    generator = models.create(models.PRESETS[preset]).eval()
    generator.reset_parameters(torch.Generator().manual_seed(0))
    return LoadedModel(preset, None, generator, None, "", Path(preset), None)


def read_file(path: Path) -> tuple[LoadedModel, bytes]:
    """Load a `.safetensors` file; give its content as well, from the same opening. Raises WeightsError."""
    if path.suffix.lower() != ".safetensors":
        if not path.exists():
            raise WeightsError(f"no weights file or training run {path}")
        converted = path.with_suffix(".safetensors")
        raise WeightsError(f"{path} is not a .safetensors file; `srup models convert {path} {converted}` makes one")
    with state_dicts.opened(path) as file:
        generator, data = _assemble(file)
    sha256 = storage.sha256_of_bytes(data)
    entry, stage = _known(sha256)
    metadata = file.header.metadata
    name, overlap = (stage.name, stage.overlap) if stage else (provenance.stage_of(metadata), None)
    return LoadedModel(path.stem, name, generator, overlap, sha256, path, entry, metadata), data


def config_of(entry: ModelEntry) -> GeneratorConfig:
    """Build the network's configuration of a manifest entry. Raises WeightsError if it makes no network."""
    from sr_cli import models

    try:
        return models.config_from_dict(dict(entry.config))
    except ValueError as error:
        raise WeightsError(f"the manifest entry of {entry.name}: {error}") from None


def network_of(entry: ModelEntry) -> Generator:
    """Build the network of a manifest entry, its weights undefined where they do not matter. Raises WeightsError."""
    from sr_cli import models

    config = config_of(entry)
    return load(entry.name).generator if config.family == models.FOREIGN else models.create(config).eval()


def fetch(
    entry: ModelEntry, stage: Stage, *, offline: bool = False, progress: OnBytes | None = None
) -> tuple[Path, bytes]:
    """Give a stage's file and its verified content, downloaded if need be. Raises WeightsError."""
    local = entry.path(stage)
    if local is not None and (local.exists() or stage.hub is None):
        data = read_bytes(local) if _has_size(local, stage.size) else b""
        if storage.sha256_of_bytes(data) != stage.sha256:
            again = f"`srup models remove {entry.name}` and add it again"
            advice = "reinstall srup" if entry.origin == "built-in" else again
            raise WeightsError(f"{local} is damaged: its sha256 is not the one in the manifest; {advice}")
        return local, data
    assert stage.hub is not None
    source = stage.hub.source
    path = hub.download(source, sha256=stage.sha256, size=stage.size, offline=offline, progress=progress)
    return path, read_bytes(path)


def _has_size(path: Path, size: int) -> bool:
    """Tell whether a file has this many bytes; true of one that cannot be looked at, so that reading it says why."""
    try:
        return path.stat().st_size == size or path.is_dir()
    except OSError:
        return True


def read_bytes(path: Path) -> bytes:
    """Read a weights file's content. Raises WeightsError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"no weights file {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {error.strerror}") from None


def _assemble(file: StateFile, wanted: GeneratorConfig | None = None) -> tuple[Generator, bytes]:
    """Build the network that a file's tensors belong to, and give the file's content, which is read only if they fit.

    `wanted` is what the network must be, where a manifest says so.
    """
    from sr_cli import models

    prefix = _AVERAGED if any(name.startswith(_AVERAGED) for name in file.header.shapes) else ""
    shapes = {name.removeprefix(prefix): shape for name, shape in file.header.shapes.items() if name.startswith(prefix)}
    try:
        found = models.recognise(shapes)
    except WeightsError as error:
        raise WeightsError(f"{file.where} {error}") from None
    if found is None:
        return _assemble_foreign(file, wanted)
    config = wanted or found.config
    if config != found.config:
        raise WeightsError(f"{file.where} is of another network: {found.config}, not {config} as the manifest says")
    generator = models.create_empty(config).eval()
    ours = {found.names[name]: shape for name, shape in shapes.items()}
    state_dicts.check_fit(generator, ours, file.where, f"the network {config.family!r}")
    data = file.read()
    tensors = state_dicts.parse(data, file.where)
    state_dicts.assign(generator, {found.names[name]: tensors[prefix + name] for name in shapes})
    return generator, data


def _assemble_foreign(file: StateFile, wanted: GeneratorConfig | None) -> tuple[Generator, bytes]:
    """Build the network as `_assemble` does, of a file of none of our families."""
    from sr_cli.models import FOREIGN, foreign

    generator = None
    if foreign.available() and file.header.file_size <= foreign.LARGEST and (not wanted or wanted.family == FOREIGN):
        data = file.read()
        tensors = state_dicts.parse(data, file.where)
        generator = foreign.load({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    if generator is None:
        names = f"its first tensors are {state_dicts.some(file.header.shapes)}" if file.header.shapes else "it is empty"
        hint = "" if foreign.available() else "; pip install 'srup[spandrel]' opens further architectures"
        raise WeightsError(f"{file.where}: not an architecture that srup knows; {names}{hint}")
    return generator, data


def _known(sha256: str) -> tuple[ModelEntry | None, Stage | None]:
    """Look a user's file up in the manifest; a broken manifest must not keep it from loading."""
    try:
        manifest = read_manifest()
    except WeightsError:
        manifest = Manifest()
    return manifest.by_sha256(sha256) or (None, None)
