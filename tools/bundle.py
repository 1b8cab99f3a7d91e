"""For maintainers: puts a training run's weights into the package (`make bundle`).

    python tools/bundle.py RUN --name mesrgan --stage pixel [--overlap N] [--default] [--scores eval.json] ...

Converts the run's best weights of the stage, or a snapshot of them, to fp16, writes them to
sr_cli/bundled/NAME-STAGE.safetensors and the entry to weights_manifest.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from safetensors.torch import save

from sr_cli import state_dicts
from sr_cli.errors import WeightsError
from sr_cli.weights import manifest, provenance
from sr_cli.weights.blend import interpolate
from sr_cli.weights.loading import LoadedModel, load
from sr_cli.weights.manifest import ModelEntry, Stage, Teacher

ROOT = Path(__file__).resolve().parent.parent


def load_run(path: Path, stage: str) -> LoadedModel:
    """Load a stage of a run's folder, or one of its snapshots. Raises WeightsError where it is of another stage."""
    if path.is_dir():
        return load(f"{path.absolute()}:{stage}")
    snapshot = load(path)
    if (said := provenance.stage_of(snapshot.metadata)) != stage:
        raise WeightsError(f"{path} is of the stage {said}, not {stage}")
    return dataclasses.replace(snapshot, stage=stage)


def interpolated(run: LoadedModel, parent: Path | None, share: float) -> dict[str, torch.Tensor]:
    """Draw a run's state dict by `share` (0..1) towards that of its parent (Wang et al. 2018, ESRGAN, section 3.4).

    Raises WeightsError where they are not two states of one network without BatchNorm (see docs/fidelity.md).
    """
    tensors = run.generator.state_dict()
    if parent is None:
        return tensors
    other = load(parent).generator
    if other.config != run.generator.config or any(name.endswith("running_mean") for name in tensors):
        raise WeightsError(f"{run.path} and {parent} are not two states of one network without BatchNorm")
    return interpolate(tensors, other.state_dict(), share)


def half(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Convert the floating-point tensors of a state dict to fp16. Raises WeightsError if one does not survive that."""
    tensors = {}
    for name, tensor in state.items():
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor
        if not tensors[name].isfinite().all():
            raise WeightsError(f"{path}: {name} does not fit into half precision")
    return tensors


def bundled_parent(sha256: str | None, models: dict[str, ModelEntry], folder: Path) -> str | None:
    """Return the checksum of the bundled file that stands for a parent: it may be the fp16 form of the run's."""
    for entry in models.values():
        for stage in entry.stages.values():
            path = folder / stage.file if stage.file else None
            if path is None:
                continue
            with state_dicts.opened(path) as weights:
                source = provenance.info_of(weights.header.metadata).get("source_sha256")
            if sha256 in (stage.sha256, source):
                return stage.sha256
    return sha256


def scores(path: Path | None, spec: str) -> dict[str, dict[str, float]]:
    """Read the means of an `srup eval --json` document, by data set."""
    if path is None:
        return {}
    results = json.loads(path.read_text("utf-8"))["results"]
    return {
        result["dataset"]: {key: round(value, 4) for key, value in result["metrics"].items() if value is not None}
        for result in results
        if len(results) == 1 or result["model"] in (spec, spec.split(":")[0])
    }


def teacher(named: Teacher | None, owner: str | None) -> Teacher | None:
    """Name the teacher of a run, and whose it is. Raises WeightsError if that is not said."""
    if named is None:
        return None
    if owner is None:
        raise WeightsError(f"the run learned from {named.owner}: say whose it is with --teacher-owner NAME, LICENCE")
    return replace(named, owner=owner)


def bundle(run: LoadedModel, name: str, options: argparse.Namespace, root: Path = ROOT) -> Stage:
    """Write the weights and the manifest entry; give the new stage."""
    manifest_path, folder = root / "weights_manifest.json", root / "sr_cli" / "bundled"
    models = dict(manifest.read_file(manifest_path, folder).models)
    entry = models[name]
    if entry.config != (config := run.generator.config.to_dict()):
        raise WeightsError(f"{run.path} is {config}, but {name} is {entry.config}")
    assert run.stage is not None  # it is a run's
    training = provenance.training_of(run.metadata, run.stage)
    info: dict[str, Any] = {"model": name, "stage": run.stage, "source_sha256": run.sha256}
    data = save(half(interpolated(run, *options.blend), run.path), metadata={"srup": json.dumps(info)})
    file = f"{name}-{run.stage}.safetensors"
    given = {
        key: getattr(options, key)
        for key in ("data", "recipe", "hardware", "hours")
        if getattr(options, key) is not None
    }
    replaced = entry.stages.get(run.stage)
    stage = Stage(
        name=run.stage,
        file=file,
        hub=None,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        overlap=options.overlap,
        parent_sha256=bundled_parent(options.parent or run.parent_sha256, models, folder),
        licence=options.licence,
        licence_source=None,
        training=replace(training, **given) if training else None,
        scores=scores(options.scores, f"{name}:{run.stage}"),
        bf16_share=options.bf16_share,
        look=replaced.look if replaced else None,
        teacher=teacher(provenance.teacher_of(run.metadata), options.teacher_owner),
    )
    entry = manifest.with_stage(entry, stage, default=options.default)
    models[name] = replace(entry, style=entry.style | dict.fromkeys(options.style, run.stage))
    text = manifest.dump(models)
    manifest.parse(text, str(manifest_path), folder)  # before anything is written
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    manifest_path.write_text(text, "utf-8")
    return stage


def main() -> None:
    """Put a run's weights and their manifest entry into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder, or one of its snapshots")
    parser.add_argument("--name", required=True, help="manifest name, such as mesrgan")
    parser.add_argument("--stage", required=True, choices=manifest.STAGES)
    parser.add_argument("--default", action="store_true", help="let the bare name stand for this stage")
    parser.add_argument("--overlap", type=int, help="measured overlap in low-resolution pixels")
    parser.add_argument("--parent", help="sha256 of the weights it was fine-tuned from, if the run does not say")
    parser.add_argument("--licence", default="MIT")
    parser.add_argument("--data", help="training data, if the run does not say")
    parser.add_argument("--hardware", help="what it was trained on")
    parser.add_argument("--hours", type=float, help="wall time, if the run does not say")
    parser.add_argument("--scores", type=Path, help="an `srup eval --json` document")
    parser.add_argument(
        "--blend",
        nargs=2,
        metavar=("PARENT", "SHARE"),
        help="draw the weights by a share of 0..1 towards those of a file; say so in --recipe",
    )
    parser.add_argument("--recipe", help="losses, optimiser and schedule in words, if the run does not say all")
    parser.add_argument("--teacher-owner", help="name, authors and licence of the teacher, where the run has one")
    parser.add_argument("--bf16-share", type=float, help="measured share of values that bf16 keeps within 1 level")
    parser.add_argument("--style", action="append", default=[], choices=("natural", "crisp"), help="it is this style")
    options = parser.parse_args()
    options.blend = (Path(options.blend[0]), float(options.blend[1])) if options.blend else (None, 0.0)
    stage = bundle(load_run(options.run, options.stage), options.name, options)
    print(f"sr_cli/bundled/{stage.file}: {stage.size} bytes, sha256 {stage.sha256}")


if __name__ == "__main__":
    main()
