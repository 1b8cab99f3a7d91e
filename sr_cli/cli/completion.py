"""Completion of half-typed values in a shell."""

from __future__ import annotations

from contextlib import suppress

from sr_cli.errors import WeightsError


def complete_model(incomplete: str) -> list[str]:
    """List the names of models and their stages that begin like this."""
    from sr_cli.weights import INTERPOLATIONS, read_manifest

    names = list(INTERPOLATIONS)
    with suppress(WeightsError):  # a broken manifest is for the command itself to report
        for entry in read_manifest().models.values():
            names += [entry.name, *(f"{entry.name}:{stage}" for stage in entry.stages)]
    return [name for name in names if name.startswith(incomplete)]
