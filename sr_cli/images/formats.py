"""The formats by name: which we open, which we write, under which suffixes, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sr_cli.errors import UsageError


@dataclass(frozen=True)
class OutputFormat:
    """A format that we write."""

    name: str  #: Pillow's name.
    suffixes: tuple[str, ...]  #: File suffixes in lower case, the usual one first.
    max_side: int  #: Longest side in pixels.
    gray: bool  #: Whether it stores grayscale as such.
    alpha: bool  #: Whether it stores transparency.
    sixteen_bits: bool  #: Whether it stores 16 bits per sample.
    several: Literal["", "pages", "animation"] = ""  #: Kind of a file with several images in this format.

    @property
    def mime(self) -> str:
        """The format's media type."""
        return f"image/{self.name.lower()}"


PNG = OutputFormat("PNG", (".png", ".apng"), 2**31 - 1, gray=True, alpha=True, sixteen_bits=True, several="animation")
JPEG = OutputFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, gray=True, alpha=False, sixteen_bits=False)
WEBP = OutputFormat("WEBP", (".webp",), 16_383, gray=False, alpha=True, sixteen_bits=False, several="animation")
TIFF = OutputFormat("TIFF", (".tif", ".tiff"), 2**31 - 1, gray=True, alpha=True, sixteen_bits=True, several="pages")
# 256 colours a frame: for animations, whose viewers often know nothing else.
GIF = OutputFormat("GIF", (".gif",), 65_535, gray=True, alpha=True, sixteen_bits=False, several="animation")
OUTPUT_FORMATS = (PNG, JPEG, WEBP, TIFF, GIF)

# A GIF's frame lasts 16 bits of 1/100 s; a WebP's time is 31 bits of 1/1000 s for all (of up to 2,000) frames.
LONGEST_MS = {"GIF": 655_350, "WEBP": 1_000_000}  #: How long a frame can be shown, by format.

READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow's names of the formats that are opened at all; files of any other are refused unread."""
READABLE_SUFFIXES = frozenset(
    {suffix for output in OUTPUT_FORMATS for suffix in output.suffixes}
    | {".bmp", ".dib", ".avif", ".avifs", ".heic", ".heif", ".mpo"}
)
"""Suffixes of photos in a folder. A file that is given by name is opened with any suffix: its content decides."""


def writable_suffixes() -> str:
    """List the usual suffix of each output format, for messages."""
    return ", ".join(output.suffixes[0] for output in OUTPUT_FORMATS)


def by_suffix(path: Path) -> OutputFormat | None:
    """Return the output format that a file name stands for, if it is one of ours."""
    suffix = path.suffix.lower()
    return next((output for output in OUTPUT_FORMATS if suffix in output.suffixes), None)


def default_suffix(source: Path, kind: str = "still") -> str:
    """Return the default suffix of an output: the input's if that format keeps the quality, else PNG's."""
    output = by_suffix(source)
    if output is None or (output is GIF and kind != "animation"):
        return ".png"  # GIF's 256 colours are kept for animations
    return source.suffix


def by_name(name: str) -> OutputFormat:
    """Return the output format of a `--format` value ("png", "jpg", ".tiff", ...). Raises UsageError."""
    wanted = name.lower().removeprefix(".")
    for output in OUTPUT_FORMATS:
        if wanted == output.name.lower() or f".{wanted}" in output.suffixes:
            return output
    raise UsageError(f"{name}: not a format that can be written; choose one of {writable_suffixes()}")


def for_target(target: Path, name: str | None = None) -> OutputFormat:
    """Return the format to write `target` in. Raises UsageError for a suffix or name that stands for none of ours."""
    meant = by_suffix(target)
    if name is not None:
        chosen = by_name(name)
        if meant not in (None, chosen):
            raise UsageError(
                f"{target}: its suffix says {meant.name if meant else ''}, the format asked for {chosen.name}"
            )
        return chosen
    if meant is None:
        problem = f"cannot write {target.suffix}" if target.suffix else "its name has no suffix that tells the format"
        raise UsageError(f"{target}: {problem}; choose one of {writable_suffixes()}")
    return meant


def check_size(output: OutputFormat, width: int, height: int) -> None:
    """Raise UsageError if the format cannot hold an image of this size."""
    if max(width, height) > output.max_side:
        raise UsageError(
            f"{width}x{height} is too large for {output.name}, which ends at {output.max_side:,} pixels a side; "
            "write PNG or TIFF"
        )


def check_several(output: OutputFormat, kind: str, count: int) -> None:
    """Raise UsageError if the format cannot hold pages or an animation ("pages", "animation"; "still" always)."""
    if kind not in ("still", output.several):
        fitting = ", ".join(other.suffixes[0] for other in OUTPUT_FORMATS if other.several == kind)
        what = "frames of an animation" if kind == "animation" else "pages"
        raise UsageError(f"{output.name} cannot hold the {count} {what}; write one of {fitting}")
