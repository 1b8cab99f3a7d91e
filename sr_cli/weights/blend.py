"""Fidelity: weights between a model's GAN stage and the stage that it was fine-tuned from.

Network interpolation (Wang et al. 2018, "ESRGAN", section 3.4, with alpha = 1 - fidelity): because the GAN
stage starts from the other's weights, the straight line between them passes through good networks only.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli.errors import UsageError, WeightsError
from sr_cli.weights.loading import LoadedModel, load
from sr_cli.weights.manifest import ModelEntry, Stage, read_manifest
from sr_cli.weights.specs import INTERPOLATIONS, is_path

if TYPE_CHECKING:
    from sr_cli.hub import Progress
    from sr_cli.models import Generator


def load_blend(
    model: str | Path | LoadedModel, fidelity: float, *, offline: bool = False, progress: Progress | None = None
) -> LoadedModel:
    """The GAN stage of `model` with its weights drawn towards those it was fine-tuned from.

    `fidelity` 0 is the GAN stage, 1 its parent: the pixel stage, or the photo stage (itself fine-tuned from
    pixel) if that is what the manifest's `parent_sha256` names. A bare name stands for its GAN stage here,
    whatever its default is; a path must be a GAN stage that a manifest knows. The generator that comes back
    is folded already, and the checksum is one of the two files' checksums and `fidelity`.

    Raises UsageError for a fidelity outside 0..1 or a model that has no weights or is another stage,
    WeightsError where there is no GAN stage, its parent is unknown or another network, or a file cannot be had.
    """
    check(fidelity)
    if not isinstance(model, LoadedModel):
        model = load(_gan_spec(model), offline=offline, progress=progress)
    parent = load(_parent_spec(model), offline=offline, progress=progress)
    if parent.generator.config != model.generator.config:
        raise WeightsError(
            f"--fidelity: {model.name} and its parent {parent.name}:{parent.stage} are different networks"
        )
    overlaps = (model.overlap, parent.overlap)
    recipe = f"{model.sha256} {parent.sha256} {fidelity!r}"
    return replace(
        model,
        generator=blend(model.generator, parent.generator, fidelity),
        overlap=None if None in overlaps else max(o for o in overlaps if o is not None),
        sha256=hashlib.sha256(recipe.encode()).hexdigest(),
    )


def check(fidelity: float) -> None:
    """Raises UsageError unless `fidelity` is in 0..1."""
    if not 0.0 <= fidelity <= 1.0:
        raise UsageError(f"--fidelity must be between 0 (the GAN stage) and 1 (the pixel stage), not {fidelity}")


def blend(gan: Generator, pixel: Generator, fidelity: float) -> Generator:
    """A folded generator whose weights are (1 - fidelity) * gan + fidelity * pixel. Same configuration needed.

    Blended after folding, because a BatchNorm's weights and statistics act as a product: blending each
    of them would give other networks in between, and ones that depend on the scale of the convolution
    before it, which the networks themselves do not (BatchNorm divides it out).
    """
    import torch

    mixed = gan.fold()
    other = pixel.fold().state_dict()
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.lerp(value.double(), other[name].double(), fidelity))
    return mixed


def _gan_spec(model: str | Path) -> str | Path:
    """What to load for a model that the user named."""
    if is_path(model):
        return model
    name, _, stage = str(model).partition(":")
    if name in INTERPOLATIONS:
        raise UsageError(f"--fidelity blends weights, and {name} has none; leave the option out")
    if stage not in ("", "gan"):
        raise UsageError(f"--fidelity blends from the GAN stage: use -m {name} or -m {name}:gan, not {model}")
    entry = read_manifest().model(name)
    if "gan" not in entry.stages:
        raise WeightsError(
            f"--fidelity needs a GAN stage, and {name} has none (stages: {', '.join(entry.stages) or 'none yet'})"
        )
    return f"{name}:gan"


def _parent_spec(model: LoadedModel) -> str:
    """`name:stage` of what a GAN stage was fine-tuned from."""
    entry, stage = _known(model)
    if stage.name != "gan":
        raise UsageError(f"--fidelity blends from a GAN stage, and {model.path} is the {stage.name} stage")
    spec = f"{entry.name}:{stage.name}"
    if stage.parent_sha256 is None:
        raise WeightsError(
            f"--fidelity blends weights with those they were fine-tuned from, and the manifest names none for {spec}"
        )
    found = read_manifest().by_sha256(stage.parent_sha256)
    if found is None or found[1].name == "gan":
        raise WeightsError(
            f"--fidelity: the weights that {spec} was fine-tuned from ({stage.parent_sha256[:12]}...) "
            "are not a pixel or photo stage in the manifest; add them with `srup models add`"
        )
    return f"{found[0].name}:{found[1].name}"


def _known(model: LoadedModel) -> tuple[ModelEntry, Stage]:
    if model.entry is None or model.stage is None:
        raise WeightsError(
            f"--fidelity needs to know what {model.path} was fine-tuned from, and no manifest knows this file; "
            "register it with `srup models add`, or name a model"
        )
    return model.entry, model.entry.stages[model.stage]
