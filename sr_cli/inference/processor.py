"""Name and capabilities of the processor."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """The CPU of this machine."""

    name: str
    """As it calls itself."""
    has_amx: bool = False
    """It multiplies matrices of bf16 in hardware (Intel since Sapphire Rapids): several times faster than fp32."""
    has_bf16: bool = False
    """It multiplies bf16 numbers itself (Intel since Cooper Lake, AMD since Zen 4), at up to twice fp32's speed."""


def this_processor() -> Processor:
    """Describe the CPU this runs on; without features where the system does not tell them."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return Processor(platform.processor() or platform.machine())
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = fields.get("flags", "").split()
    amx = "amx_bf16" in flags
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(name, has_amx=amx, has_bf16=amx or "avx512_bf16" in flags)
