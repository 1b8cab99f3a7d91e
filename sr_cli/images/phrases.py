"""Words for what an output does not have, the same in all formats."""

from __future__ import annotations

_PLURAL = ("attachments", "edits")


def dropped(what: str) -> str:
    """Return that something in the file, `gain map` for instance, is not in the output."""
    return f"the {what} {'are' if any(word in _PLURAL for word in what.split()) else 'is'} dropped"


def other_images(count: int) -> str:
    """Return that `count` further images of the file are not in the output."""
    return "another image is dropped" if count == 1 else f"{count} other images are dropped"
