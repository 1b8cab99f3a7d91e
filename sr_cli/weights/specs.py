"""What `-m` takes: a name, a name and its stage, a file, a training run, or an interpolation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sr_cli.errors import UsageError
from sr_cli.weights.manifest import STAGES, read_manifest

INTERPOLATION_LOOKS = {
    "bicubic": "soft: plain interpolation",
    "lanczos": "soft: plain interpolation; a little sharper",
}
"""Names of the interpolations, which are Pillow's and have no weights, and the look of their results."""
INTERPOLATIONS = tuple(INTERPOLATION_LOOKS)

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx")


@dataclass(frozen=True)
class Spec:
    """What one `-m` stands for."""

    name: str  #: The model's name; of a file its name without the suffix, of a run that of its folder.
    stage: str | None  #: The stage that was asked for; None for the default one, and for a file.
    path: Path | None  #: The file or the run's folder; None for a name.

    @property
    def label(self) -> str:
        """A name that can be part of a file's: `mesrgan-pixel`."""
        return self.name if self.stage is None else f"{self.name}-{self.stage}"

    @property
    def is_interpolation(self) -> bool:
        """Whether it names plain interpolation."""
        return self.path is None and self.name in INTERPOLATIONS


def parse(spec: str | Path) -> Spec:
    """Take apart what `-m` was given; whether it exists is not looked at.

    `NAME`, `NAME:STAGE`, `FILE.safetensors`, `RUN_DIR` or `RUN_DIR:STAGE`. What has a separator of folders or the
    suffix of a weights file is a path.
    """
    text = str(spec)
    if text.lower().endswith(_FILE_SUFFIXES):
        return Spec(Path(text).stem, None, Path(text))
    if isinstance(spec, Path) or "/" in text or os.sep in text:
        # A colon can be part of a path (C:\\runs), so only one before a stage counts.
        start, _, stage = text.rpartition(":")
        folder, named = (start, stage) if start and stage in STAGES else (text, None)
        return Spec(Path(folder).resolve().name, named, Path(folder))
    name, colon, stage = text.partition(":")
    return Spec(name, stage if colon else None, None)


def is_path(spec: str | Path) -> bool:
    """Tell whether `-m` was given a file or a folder and not a name."""
    return parse(spec).path is not None


def styled(spec: str, style: str) -> str:
    """Return `NAME:STAGE` of a model in a style, `natural` or `crisp`; `spec` is what `-m` was given.

    Raises UsageError where `spec` names a stage itself or something without stages (a file, an interpolation), and
    for a style that the model does not have; WeightsError for an unknown model.
    """
    parsed = parse(spec)
    if parsed.path is not None or parsed.stage is not None or parsed.is_interpolation:
        raise UsageError(f"--style chooses the stage of a model, and -m {spec} leaves no choice; leave one of them out")
    entry = read_manifest().model(parsed.name)
    if style not in entry.style:
        have = f"only {', '.join(entry.style)}" if entry.style else "no styles"
        raise UsageError(f"--style {style}: {spec} has {have}; leave --style out, or choose another model with -m")
    return f"{parsed.name}:{entry.style[style]}"
