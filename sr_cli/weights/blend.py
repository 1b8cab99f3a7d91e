"""Fidelity: weights between a model's GAN stage and the stage whose look it departs from.

Network interpolation (Wang et al. 2018, "ESRGAN", section 3.4, with alpha = 1 - fidelity): because the stages of a
model are fine-tuned from the same weights, the straight line between them passes through good networks only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli import storage
from sr_cli.errors import UsageError, WeightsError
from sr_cli.weights import provenance, specs
from sr_cli.weights.loading import Blend, LoadedModel, load, read_file
from sr_cli.weights.manifest import Manifest, ModelEntry, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from sr_cli.hub import OnBytes
    from sr_cli.models import Generator


@dataclass(frozen=True)
class _Relative:
    """A stage of the model, and what it was fine-tuned from."""

    spec: str  #: What `load` takes.
    stage: str
    sha256: str
    parent_sha256: str | None


def load_blend(
    model: str | Path | LoadedModel, fidelity: float | None, *, offline: bool = False, progress: OnBytes | None = None
) -> LoadedModel:
    """Load weights between two stages of a model; `LoadedModel.blend` says which.

    `fidelity` 1 is the stage that `model` stands for (a bare name for its default stage), 0 the model's GAN stage.
    Where `model` stands for the GAN stage itself, 1 is the stage that it was fine-tuned from. None is `model` as it
    is, see `load`. A file must be one that a manifest knows. The generator that comes back is folded already, and the
    checksum is one of the two files' checksums and `fidelity`.

    Raises UsageError for a fidelity outside 0..1 and a model that has no two such stages, WeightsError where a file
    is not available or the two are different networks.
    """
    if fidelity is None:
        return load(model, offline=offline, progress=progress) if isinstance(model, str | Path) else model
    check(fidelity)
    base, gan = _ends(model)
    soft, sharp = (load(end.spec, offline=offline, progress=progress) for end in (base, gan))
    if soft.generator.config != sharp.generator.config:
        raise WeightsError(f"--fidelity: {gan.spec} and {base.spec} are different networks")
    overlaps = (sharp.overlap, soft.overlap)
    recipe = f"{sharp.sha256} {soft.sha256} {fidelity!r}"
    return replace(
        sharp,
        generator=blend(sharp.generator, soft.generator, fidelity),
        overlap=None if None in overlaps else max(overlap for overlap in overlaps if overlap is not None),
        sha256=storage.sha256_of_bytes(recipe.encode()),
        blend=Blend(gan.spec, base.spec, fidelity),
    )


def check(fidelity: float) -> None:
    """Raise UsageError unless `fidelity` is in 0..1."""
    if not 0.0 <= fidelity <= 1.0:
        raise UsageError(f"--fidelity must be between 0 (crisp: the GAN stage) and 1 (faithful), not {fidelity}")


def blend(gan: Generator, other: Generator, share: float) -> Generator:
    """Build a folded generator whose weights are (1 - share) * gan + share * other. Same configuration needed.

    Blended after folding, because a BatchNorm's weights and statistics act as a product: blending each
    of them would give other networks in between, and ones that depend on the scale of the convolution
    before it, which the networks themselves do not (BatchNorm divides it out).
    """
    import torch

    mixed = gan.fold()
    weights = interpolate(mixed.state_dict(), other.fold().state_dict(), share)
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            value.copy_(weights[name])
    return mixed


def interpolate(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mix two state dicts of one network, (1 - share) * tensors + share * others; integers are the first's."""
    mixed = {}
    for name, value in tensors.items():
        if value.is_floating_point():
            value = value.double().lerp(others[name].double(), share).to(value.dtype)
        mixed[name] = value
    return mixed


def _ends(model: str | Path | LoadedModel) -> tuple[_Relative, _Relative]:
    """Choose the two stages to blend: that of fidelity 1 and that of 0. Raises UsageError where there are none."""
    manifest = read_manifest()
    name, stages, chosen = _family(model, manifest)
    if "gan" not in stages:
        have = ", ".join(stages) or "none yet"
        raise UsageError(f"--fidelity needs a GAN stage, and {name} has none (stages: {have}); leave the option out")
    gan = stages["gan"]
    if chosen != "gan":
        base = stages[chosen]
        if not _ancestors(base, manifest) & _ancestors(gan, manifest):
            raise UsageError(
                f"--fidelity: nothing says that {gan.spec} and {base.spec} come from the same weights; "
                f"use -m {gan.spec} to blend it with what it was fine-tuned from"
            )
        return base, gan
    if gan.parent_sha256 is None:
        raise UsageError(f"--fidelity: it is not known what {gan.spec} was fine-tuned from; leave the option out")
    parent = next((stage for stage in stages.values() if stage.sha256 == gan.parent_sha256), None)
    if parent is None and (found := manifest.by_sha256(gan.parent_sha256)):
        parent = _of_entry(found[0])[found[1].name]
    if parent is None or parent.stage == "gan":
        raise WeightsError(
            f"--fidelity: the weights that {gan.spec} was fine-tuned from ({gan.parent_sha256[:12]}...) "
            "are not a pixel or photo stage in the manifest; add them with `srup models add`"
        )
    return parent, gan


def _family(model: str | Path | LoadedModel, manifest: Manifest) -> tuple[str, dict[str, _Relative], str]:
    """Return a model's name, its stages, and the one that it stands for."""
    if isinstance(model, LoadedModel):
        if model.entry is None or model.stage is None:
            raise UsageError(
                f"--fidelity needs to know what {model.path} was fine-tuned from, and no manifest knows this file; "
                "register it with `srup models add`, or name a model"
            )
        return model.entry.name, _of_entry(model.entry), model.stage
    spec = specs.parse(model)
    if spec.is_interpolation:
        raise UsageError(f"--fidelity blends weights, and {model} has none; leave the option out")
    if spec.path is None:
        stages = _of_entry(manifest.model(spec.name))
        return spec.name, stages, manifest.stage(str(model))[1].name if stages else ""
    if spec.path.is_dir():
        return str(spec.path), _of_run(spec.path), provenance.best_file(spec.path, spec.stage)[0]
    return _family(read_file(spec.path)[0], manifest)


def _of_entry(entry: ModelEntry) -> dict[str, _Relative]:
    return {
        name: _Relative(f"{entry.name}:{name}", name, stage.sha256, stage.parent_sha256)
        for name, stage in entry.stages.items()
    }


def _of_run(folder: Path) -> dict[str, _Relative]:
    stages = {}
    for stage, path in provenance.best_files(folder).items():
        loaded, _ = read_file(path)
        stages[stage] = _Relative(f"{folder.absolute()}:{stage}", stage, loaded.sha256, loaded.parent_sha256)
    return stages


def _ancestors(relative: _Relative, manifest: Manifest) -> set[str]:
    """Collect the checksums of a stage and of all that is known to be before it."""
    found: set[str] = set()
    sha256: str | None = relative.sha256
    parent = relative.parent_sha256
    while sha256 is not None and sha256 not in found:
        found.add(sha256)
        sha256 = parent
        known = manifest.by_sha256(sha256) if sha256 else None
        parent = known[1].parent_sha256 if known else None
    return found
