"""The weights manifest: which models exist, and for each stage its file, checksum, licence and scores.

`weights_manifest.json` is the built-in one; the user's own is `manifest.json` in the data folder, put over it
model by model. Both have the schema of the structs below (docs/weights.md shows an example), and reading is strict:
an unknown, missing or ill-typed field is a `WeightsError` naming model and field.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sr_cli.errors import WeightsError, reason_of
from sr_cli.hub import Source
from sr_cli.storage import data_folder, schemas

T = TypeVar("T")

SCHEMA = 1
STAGES = ("pixel", "photo", "gan")
"""L1 on clean reductions; fine-tuned on damaged ones; fine-tuned against a discriminator."""
DEFAULT_ORDER = ("photo", "pixel", "gan")
"""The bare name of a model that was trained or added here stands for the first of these that it has."""
LOOKS = {
    "pixel": "faithful: keeps to what is there; clean sources only",
    "photo": "faithful: keeps to what is there; removes noise and JPEG artefacts",
    "gan": "crisp: invents plausible texture; clean sources only",
}
"""What a stage's results look like, in a photographer's words, where its entry says nothing else."""

PACKAGE = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

_Text = Annotated[str, Meta(min_length=1, description="text")]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits")]
_Commit = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z", description="a full commit of 40 hexadecimal digits")]
_Repo = Annotated[str, Meta(pattern=r"^(?!\.+/)[\w.-]+/(?!\.+\Z)[\w.-]+\Z", description="user/name")]
_File = Annotated[str, Meta(pattern=r"^\w[\w.+-]*\.safetensors\Z", description="the plain name of a .safetensors file")]
_Count = Annotated[int, Meta(ge=0)]
_Positive = Annotated[int, Meta(ge=1)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Score = Annotated[float, Meta(gt=-1e300, lt=1e300, description="a number")]
_Style = Literal["natural", "crisp"]


class HubFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file on the Hugging Face Hub, pinned to a commit."""

    repo: _Repo  #: `user/name`.
    revision: _Commit  #: Full commit, 40 hexadecimal digits: a branch could change under us.
    file: _Text  #: Path in the repository.

    @property
    def source(self) -> Source:
        """The file as `hub` asks for it."""
        return Source(self.repo, self.revision, self.file)


class TrainingSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """How weights came about, as far as it is known."""

    data: _Text  #: What they were trained on.
    recipe: _Text | None = None  #: Losses, optimiser, schedule, in words.
    steps: _Count | None = None  #: Optimisation steps of this stage up to the chosen checkpoint.
    hours: _Score | None = None  #: Wall time of the run.
    hardware: _Text | None = None  #: What it ran on.
    seed: _Count | None = None  #: Seed of the run.
    commit: _Text | None = None  #: Commit of this project that ran it.


class Teacher(Struct, frozen=True, forbid_unknown_fields=True):
    """The network whose outputs a stage was trained on, where there was one."""

    sha256: _Sha256  #: Checksum of its weights file.
    owner: _Text  #: Name, authors and licence: whose it is.


class StageRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One weights file of a model, as the manifest stores it. It has a `file`, a `hub` location, or both."""

    file: _File | None = None  #: File name in the folder that belongs to the manifest, None if it is only on the Hub.
    hub: HubFile | None = None  #: Where to download it, None if it is only local.
    sha256: _Sha256  #: Checksum of the file, 64 hexadecimal digits.
    size: _Positive  #: Size of the file in bytes.
    look: _Text | None = None
    """What its results look like, in a photographer's words; None for the words of its stage (`LOOKS`)."""
    overlap: _Count | None = None
    """Low-resolution pixels of overlap at which tiles do not show (at most 1 of 255 levels); None: not measured."""
    bf16_share: _Share | None = None
    """Share of output values that bf16 keeps within 1 of 255 levels of fp32 on photos; None: not measured."""
    parent_sha256: _Sha256 | None = None  #: Checksum of the weights these were fine-tuned from; the two can be blended.
    teacher: Teacher | None = None  #: Whose outputs it learned from, where it had a teacher.
    licence: _Text  #: SPDX expression, or `unknown`.
    licence_source: _Text | None = None  #: Where the licence was found, for weights of others.
    training: TrainingSummary | None = None  #: How they came about.
    scores: dict[str, dict[str, _Score]] | None = {}  # msgspec copies it
    """Measured scores: data set, then metric (names as in `srup eval --json`, standard protocol)."""


class Stage(StageRecord, frozen=True, kw_only=True):
    """One weights file of a model."""

    name: str  #: `pixel`, `photo` or `gan`.
    scores: dict[str, dict[str, _Score]]  #: As in the record, never None.

    @property
    def words(self) -> str:
        """What its results look like, in a photographer's words."""
        return self.look or LOOKS[self.name]


class ModelRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model that has a name, as the manifest stores it."""

    summary: _Text  #: One line for people.
    config: dict[str, Any]  #: `GeneratorConfig.to_dict()` of the network.
    scale: _Positive  #: Factor by which it enlarges.
    default_stage: _Text | None = None
    """What the bare name stands for: the best stage for photos. None while there are no stages."""
    style: dict[_Style, Literal["pixel", "photo", "gan"]] | None = {}  # msgspec copies it
    """Stage of each style that `--style` takes."""
    stages: dict[str, Any]  #: The weights there are, by stage: a `StageRecord` each.


class ModelEntry(ModelRecord, frozen=True, kw_only=True):
    """A model that has a name."""

    name: str  #: What `-m` takes.
    stages: dict[str, Stage]  #: The weights there are, by stage.
    style: dict[_Style, Literal["pixel", "photo", "gan"]] = {}  # msgspec copies it
    """As in the record, never None."""
    folder: Path  #: Where the stages' files are.
    origin: str = "built-in"  #: `built-in` or `user`.

    def path(self, stage: Stage) -> Path | None:
        """Return where the stage's local file is, or would be; None if it is only on the Hub."""
        return None if stage.file is None else self.folder / stage.file

    @property
    def here(self) -> list[str]:
        """The stages whose local files are there."""
        paths = {name: self.path(stage) for name, stage in self.stages.items()}
        return [name for name, path in paths.items() if path is not None and path.exists()]

    def to_dict(self) -> dict[str, Any]:
        """Give the entry as the manifest file stores it."""
        record: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        for key in ("name", "folder", "origin"):
            del record[key]
        for stage in record["stages"].values():
            del stage["name"]
        return record


@dataclass(frozen=True)
class Manifest:
    """All models that have a name, in the order of their files."""

    models: Mapping[str, ModelEntry] = field(default_factory=dict)  #: By name.

    def model(self, name: str) -> ModelEntry:
        """Find the entry called `name`. Raises WeightsError naming the close and the known ones."""
        if name in self.models:
            return self.models[name]
        close = difflib.get_close_matches(name, self.models, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise WeightsError(
            f"unknown model {name!r}; {hint}known: {', '.join(self.models)}, or a path to a .safetensors file"
        )

    def stage(self, spec: str) -> tuple[ModelEntry, Stage]:
        """Find the entry and stage that `name` or `name:stage` stands for. Raises WeightsError if there is none."""
        name, colon, stage = spec.partition(":")
        entry = self.model(name)
        if not entry.stages:
            raise WeightsError(
                f"no weights yet for {name}: train some with `srup train -m {name}` "
                f"and register them with `srup models add RUN_DIR --name my-{name}`"
            )
        if not colon:
            assert entry.default_stage is not None
            stage = entry.default_stage
        if stage not in entry.stages:
            raise WeightsError(f"{name} has no stage {stage!r}; it has: {', '.join(entry.stages)}")
        return entry, entry.stages[stage]

    def by_sha256(self, sha256: str) -> tuple[ModelEntry, Stage] | None:
        """Find the entry and stage of a file with this checksum, if the manifest knows it."""
        for entry in self.models.values():
            for stage in entry.stages.values():
                if stage.sha256 == sha256:
                    return entry, stage
        return None


def builtin_path() -> Path:
    """Return the built-in manifest's path: inside an installed package, else next to it (a checkout)."""
    inside = PACKAGE / "weights_manifest.json"
    return inside if inside.exists() else PACKAGE.parent / "weights_manifest.json"


def user_path() -> Path:
    """Return the path of the user's own manifest; it need not exist."""
    return data_folder() / "manifest.json"


def user_folder() -> Path:
    """Return where the files of the user's own models are."""
    return data_folder() / "weights"


def read_manifest() -> Manifest:
    """Read the built-in manifest and put the user's own over it.

    Raises WeightsError naming what is wrong in which.
    """
    models = dict(read_file(builtin_path(), PACKAGE / "bundled", "built-in").models)
    if os.path.exists(user_path()):
        models.update(read_file(user_path(), user_folder(), "user").models)
    return Manifest(models)


def read_file(path: Path, folder: Path, origin: str = "built-in") -> Manifest:
    """Read one manifest file, whose stages' files are in `folder`. Raises WeightsError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the weights manifest {path}: {reason_of(error)}") from None
    return parse(text, str(path), folder, origin)


class _Version(Struct):
    """The field that says which other fields there are."""

    schema: _Count


class _Document(Struct, forbid_unknown_fields=True):
    """A whole manifest file."""

    schema: _Count
    models: dict[str, Any]


def _convert(value: Any, kind: type[T], where: str) -> T:
    """Convert plain values to a struct. Raises WeightsError that begins with `where` and names the field."""
    try:
        return schemas.convert(value, kind)
    except schemas.Mismatch as error:
        raise WeightsError(f"{', '.join([where, *error.place])}: {error}") from None


def parse(text: str, where: str, folder: Path, origin: str = "built-in") -> Manifest:
    """Parse a manifest from JSON; `where` is named in errors. Raises WeightsError."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"{where}: not JSON ({error})") from None
    if (schema := _convert(document, _Version, where).schema) != SCHEMA:
        raise WeightsError(f"{where}: schema {schema} is not the one this version reads ({SCHEMA}); upgrade srup")
    models = _convert(document, _Document, where).models
    return Manifest({name: _model(name, value, where, folder, origin) for name, value in models.items()})


def dump(models: Mapping[str, ModelEntry]) -> str:
    """Write a manifest as JSON, which `parse` reads back."""
    document = {"schema": SCHEMA, "models": {name: entry.to_dict() for name, entry in models.items()}}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def is_inside(path: str) -> bool:
    """Tell whether a path of the Hub stays inside its repository, whatever system it is read on."""
    parts = path.replace("\\", "/").split("/")
    return not {"", ".", ".."}.intersection(parts) and ":" not in parts[0]


def with_stage(entry: ModelEntry, stage: Stage, default: bool = False) -> ModelEntry:
    """Copy `entry` with `stage` added or replaced; it becomes the default if asked for or if there was none."""
    stages = {name: stage if name == stage.name else entry.stages.get(name) for name in STAGES}
    kept = {name: value for name, value in stages.items() if value is not None}
    return replace(entry, stages=kept, default_stage=stage.name if default else entry.default_stage or stage.name)


def _model(name: str, value: Any, where: str, folder: Path, origin: str) -> ModelEntry:
    where = f"{where}: model {name!r}"
    if not NAME.fullmatch(name):
        raise WeightsError(f"{where}: a name is lower-case letters, digits, '.', '_' and '-'")
    record = _convert(value, ModelRecord, where)
    if not isinstance(record.config.get("family"), str):
        raise WeightsError(f"{where}, config: field 'family' is missing")
    stages = {key: _stage(key, stage, f"{where}, stage {key!r}") for key, stage in record.stages.items()}
    default = record.default_stage
    if (default is None) != (not stages) or (default is not None and default not in stages):
        raise WeightsError(f"{where}: field 'default_stage' must be one of its stages ({', '.join(stages) or 'null'})")
    for style, stage in (record.style or {}).items():
        if stage not in stages:
            raise WeightsError(f"{where}, style: field {style!r} must be one of its stages ({', '.join(stages)})")
    fields = {**msgspec.structs.asdict(record), "stages": stages, "style": record.style or {}}
    return ModelEntry(name=name, folder=folder, origin=origin, **fields)


def _stage(name: str, value: Any, where: str) -> Stage:
    if name not in STAGES:
        raise WeightsError(f"{where}: a stage is one of {', '.join(STAGES)}")
    record = _convert(value, StageRecord, where)
    if record.file is None and record.hub is None:
        raise WeightsError(f"{where}: needs a 'file' or a 'hub' location")
    if record.hub is not None and not is_inside(record.hub.file):
        raise WeightsError(f"{where}, hub: field 'file' must be a path inside the repository, not {record.hub.file!r}")
    return Stage(name=name, **{**msgspec.structs.asdict(record), "scores": record.scores or {}})
