"""The weights manifest: which models exist, and for each stage its file, checksum, licence and scores.

`weights_manifest.json` is the built-in one; the user's own is `manifest.json` in the data folder, put over it
model by model. Both have the schema of the dataclasses below (docs/weights.md shows an example), and
parsing is strict: an unknown, missing or ill-typed field is a `WeightsError` naming model and field.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sr_cli.errors import WeightsError
from sr_cli.storage import data_folder

T = TypeVar("T")

SCHEMA = 1
STAGES = ("pixel", "photo", "gan")
"""L1 on clean reductions; fine-tuned on damaged ones; fine-tuned against a discriminator."""
DEFAULT_ORDER = ("photo", "pixel", "gan")
"""The bare name of a model that was trained or added here stands for the first of these that it has."""

PACKAGE = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TEXT = re.compile(r"(?s).+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"\w[\w.+-]*\.safetensors")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub, pinned to a commit."""

    repo: str
    """`user/name`."""
    revision: str
    """Full commit, 40 hexadecimal digits: a branch could change under us."""
    file: str
    """Path in the repository."""


@dataclass(frozen=True)
class TrainingSummary:
    """How weights came about, as far as it is known."""

    data: str
    """What they were trained on."""
    recipe: str | None = None
    """Losses, optimiser, schedule, in words."""
    steps: int | None = None
    """Optimisation steps of this stage up to the chosen checkpoint."""
    hours: float | None = None
    """Wall time of the run."""
    hardware: str | None = None
    """What it ran on."""
    seed: int | None = None
    """Seed of the run."""
    commit: str | None = None
    """Commit of this project that ran it."""


@dataclass(frozen=True)
class Stage:
    """One weights file of a model. It has a `file`, a `hub` location, or both."""

    name: str
    """`pixel`, `photo` or `gan`."""
    file: str | None
    """File name in the folder that belongs to the manifest, None if it is only on the Hub."""
    hub: HubFile | None
    """Where to download it, None if it is only local."""
    sha256: str
    """Checksum of the file, 64 hexadecimal digits."""
    size: int
    """Size of the file in bytes."""
    overlap: int | None
    """Low-resolution pixels of overlap at which tiles do not show (at most 1 of 255 levels); None: not measured."""
    parent_sha256: str | None
    """Checksum of the weights these were fine-tuned from; the two can be blended."""
    licence: str
    """SPDX expression, or `unknown`."""
    licence_source: str | None
    """Where the licence was found, for weights of others."""
    training: TrainingSummary | None
    """How they came about."""
    scores: Mapping[str, Mapping[str, float]]
    """Measured scores: data set, then metric (names as in `srup eval --json`, standard protocol)."""
    bf16_share: float | None = None
    """Share of output values that bf16 keeps within 1 of 255 levels of fp32 on photographs; None: not measured."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that has a name."""

    name: str
    """What `-m` takes."""
    summary: str
    """One line for people."""
    config: Mapping[str, Any]
    """`GeneratorConfig.to_dict()` of the network."""
    scale: int
    """Factor by which it enlarges."""
    default_stage: str | None
    """What the bare name stands for: the best stage for photographs. None while there are no stages."""
    stages: Mapping[str, Stage]
    """The weights there are, by stage."""
    folder: Path
    """Where the stages' files lie."""
    origin: str = "built-in"
    """`built-in` or `user`."""

    def path(self, stage: Stage) -> Path | None:
        """Where the stage's local file is, or would be; None if it is only on the Hub."""
        return None if stage.file is None else self.folder / stage.file

    def to_dict(self) -> dict[str, Any]:
        """As the manifest file stores it."""
        stages = {}
        for name, stage in self.stages.items():
            stages[name] = {
                "file": stage.file,
                "hub": None if stage.hub is None else vars(stage.hub),
                "sha256": stage.sha256,
                "size": stage.size,
                "overlap": stage.overlap,
                **({} if stage.bf16_share is None else {"bf16_share": stage.bf16_share}),
                "parent_sha256": stage.parent_sha256,
                "licence": stage.licence,
                "licence_source": stage.licence_source,
                "training": None if stage.training is None else vars(stage.training),
                "scores": {data: dict(metrics) for data, metrics in stage.scores.items()},
            }
        return {
            "summary": self.summary,
            "config": dict(self.config),
            "scale": self.scale,
            "default_stage": self.default_stage,
            "stages": stages,
        }


@dataclass(frozen=True)
class Manifest:
    """All models that have a name, in the order of their files."""

    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    """By name."""

    def model(self, name: str) -> ModelEntry:
        """The entry called `name`. Raises WeightsError naming the close and the known ones."""
        if name in self.models:
            return self.models[name]
        close = difflib.get_close_matches(name, self.models, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise WeightsError(
            f"unknown model {name!r}; {hint}known: {', '.join(self.models)}, or a path to a .safetensors file"
        )

    def stage(self, spec: str) -> tuple[ModelEntry, Stage]:
        """The entry and stage that `name` or `name:stage` stands for. Raises WeightsError if there is none."""
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
        """The entry and stage of a file with this checksum, if the manifest knows it."""
        for entry in self.models.values():
            for stage in entry.stages.values():
                if stage.sha256 == sha256:
                    return entry, stage
        return None


def builtin_path() -> Path:
    """The built-in manifest: inside an installed package, else beside it (a checkout, an editable install)."""
    inside = PACKAGE / "weights_manifest.json"
    return inside if inside.exists() else PACKAGE.parent / "weights_manifest.json"


def user_path() -> Path:
    """The user's own manifest; it need not exist."""
    return data_folder() / "manifest.json"


def user_folder() -> Path:
    """Where the files of the user's own models lie."""
    return data_folder() / "weights"


def read_manifest() -> Manifest:
    """The built-in manifest with the user's own put over it. Raises WeightsError naming what is wrong in which."""
    models = dict(read_file(builtin_path(), PACKAGE / "bundled", "built-in").models)
    if user_path().exists():
        models.update(read_file(user_path(), user_folder(), "user").models)
    return Manifest(models)


def read_file(path: Path, folder: Path, origin: str = "built-in") -> Manifest:
    """One manifest file, whose stages' files lie in `folder`. Raises WeightsError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the weights manifest {path}: {error}") from None
    return parse(text, str(path), folder, origin)


def parse(text: str, where: str, folder: Path, origin: str = "built-in") -> Manifest:
    """A manifest from JSON; `where` is named in errors. Raises WeightsError."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{where}: not JSON ({error})") from None
    top = _Fields(document, where)
    if (schema := top.integer("schema")) != SCHEMA:
        raise WeightsError(f"{where}: schema {schema} is not the one this version reads ({SCHEMA}); upgrade srup")
    models = top.mapping("models")
    top.done()
    return Manifest({name: _model(name, value, where, folder, origin) for name, value in models.items()})


def dump(models: Mapping[str, ModelEntry]) -> str:
    """The inverse of `parse`."""
    document = {"schema": SCHEMA, "models": {name: entry.to_dict() for name, entry in models.items()}}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


class _Fields:
    """Takes typed fields out of a JSON object; every complaint names where it is."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise WeightsError(f"{where}: must be an object, not {value!r}")
        self.left = dict(value)
        self.where = where

    def _take(self, key: str, expected: str, accept: Callable[[Any], bool]) -> Any:
        if key not in self.left:
            raise WeightsError(f"{self.where}: field {key!r} is missing")
        value = self.left.pop(key)
        if not accept(value):
            raise WeightsError(f"{self.where}: field {key!r} must be {expected}, not {value!r}")
        return value

    def text(self, key: str) -> str:
        return self.matching(key, _TEXT, "text")

    def matching(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value: str = self._take(key, what, lambda v: isinstance(v, str) and bool(pattern.fullmatch(v)))
        return value

    def sha256(self, key: str) -> str:
        return self.matching(key, _SHA256, "64 hexadecimal digits")

    def integer(self, key: str, least: int = 0) -> int:
        value: int = self._take(key, f"a whole number from {least}", lambda v: type(v) is int and v >= least)
        return value

    def number(self, key: str) -> float:
        return float(self._take(key, "a number", lambda v: type(v) in (int, float) and abs(v) < 1e300))

    def mapping(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self._take(key, "an object", lambda v: isinstance(v, dict))
        return value

    def optional(self, key: str, take: Callable[[str], T]) -> T | None:
        """What `take` makes of a field, or None where it is null or left out."""
        if self.left.get(key) is None:
            self.left.pop(key, None)
            return None
        return take(key)

    def done(self) -> None:
        if self.left:
            raise WeightsError(f"{self.where}: unknown field {next(iter(self.left))!r}")


def _model(name: str, value: Any, where: str, folder: Path, origin: str) -> ModelEntry:
    where = f"{where}: model {name!r}"
    if not NAME.fullmatch(name):
        raise WeightsError(f"{where}: a name is lower-case letters, digits, '.', '_' and '-'")
    fields = _Fields(value, where)
    summary = fields.text("summary")
    config = fields.mapping("config")
    if not isinstance(config.get("family"), str):
        raise WeightsError(f"{where}, config: field 'family' is missing")
    scale = fields.integer("scale", 1)
    default = fields.optional("default_stage", fields.text)
    stages = {key: _stage(key, stage, f"{where}, stage {key!r}") for key, stage in fields.mapping("stages").items()}
    fields.done()
    if (default is None) != (not stages) or (default is not None and default not in stages):
        raise WeightsError(f"{where}: field 'default_stage' must be one of its stages ({', '.join(stages) or 'null'})")
    return ModelEntry(name, summary, config, scale, default, stages, folder, origin)


def _stage(name: str, value: Any, where: str) -> Stage:
    if name not in STAGES:
        raise WeightsError(f"{where}: a stage is one of {', '.join(STAGES)}")
    fields = _Fields(value, where)
    stage = Stage(
        name=name,
        file=fields.optional("file", lambda key: fields.matching(key, _FILE, "the plain name of a .safetensors file")),
        hub=fields.optional("hub", lambda key: _hub(fields.mapping(key), f"{where}, hub")),
        sha256=fields.sha256("sha256"),
        size=fields.integer("size", 1),
        overlap=fields.optional("overlap", fields.integer),
        parent_sha256=fields.optional("parent_sha256", fields.sha256),
        licence=fields.text("licence"),
        licence_source=fields.optional("licence_source", fields.text),
        training=fields.optional("training", lambda key: _training(fields.mapping(key), f"{where}, training")),
        scores=fields.optional("scores", lambda key: _scores(fields.mapping(key), f"{where}, scores")) or {},
        bf16_share=fields.optional("bf16_share", fields.number),
    )
    fields.done()
    if stage.file is None and stage.hub is None:
        raise WeightsError(f"{where}: needs a 'file' or a 'hub' location")
    return stage


def _hub(value: dict[str, Any], where: str) -> HubFile:
    fields = _Fields(value, where)
    hub = HubFile(
        repo=fields.matching("repo", _REPO, "user/name"),
        revision=fields.matching("revision", _COMMIT, "a full commit of 40 hexadecimal digits"),
        file=fields.text("file"),
    )
    fields.done()
    if not is_inside(hub.file):
        raise WeightsError(f"{where}: field 'file' must be a path inside the repository, not {hub.file!r}")
    return hub


def is_inside(path: str) -> bool:
    """Whether a path of the Hub stays inside its repository, whatever system it is read on."""
    parts = path.replace("\\", "/").split("/")
    return not {"", ".", ".."}.intersection(parts) and ":" not in parts[0]


def _training(value: dict[str, Any], where: str) -> TrainingSummary:
    fields = _Fields(value, where)
    summary = TrainingSummary(
        data=fields.text("data"),
        recipe=fields.optional("recipe", fields.text),
        steps=fields.optional("steps", fields.integer),
        hours=fields.optional("hours", fields.number),
        hardware=fields.optional("hardware", fields.text),
        seed=fields.optional("seed", fields.integer),
        commit=fields.optional("commit", fields.text),
    )
    fields.done()
    return summary


def _scores(value: dict[str, Any], where: str) -> dict[str, dict[str, float]]:
    scores = {}
    for data, metrics in value.items():
        fields = _Fields(metrics, f"{where}, {data!r}")
        scores[data] = {metric: fields.number(metric) for metric in list(fields.left)}
    return scores


def with_stage(entry: ModelEntry, stage: Stage, default: bool = False) -> ModelEntry:
    """A copy of `entry` with `stage` added or replaced; it becomes the default if asked for or if there was none."""
    stages = {name: stage if name == stage.name else entry.stages.get(name) for name in STAGES}
    kept = {name: value for name, value in stages.items() if value is not None}
    return replace(entry, stages=kept, default_stage=stage.name if default else entry.default_stage or stage.name)
