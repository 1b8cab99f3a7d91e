"""`srup models`: list, download, verify, add, remove, convert, export and publish weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli.adapter import Group, command
from sr_cli.cli.console import Console, JsonConsole, ResultConsole
from sr_cli.errors import UsageError, WeightsError
from sr_cli.options import AddOptions, Offline, Option, Overwrite

if TYPE_CHECKING:
    from sr_cli.cli.console import Bar
    from sr_cli.hub import OnBytes
    from sr_cli.weights import Manifest, ModelEntry, Stage

app = typer.Typer(
    cls=Group, help="List, inspect, download, verify, add, convert, export and publish models.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
All = Annotated[bool, Option("All models.", names=("--all",))]


@command(app, "list")
def list_(console: JsonConsole) -> None:
    """List the models that -m accepts and the look of their results."""
    from sr_cli import weights
    from sr_cli.upscale.options import UpscaleOptions

    entries = list(weights.read_manifest().models.values())
    default = UpscaleOptions().model
    if console.json:
        plain = [{"name": name, "look": look} for name, look in weights.INTERPOLATION_LOOKS.items()]
        records = [{**_record(entry), "default": entry.name == default} for entry in entries]
        console.document({"models": records, "interpolations": plain})
        return
    rows = [row for entry in sorted(entries, key=lambda entry: entry.name != default) for row in _rows(entry, default)]
    rows += [(name, look, "any scale", "built in") for name, look in weights.INTERPOLATION_LOOKS.items()]
    cells, meanings = [], {}
    for name, look, more, place in rows:
        word, meaning, limits = _parts(look)
        cells.append((name, word, "; ".join(filter(None, (limits, more))), place))
        if meaning:
            meanings[word] = meaning
    console.table(["model", "look", "notes", "weights"], cells, left=(0, 1, 2, 3))
    console.data("")
    for word, meaning in meanings.items():
        console.data(f"{word}: {meaning}")
    console.note("Use a model with -m MODEL. `srup models info MODEL` shows its network, training, scores and licence.")


def _parts(look: str) -> tuple[str, str, str]:
    """Split a look such as `crisp: invents texture; clean sources only` into its word, its meaning and its limits.

    Without a colon all of it is limits.
    """
    word, colon, rest = look.partition(": ")
    meaning, _, limits = rest.partition("; ")
    return (word, meaning, limits) if colon else ("", "", look)


def _rows(entry: ModelEntry, default: str) -> list[tuple[str, str, str, str]]:
    """Return for each stage of a model its name, look, what else there is to say, and where its weights are.

    The default stage is first and under the bare name.
    """
    name = f"{entry.name} (default)" if entry.name == default else entry.name
    scale = [] if entry.scale == 4 else [f"x{entry.scale}"]
    if not entry.stages:
        return [(name, "no weights yet; for srup bench and train", "".join(scale), "none")]
    rows = []
    for stage in sorted(entry.stages.values(), key=lambda stage: stage.name != entry.default_stage):
        full_name = f"{entry.name}:{stage.name}"
        if stage.name == entry.default_stage:
            label, more = name, [f"also {full_name}"] if len(entry.stages) > 1 else []
        else:
            label, more = full_name, [f"--style {style}" for style, named in entry.style.items() if named == stage.name]
        rows.append((label, stage.words, "; ".join([*scale, *more]), _place(entry, stage)))
    return rows


@command(app, "info")
def info(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, name:stage, a .safetensors file or a run's folder.")
    ],
    offline: Offline = False,
    *,
    console: JsonConsole,
) -> None:
    """Show the network, licence, training and scores of a model or a file."""
    from sr_cli import weights

    record = _of_file(name) if weights.is_path(name) else _of_name(name)
    if console.json:
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
        "path": loaded.path,
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
    *,
    console: ResultConsole,
) -> None:
    """Download models before they are needed; verify those that are here already."""
    from sr_cli import weights
    from sr_cli.weights import loading

    manifest = weights.read_manifest()
    if bool(names) == all_:
        raise UsageError("name the models to download, or pass --all")
    pairs = [pair for name in names or manifest.models for pair in _pairs(manifest, name, bool(names))]
    files = []
    for entry, stage in pairs:
        with console.progress(f"{entry.name}:{stage.name}") as bar:
            path, _ = loading.fetch(entry, stage, offline=offline, progress=_onto(bar))
        files.append({"name": entry.name, "stage": stage.name, "path": path, "size": stage.size})
        if not console.json:
            console.data(f"{entry.name}:{stage.name}  {path}")
            console.note(f"licence: {stage.licence}")
    if console.json:
        console.document({"files": files})


@command(app, "verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Models; all without one.")] = None,
    all_: All = False,
    *,
    console: JsonConsole,
) -> int:
    """Check the weights on this machine against their checksums and networks. Downloads nothing."""
    from sr_cli.weights import registry

    if names and all_:
        raise UsageError("name models or pass --all, not both")
    results = list(registry.verify(names or []))
    if console.json:
        console.document({"results": results})
    else:
        console.table(
            ["weights", "status", "file"],
            [(f"{result.name}:{result.stage}", result.status, str(result.path or "")) for result in results],
        )
    bad = [result for result in results if result.error]
    for result in bad:
        console.error(f"{result.name}:{result.stage}: {result.error}")
    return WeightsError.exit_code if bad else 0


@command(app, "add")
def add(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="hf:USER/REPO[@REVISION]/FILE, a run folder, or a file.")
    ],
    name: Annotated[str, Option("Name to use with -m.", metavar="NAME")],
    options: AddOptions,
    console: ResultConsole,
) -> None:
    """Register weights under a name: from the Hub (pinned to a commit), a training run or a file."""
    from sr_cli.weights import registry

    with console.progress(source) as bar:
        entry = registry.add(source, name, options, progress=_onto(bar))
    console.result(_record(entry), f"{entry.name}: {_stages(entry)}; use it with -m {entry.name}")


@command(app, "remove")
def remove(name: Name, *, console: JsonConsole) -> None:
    """Remove one of your models and its files; of a built-in model, the downloaded files."""
    from sr_cli.weights import registry

    paths = registry.remove(name)
    console.result({"name": name, "deleted": paths}, *(f"deleted {path}" for path in paths))


@command(app, "convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="A PyTorch checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    overwrite: Overwrite = False,
    max_size: Annotated[int, Option("Largest file to open, in MB.", minimum=1)] = 2048,
    *,
    console: JsonConsole,
) -> None:
    """Convert a PyTorch checkpoint to safetensors, without running code from it."""
    from sr_cli.weights.convert import convert as job

    done = job(source, target, overwrite=overwrite, size_limit=max_size << 20)
    family = done.family or "an architecture that srup does not know"
    console.result(done, f"{done.target}: {done.tensors} tensors, {family}")
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
    *,
    console: JsonConsole,
) -> None:
    """Export a model for other programs: .pth for chaiNNer and ComfyUI, .onnx, or .safetensors."""
    from sr_cli import weights
    from sr_cli.weights.export import export as job

    with console.progress(model) as bar:
        loaded = weights.load(model, offline=offline, progress=_onto(bar))
    written = job(loaded, target, format, overwrite=overwrite)
    size = target.stat().st_size
    document = {"target": target, "format": written, "size": size}
    console.result(document, f"{target}: {written}, {size / 1e6:.0f} MB")
    if written == "basicsr" and loaded.generator.config.family == "mesrgan":
        console.note("the same results as SRVGGNetCompact, with 80 times the arithmetic: meant for a GPU")


@command(app, "publish")
def publish(
    name: Name,
    repo: Annotated[str, Option("Repository on the Hub; created if it does not exist.", metavar="USER/REPO")],
    private: Annotated[bool, Option("Make a new repository private.")] = False,
    message: Annotated[str | None, Option("Message of the commit.", default="names the weights")] = None,
    *,
    console: JsonConsole,
) -> None:
    """Upload a model's weights, a model card and its manifest entry to the Hub."""
    from sr_cli.weights.publish import publish as job

    done = job(name, repo, private=private, message=message)
    console.result(done, f"{done.repo} at {done.commit}")
    console.note(done.url)


def _onto(bar: Bar) -> OnBytes:
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
    details = [
        {"stage": name, "path": registry.present(entry, stage), **stages[name], "look": stage.words}
        for name, stage in entry.stages.items()
    ]
    bundled = entry.origin == "built-in" and bool(stages) and entry.here == list(stages)
    head = {"name": entry.name, "stages": list(stages), "bundled": bundled, "origin": entry.origin}
    return {**head, **record, "weights": details}


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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
