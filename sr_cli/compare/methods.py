"""The methods that are compared: interpolations and networks, ready to enlarge, and the command for each."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from sr_cli import inference, weights
from sr_cli.compare.options import CompareOptions
from sr_cli.errors import UsageError, WeightsError
from sr_cli.options import DEFAULT_MODEL
from sr_cli.weights.specs import is_path


@dataclass(frozen=True)
class Layer:
    """One way of enlarging, as the page shows it."""

    label: str  #: What it is called on the page, different for each.
    model: str  #: The model's name; `nearest` for the photo's own pixels.
    stage: str | None = None  #: Its stage, where it has one.
    fidelity: float | None = None  #: Where it is between its GAN stage (0) and that stage's parent (1).
    command: str | None = None
    """What to type for this enlargement of the whole photo; None for the photo's own pixels."""
    scale: int = 4  #: The factor by which it enlarges; shown at the largest of all.
    seconds: float | None = None  #: Time to enlarge the photo, without loading the model; None for nearest.
    tiles: int = 0  #: Tiles computed; 0 for interpolation.
    device: str | None = None  #: What it ran on; None for interpolation.
    precision: str | None = None  #: What it was computed in; None for interpolation.
    parameters: int | None = None  #: Trained values of the network.
    weights_bytes: int | None = None  #: Size of the weights file.


@dataclass(frozen=True)
class Method:
    """An enlarger that is ready, and what is known of it before it ran."""

    upscaler: inference.Upscaler  #: Enlarges the photo.
    layer: Layer  #: As the page shows it, still without the time.
    file: Path | None = None  #: Its weights, where the user named a file.


def load(options: CompareOptions, photo: Path) -> list[Method]:
    """Return bicubic, then each model at each fidelity; `photo` stands in their commands.

    Raises WeightsError if a model is not available, UsageError where one is named twice.
    """
    found = [interpolation("bicubic", photo)]
    for spec in options.models or bundled(options):
        if spec in inference.INTERPOLATIONS:
            if all(method.layer.model != spec for method in found):
                found.append(interpolation(spec, photo))
            continue
        for fidelity in options.fidelities or (None,):
            found.append(_network(spec, fidelity, options, photo))
    labels = [method.layer.label for method in found]
    # Runs keep their weights under the same names: then their folders tell them apart.
    found = [_with_folder(method) if labels.count(method.layer.label) > 1 else method for method in found]
    labels = [method.layer.label for method in found]
    if duplicate := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(f"{duplicate} is named twice; name each model once")
    return found


def bundled(options: CompareOptions) -> list[str]:
    """Return the models to compare where none is named: those whose weights come with the package.

    First the default model as it is and its other stages, then the default stage of each of the others; with a
    fidelity, those that it can be applied to. Raises WeightsError where there are none.
    """
    models = weights.read_manifest().models
    entries = sorted(models.values(), key=lambda entry: entry.name != DEFAULT_MODEL)
    if options.fidelities:
        names = [entry.name for entry in entries if {"gan", entry.default_stage} <= set(entry.here)]
    else:
        names = [f"{entry.name}:{stage}" for entry in entries for stage in _stages(entry)]
    if not names:
        raise WeightsError("no weights are bundled that could be compared; name a model or a file with -m")
    return names


def _stages(entry: weights.ModelEntry) -> list[str]:
    """Return the stages of a model to compare: its default one, and of the default model all, that one first."""
    return sorted(
        (name for name in entry.here if name == entry.default_stage or entry.name == DEFAULT_MODEL),
        key=lambda name: name != entry.default_stage,
    )


def interpolation(name: str, photo: Path) -> Method:
    """Return `bicubic` or `lanczos`."""
    return Method(inference.Upscaler(name), Layer(name.capitalize(), name, command=_command(photo, name)))


def _network(spec: str, fidelity: float | None, options: CompareOptions, photo: Path) -> Method:
    from sr_cli import models

    loaded = weights.load_blend(spec, fidelity, offline=options.offline)
    upscaler = inference.Upscaler(
        loaded,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        ensemble=options.ensemble,
    )
    label = loaded.name if fidelity is not None or loaded.stage is None else f"{loaded.name}:{loaded.stage}"
    return Method(
        upscaler,
        Layer(
            label=label if fidelity is None else f"{label}, fidelity {fidelity:g}",
            model=loaded.name,
            stage=loaded.stage,
            fidelity=fidelity,
            command=_command(photo, spec if is_path(spec) or fidelity is not None else label, fidelity, options),
            scale=upscaler.scale,
            device=upscaler.device_name,
            precision=upscaler.precision,
            parameters=models.count_parameters(loaded.generator),
            weights_bytes=loaded.path.stat().st_size if loaded.path.exists() else None,
        ),
        Path(spec) if is_path(spec) else None,
    )


def _command(photo: Path, spec: str, fidelity: float | None = None, options: CompareOptions | None = None) -> str:
    """Return the command line that enlarges the photo in this way, quoted for a shell."""
    words = ["srup", "upscale", str(photo), "-m", spec]
    if fidelity is not None:
        words += ["--fidelity", f"{fidelity:g}"]
    if options is not None and options.ensemble:
        words.append("--ensemble")
    return shlex.join(words)


def _with_folder(method: Method) -> Method:
    if method.file is None:
        return method
    label = f"{method.file.absolute().parent.name}/{method.layer.label}"
    return replace(method, layer=replace(method.layer, label=label))
