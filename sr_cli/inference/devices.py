"""Devices and precisions: which there are, and what `auto` stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_cli.errors import UsageError
from sr_cli.inference.processor import Processor, this_processor

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "fp16", "bf16")  #: Values of `--precision`.

BF16_SHARE = 0.999  #: Share of output values that must be within 1 level of fp32 for `auto` to take bf16 on a CPU.


def choose_device(name: str) -> torch.device:
    """Choose `auto` (cuda, else mps, else cpu) or a named device. Raises UsageError where it is not there."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unsupported device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count() if cuda else 0
        raise UsageError(f"no device {name!r} here ({found} CUDA devices found); use --device cpu or auto")
    if device.type == "mps" and not mps:
        raise UsageError("no Apple GPU (mps) here; use --device cpu or auto")
    return device


@dataclass(frozen=True)
class WorkerDevice:
    """Device and threads of one of several processes."""

    device: str  #: `cpu` or `cuda:N`.
    share: int = 1  #: Processes that share the cores.

    def threads(self) -> int | None:
        """Return the threads of the CPU that are its part; None: as torch chooses. Imports torch if there is a part."""
        if self.share == 1:
            return None
        import torch

        return max(1, torch.get_num_threads() // self.share)


def choose_devices(text: str) -> tuple[WorkerDevice, ...]:
    """Return the devices that `all` (GPUs), `0,1,...` or `cpu:N` (N processes that share the cores) stand for.

    Raises UsageError for other words and for a device that is not there.
    """
    if match := re.fullmatch(r"cpu:([1-9]\d{0,2})", text):
        count = int(match[1])
        return (WorkerDevice("cpu", count),) * count
    import torch

    if text == "all":
        if not torch.cuda.is_available():
            raise UsageError("--devices all: no CUDA devices here; cpu:2 shares the processor between two processes")
        numbers = list(range(torch.cuda.device_count()))
    elif re.fullmatch(r"\d{1,3}(,\d{1,3})*", text):
        numbers = [int(number) for number in text.split(",")]
    else:
        raise UsageError(f"--devices is all, numbers of GPUs such as 0,1, or cpu:N, not {text!r}")
    return tuple(WorkerDevice(str(choose_device(f"cuda:{number}"))) for number in dict.fromkeys(numbers))


def choose_precision(
    name: str, device: str, bf16_share: float | None = None, processor: Processor | None = None
) -> tuple[str, str]:
    """Choose the precision that `auto` or a name stands for on a type of device (`cpu`, `cuda`, `mps`), and say why.

    `bf16_share` is the share of output values that bf16 keeps within 1 level with the weights at hand, None where
    that was not measured. Raises UsageError for an unknown name.
    """
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; use {', '.join(PRECISIONS)}")
    if name != "auto":
        return name, "asked for"
    if device == "cuda":
        return "fp16", "twice as fast as fp32 on a GPU, and within a level of it"
    if device == "mps":
        return "fp32", "fp16 has not been measured on this kind of device"
    if not (processor or this_processor()).has_fast_bf16:
        return "fp32", "bf16 is not known to be faster on this processor"
    if bf16_share is None:
        return "fp32", "what bf16 changes with these weights has not been measured"
    kept = f"bf16 keeps {100 * bf16_share:.3f} % of the values within 1 level of fp32 with these weights"
    if bf16_share < BF16_SHARE:
        return "fp32", f"{kept}, fewer than {100 * BF16_SHARE:.1f} %"
    return "bf16", f"the processor computes bf16 at about twice the speed of fp32 or more, and {kept}"


def dtype_of(precision: str) -> torch.dtype:
    """Return torch's type for `fp32`, `fp16` or `bf16`."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
