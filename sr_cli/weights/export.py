"""Exports a model's weights for other programs: safetensors, BasicSR's layout, ONNX."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli.errors import UsageError, WeightsError
from sr_cli.weights.loading import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {"safetensors": (".safetensors",), "basicsr": (".pth", ".safetensors"), "onnx": (".onnx",)}
"""The formats, and the suffixes of files in each."""


def export(loaded: LoadedModel, target: Path, format: str | None = None, *, overwrite: bool = False) -> str:
    """Write a model's weights; give the format that was written.

    `safetensors`: under our names, readable by `-m`. `basicsr`: under BasicSR's, as safetensors or, with the suffix
    .pth, as a PyTorch file of the kind that BasicSR, chaiNNer and ComfyUI load: RRDBNet and MSRResNet as they are,
    MESRGAN in the form of SRVGGNetCompact (`models.compact`; in fp16, it is large). `onnx`: the folded network with
    the weights inside, from RGB in 0..1 (N, 3, H, W) to (N, 3, sH, sW), any size. Without a format the suffix decides.

    Raises UsageError for a format or suffix that does not fit, WeightsError where the network has no such
    form or the packages for it are missing, OutputError where the file cannot be written or exists.
    """
    from sr_cli.storage import atomic_output

    if format is None:
        format = {".onnx": "onnx", ".pth": "basicsr"}.get(target.suffix.lower(), "safetensors")
    if format not in SUFFIXES:
        raise UsageError(f"--format must be one of {', '.join(SUFFIXES)}, not {format!r}")
    if target.suffix.lower() not in SUFFIXES[format]:
        raise UsageError(f"{target}: the format {format} needs the suffix {' or '.join(SUFFIXES[format])}")
    data = _onnx(loaded) if format == "onnx" else _tensors(loaded, format == "basicsr", target.suffix.lower() == ".pth")
    with atomic_output(target, overwrite=overwrite) as file:
        file.write(data)
    return format


def _tensors(loaded: LoadedModel, basicsr: bool, pickle: bool) -> bytes:
    import torch
    from safetensors.torch import save

    tensors = _basicsr(loaded) if basicsr else loaded.generator.state_dict()
    state = {name: value.contiguous() for name, value in tensors.items()}
    if not pickle:
        return save(state, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save({"params": state}, buffer)
    return buffer.getvalue()


def _basicsr(loaded: LoadedModel) -> dict[str, Tensor]:
    """Build the weights of BasicSR's network that computes the same. Raises WeightsError where there is none."""
    from sr_cli.models import compact, mesrgan, rrdbnet

    generator = loaded.generator
    family = generator.config.family
    if family == "rrdbnet":
        return rrdbnet.to_basicsr(generator.state_dict())
    if family == "msrresnet":
        return generator.state_dict()
    if isinstance(generator, mesrgan.Mesrgan) and generator.config.upsampler != "full":
        return {name: value.half() for name, value in compact.to_compact(generator).items()}
    raise WeightsError(
        f"{loaded.name} is a network of the family {family!r} that BasicSR has no form of; "
        "export it to a file that ends in .onnx, which chaiNNer opens as well"
    )


def _onnx(loaded: LoadedModel) -> bytes:
    from sr_cli.models.onnx import to_onnx

    try:
        return to_onnx(loaded.generator)
    except ImportError:
        raise WeightsError("exporting to ONNX needs further packages: pip install 'srup[onnx]'") from None
