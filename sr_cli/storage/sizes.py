"""Amounts of bytes for people."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_bytes(count: float) -> str:
    """Return `count` bytes in decimal units (SI, as disks and downloads are labelled): `730 B`, `4.2 MB`, `480 MB`."""
    unit = 0
    while abs(count) >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or abs(count) >= 99.95 else f"{count:.1f} {_UNITS[unit]}"
