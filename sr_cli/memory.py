"""How much memory is really free: what the machine has left and what a container allows."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_UNKNOWN = 4 * 2**30


def _cgroup_free() -> int | None:
    """Bytes left to this process's control group (version 2), or None where there is no limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def free_bytes() -> int:
    """Bytes that can be taken without swapping; a guess of 4 GiB where the system does not tell."""
    free = _UNKNOWN
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (AttributeError, OSError, ValueError):
            return _UNKNOWN
    limited = _cgroup_free()
    return free if limited is None else min(free, limited)
