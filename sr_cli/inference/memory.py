"""How much memory is free and how much is taken, and keeping what was freed mapped."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")


def _cgroup(field: str) -> int | None:
    """Read a value of this process's control group (version 2), None where there is none or no limit."""
    try:
        text = (_CGROUP / field).read_text().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def free_bytes() -> int:
    """Return the bytes that can be taken without swapping; half of all where the system does not tell."""
    try:
        free = _proc_bytes("meminfo", "MemAvailable")
    except OSError:
        free = total_bytes() // 2
    except ValueError:  # Linux before 3.14 and WSL 1 have the file without the line
        free = 4 * 2**30
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    return free if limit is None or used is None else min(free, max(0, limit - used))


def total_bytes() -> int:
    """Return the bytes that this process may have at most, free or not; 8 GiB where the system does not tell."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        total = 8 * 2**30
    limit = _cgroup("memory.max")
    return total if limit is None else min(total, limit)


def device_bytes(device: torch.device) -> tuple[int, int]:
    """Return the bytes free and in all on a device. What torch has reserved and does not use is free."""
    import torch

    if device.type != "cuda":
        return free_bytes(), total_bytes()
    free, total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total


# glibc's malloc.h: parameters of mallopt.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BELOW = 2**30


def keep_freed_memory() -> bool:
    """Tell the C library to reuse freed memory instead of returning it to the system; True where it could.

    By default glibc gets large blocks from the kernel and gives them back when they are freed. A network
    allocates and frees some hundred activations of many megabytes per tile; the kernel then has to map and
    zero every page again, which on a CPU takes longer than the arithmetic (docs/speed-log.md). Other systems'
    C libraries have no such switch: nothing changes there.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, musl for one
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BELOW)) and bool(mallopt(_M_TRIM_THRESHOLD, 2 * _KEEP_BELOW - 1))


def peak_during(work: Callable[[], object]) -> int | None:
    """Measure the bytes that `work` took at most beyond what the process had; None where the system does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory kept from before would hide what `work` needs
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark, see proc(5)
        before = _proc_bytes("self/status", "VmHWM")
        work()
        return _proc_bytes("self/status", "VmHWM") - before
    except (OSError, AttributeError, ValueError):
        return None


def _proc_bytes(file: str, field: str) -> int:
    """Read an amount of memory of proc(5). Raises OSError, or ValueError where it is not there."""
    for line in Path("/proc", file).read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{file} has no {field}")
