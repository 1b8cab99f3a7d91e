"""`srup models`: list, download, verify, add, remove, convert, export and publish weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli.adapter import Group, command
from sr_cli.cli.console import Console, Json, Printing, Quiet
from sr_cli.errors import UsageError, WeightsError
from sr_cli.options import Offline, Option

if TYPE_CHECKING:
    from sr_cli.cli.console import Bar
    from sr_cli.hub import OnBytes
    from sr_cli.weights import Manifest, ModelEntry, Stage

app = typer.Typer(
    cls=Group, help="List, inspect, download, verify, add, convert, export and publish models.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
Overwrite = Annotated[bool, Option("Replace what exists.")]
All = Annotated[bool, Option("All models.", names=("--all",))]


@command(app, "list")
def list_(json: Json = False) -> None:
    """List the models that -m accepts and the look of their results."""
    from sr_cli import weights
    from sr_cli.upscale.options import UpscaleOptions

    console = Console(json=json)
    entries = list(weights.read_manifest().models.values())
    default = UpscaleOptions().model
    if json:
        plain = [{"name": name, "look": look} for name, look in weights.INTERPOLATION_LOOKS.items()]
        records = [{**_record(entry), "default": entry.name == default} for entry in entries]
        console.document({"models": records, "interpolations": plain})
        return
    rows = [row for entry in sorted(entries, key=lambda entry: entry.name != default) for row in _rows(entry, default)]
    rows += [
        _Row(name, _Look.parse(look), "any scale", "built in") for name, look in weights.INTERPOLATION_LOOKS.items()
    ]
    cells = [(row.name, row.look.word, "; ".join(filter(None, (row.look.limits, row.more))), row.place) for row in rows]
    console.table(["model", "look", "notes", "weights"], cells, left=(0, 1, 2, 3))
    meanings = {row.look.word: row.look.meaning for row in rows if row.look.meaning}
    console.data("")
    for word, meaning in meanings.items():
        console.data(f"{word}: {meaning}")
    console.note("Use a model with -m MODEL. `srup models info MODEL` shows its network, training, scores and licence.")


@dataclass(frozen=True)
class _Look:
    """What results look like: `crisp: invents plausible texture; clean sources only`, in its three parts."""

    word: str
    meaning: str
    limits: str

    @classmethod
    def parse(cls, text: str) -> _Look:
        """Split a look at its first colon and semicolon; without a colon all of it is `limits`."""
        word, colon, rest = text.partition(": ")
        if not colon:
            return cls("", "", text)
        meaning, _, limits = rest.partition("; ")
        return cls(word, meaning, limits)


@dataclass(frozen=True)
class _Row:
    """A line of `srup models list`."""

    name: str
    look: _Look
    more: str  #: What else there is to say.
    place: str  #: Where the weights are.


def _rows(entry: ModelEntry, default: str) -> list[_Row]:
    """Return a row for each stage of a model, its default stage first and under the bare name."""
    name = f"{entry.name} (default)" if entry.name == default else entry.name
    scale = [] if entry.scale == 4 else [f"x{entry.scale}"]
    if not entry.stages:
        return [_Row(name, _Look.parse("no weights yet; for srup bench and train"), "".join(scale), "none")]
    stages = sorted(entry.stages.values(), key=lambda stage: stage.name != entry.default_stage)
    rows = []
    for stage in stages:
        is_default = stage.name == entry.default_stage
        styles = [f"--style {style}" for style, named in entry.style.items() if named == stage.name]
        also = [f"also {entry.name}:{stage.name}"] if len(stages) > 1 else []
        more = [*scale, *(also if is_default else styles)]
        label = name if is_default else f"{entry.name}:{stage.name}"
        rows.append(_Row(label, _Look.parse(stage.words), "; ".join(more), _place(entry, stage)))
    return rows


@command(app, "info")
def info(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, name:stage, a .safetensors file or a run's folder.")
    ],
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Show the network, licence, training and scores of a model or a file."""
    from sr_cli import weights

    console = Console(json=json)
    record = _of_file(name) if weights.is_path(name) else _of_name(name)
    if json:
        console.document(record)
    else:
        _tell(console, record)


def _of_file(name: str) -> dict[str, Any]:
    """Return what a file, or a run's folder, says of itself."""
    from msgspec.structs import asdict

    from sr_cli import weights
    from sr_cli.weights import provenance, registry

    loaded = weights.load(name)
    entry, stage = loaded.entry, loaded.stage
    training = provenance.training_of(loaded.metadata, stage) if stage else None
    return {
        "path": str(loaded.path),
        "sha256": loaded.sha256,
        "known_as": f"{entry.name}:{stage}" if entry else None,
        "stage": stage,
        "training": asdict(training) if training else None,
        "overlap": loaded.overlap,
        **registry.describe(loaded.generator),
    }


def _of_name(name: str) -> dict[str, Any]:
    """Return what the manifest says of a model, or of one stage of it."""
    from sr_cli import weights
    from sr_cli.weights import loading, registry

    spec = weights.parse_spec(name)
    if spec.is_interpolation:
        return {"name": name, "look": weights.INTERPOLATION_LOOKS[name], "weights": None}
    manifest = weights.read_manifest()
    entry = manifest.model(spec.name)
    record = {**_record(entry), **registry.describe(loading.network_of(entry))}
    if spec.stage is not None:
        manifest.stage(name)  # for its error
        record["stage"] = spec.stage
        record["weights"] = [weight for weight in record["weights"] if weight["stage"] == spec.stage]
    record["weights"] = record.pop("weights")  # the longest part, so the last one
    return record


@command(app, "download")
def download(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Models, or name:stage.")] = None,
    all_: All = False,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download models before they are needed; verify those that are here already."""
    from sr_cli import weights
    from sr_cli.weights import loading

    console = Console(json=json, quiet=quiet)
    manifest = weights.read_manifest()
    if bool(names) == all_:
        raise UsageError("name the models to download, or pass --all")
    pairs = [pair for name in names or manifest.models for pair in _pairs(manifest, name, bool(names))]
    files = []
    for entry, stage in pairs:
        with console.progress(f"{entry.name}:{stage.name}") as bar:
            path, _ = loading.fetch(entry, stage, offline=offline, progress=_onto(bar))
        files.append({"name": entry.name, "stage": stage.name, "path": str(path), "size": stage.size})
        if not json:
            console.data(f"{entry.name}:{stage.name}  {path}")
            console.note(f"licence: {stage.licence}")
    if json:
        console.document({"files": files})


@command(app, "verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Models; all without one.")] = None,
    all_: All = False,
    json: Json = False,
) -> int:
    """Check the weights on this machine against their checksums and networks. Downloads nothing."""
    from sr_cli.weights import registry

    console = Console(json=json)
    if names and all_:
        raise UsageError("name models or pass --all, not both")
    results = list(registry.verify(names or []))
    if json:
        records = [{**vars(result), "path": str(result.path) if result.path else None} for result in results]
        console.document({"results": records})
    else:
        console.table(
            ["weights", "status", "file"],
            [(f"{result.name}:{result.stage}", result.status, str(result.path or "")) for result in results],
        )
    bad = [result for result in results if result.error]
    for result in bad:
        console.error(f"{result.name}:{result.stage}: {result.error}")
    return WeightsError.exit_code if bad else 0


@dataclass(frozen=True)
class NewModel:
    """How weights are registered under a name of the user's."""

    name: Annotated[str, Option("Name to use with -m.", metavar="NAME")]
    stage: Annotated[
        Literal["pixel", "photo", "gan"] | None,
        Option("Its stage.", default="pixel; for a run, all its stages"),
    ] = None
    licence: Annotated[
        str | None, Option("The weights' licence as an SPDX identifier.", metavar="SPDX", default="unknown")
    ] = None
    summary: Annotated[str | None, Option("Description, one line.", default="none")] = None
    overwrite: Overwrite = False


@command(app, "add")
def add(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="hf:USER/REPO[@REVISION]/FILE, a run folder, or a file.")
    ],
    options: NewModel,
    printing: Printing,
) -> None:
    """Register weights under a name: from the Hub (pinned to a commit), a training run or a file."""
    from sr_cli.weights import registry

    console = Console(**vars(printing))
    with console.progress(source) as bar:
        details = registry.AddOptions(options.stage, options.licence, options.summary, options.overwrite)
        entry = registry.add(source, options.name, details, progress=_onto(bar))
    if printing.json:
        console.document(_record(entry))
    else:
        console.data(f"{entry.name}: {_stages(entry)}; use it with -m {entry.name}")


@command(app, "remove")
def remove(name: Name, json: Json = False) -> None:
    """Remove one of your models and its files; of a built-in model, the downloaded files."""
    from sr_cli.weights import registry

    console = Console(json=json)
    paths = [str(path) for path in registry.remove(name)]
    if json:
        console.document({"name": name, "deleted": paths})
    for path in [] if json else paths:
        console.data(f"deleted {path}")


@command(app, "convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="A PyTorch checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    overwrite: Overwrite = False,
    max_size: Annotated[int, Option("Largest file to open, in MB.", minimum=1)] = 2048,
    json: Json = False,
) -> None:
    """Convert a PyTorch checkpoint to safetensors, without running code from it."""
    from sr_cli.weights.convert import convert as job

    console = Console(json=json)
    done = job(source, target, overwrite=overwrite, size_limit=max_size << 20)
    if json:
        console.document({**vars(done), "target": str(done.target)})
        return
    console.data(f"{done.target}: {done.tensors} tensors, {done.family or 'an architecture that srup does not know'}")
    for what, names in (("taken out of", done.unwrapped), ("dropped", done.dropped)):
        if names:
            console.note(f"{what}: {', '.join(names)}")


@command(app, "export")
def export(
    model: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="A model's name, name:stage, or a .safetensors file.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    format: Annotated[
        Literal["safetensors", "basicsr", "onnx"] | None, Option("Format of the file", default="by the suffix of OUT")
    ] = None,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Export a model for other programs: .pth for chaiNNer and ComfyUI, .onnx, or .safetensors."""
    from sr_cli import weights
    from sr_cli.weights.export import export as job

    console = Console(json=json)
    with console.progress(model) as bar:
        loaded = weights.load(model, offline=offline, progress=_onto(bar))
    written = job(loaded, target, format, overwrite=overwrite)
    if json:
        console.document({"target": str(target), "format": written, "size": target.stat().st_size})
    else:
        console.data(f"{target}: {written}, {target.stat().st_size / 1e6:.0f} MB")
        if written == "basicsr" and loaded.generator.config.family == "mesrgan":
            console.note("the same results as SRVGGNetCompact, with 80 times the arithmetic: meant for a GPU")


@command(app, "publish")
def publish(
    name: Name,
    repo: Annotated[str, Option("Repository on the Hub; created if it does not exist.", metavar="USER/REPO")],
    private: Annotated[bool, Option("Make a new repository private.")] = False,
    message: Annotated[str | None, Option("Message of the commit.", default="names the weights")] = None,
    json: Json = False,
) -> None:
    """Upload a model's weights, a model card and its manifest entry to the Hub."""
    from sr_cli.weights.publish import publish as job

    console = Console(json=json)
    done = job(name, repo, private=private, message=message)
    if json:
        console.document(vars(done))
    else:
        console.data(f"{done.repo} at {done.commit}")
        console.note(done.url)


def _onto(bar: Bar) -> OnBytes:
    """Move a bar with a download."""
    return lambda done, total: bar.update(done, total or done)


def _pairs(manifest: Manifest, name: str, named: bool) -> list[tuple[ModelEntry, Stage]]:
    """List what `download` fetches for a name: one stage, or all; a model without any is an error only if named."""
    if ":" in name:
        return [manifest.stage(name)]
    entry = manifest.model(name)
    if named and not entry.stages:
        manifest.stage(name)  # for its error
    return [(entry, stage) for stage in entry.stages.values()]


def _record(entry: ModelEntry) -> dict[str, Any]:
    """Return an entry as JSON shows it."""
    from sr_cli.weights import registry

    record = entry.to_dict()
    stages = record.pop("stages")
    details = []
    for stage in entry.stages.values():
        path = registry.present(entry, stage)
        here = {"stage": stage.name, "path": str(path) if path else None}
        details.append({**here, **stages[stage.name], "look": stage.words})
    return {
        "name": entry.name,
        "stages": list(stages),
        "bundled": _bundled(entry),
        "origin": entry.origin,
        **record,
        "weights": details,
    }


def _bundled(entry: ModelEntry) -> bool:
    """Return whether all its weights come with the package."""
    paths = [entry.path(stage) for stage in entry.stages.values()]
    return entry.origin == "built-in" and bool(paths) and all(path is not None and path.exists() for path in paths)


def _stages(entry: ModelEntry) -> str:
    return ", ".join(
        f"{name}*" if name == entry.default_stage and len(entry.stages) > 1 else name for name in entry.stages
    )


def _place(entry: ModelEntry, stage: Stage) -> str:
    """Return where a stage's weights are, in a word."""
    from sr_cli.weights import registry

    if registry.present(entry, stage) is None:
        return "on the Hub" if stage.hub is not None else "missing"
    if entry.origin == "user":
        return "yours"
    return "downloaded" if stage.file is None else "bundled"


def _tell(console: Console, record: dict[str, Any], indent: str = "") -> None:
    """Print a record for people: one line a fact, nested facts indented."""
    for key, value in record.items():
        label = key.replace("_", " ")
        if isinstance(value, dict) and value:
            console.data(f"{indent}{label}:")
            _tell(console, value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                console.data(f"{indent}{label}:")
                _tell(console, item, indent + "  ")
        elif value not in (None, {}, []):
            console.data(f"{indent}{label}: {_text(value)}")


def _text(value: Any) -> str:
    """Return a fact for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
