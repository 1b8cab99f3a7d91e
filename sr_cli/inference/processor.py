"""Name and capabilities of the processor."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """The CPU of this machine."""

    name: str  #: As it calls itself.
    has_fast_bf16: bool = False
    """It computes networks faster in bf16 than in fp32: Intel's matrix units (AMX, since Sapphire Rapids) up to five
    times, AMD's AVX512-BF16 (since Zen 4) about twice. With Intel's AVX512-BF16 alone (AMX hidden by a virtual machine)
    bf16 takes 1.1 to 1.8 times as long as fp32."""


def this_processor() -> Processor:
    """Describe the CPU this runs on; without features where the system does not tell them."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return Processor(platform.processor() or platform.machine())
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = fields.get("flags", "").split()
    amd = fields.get("vendor_id") == "AuthenticAMD"
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(name, has_fast_bf16="amx_bf16" in flags or (amd and "avx512_bf16" in flags))
