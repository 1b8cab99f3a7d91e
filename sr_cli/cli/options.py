"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import typer

from sr_cli.errors import UsageError

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, fp16 or bf16.")]
Tile = Annotated[
    str, typer.Option("--tile", help="Side of a tile's core in input pixels; 0: the whole image at once; auto.")
]
Overlap = Annotated[
    str, typer.Option("--overlap", help="Input pixels that tiles see beyond their core: auto, full, or a number.")
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        "--fidelity", metavar="0..1", help="Between the GAN stage (0) and the stage it was fine-tuned from (1)."
    ),
]
Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="Average the eight flips and rotations: 8 times slower, slightly better.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--json-lines", help="Print one JSON line per event.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no notes.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="More notes.")]


def tile(text: str) -> int | Literal["auto"]:
    """The value of `--tile`. Raises UsageError."""
    return "auto" if text == "auto" else _number(text, "--tile", "auto")


def overlap(text: str) -> int | Literal["auto", "full"]:
    """The value of `--overlap`. Raises UsageError."""
    if text == "auto" or text == "full":
        return "auto" if text == "auto" else "full"
    return _number(text, "--overlap", "auto, full")


def _number(text: str, option: str, words: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{option} must be {words} or a number of at least 0, not {text!r}")
    return int(text)


def complete_model(incomplete: str) -> list[str]:
    """For shell completion: names of models and their stages that begin like this."""
    from sr_cli.errors import WeightsError
    from sr_cli.weights import read_manifest

    names = ["bicubic", "lanczos"]
    with suppress(WeightsError):  # a broken manifest is for the command itself to report
        for entry in read_manifest().models.values():
            names += [entry.name, *(f"{entry.name}:{stage}" for stage in entry.stages)]
    return [name for name in names if name.startswith(incomplete)]
