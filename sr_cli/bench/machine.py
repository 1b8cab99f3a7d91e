"""Facts about the machine that a time depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sr_cli import __version__
from sr_cli.inference import this_processor

if TYPE_CHECKING:
    import torch


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine: processor or accelerator, threads, versions."""
    import torch

    facts: dict[str, Any] = {
        "processor": this_processor().name,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "srup": __version__,
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    for name in ("openvino", "onnxruntime", "triton"):
        if find_spec(name):
            facts[name] = version(name)
    return facts
