"""Photo: upright pixels, separate alpha, and all metadata that an enlargement must keep."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sr_cli.images import exif, photoshop, phrases, png_chunks, xmp
from sr_cli.images.geometry import Move

Pixels: TypeAlias = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Photo:
    """One still image in memory, upright (its EXIF orientation is already applied)."""

    pixels: Pixels  #: (H, W, C) uint8 or uint16, the full range of its type; C is 3 (RGB) or 1 (grayscale).
    alpha: Pixels | None = None
    """(H, W) of the same type, 0 transparent; never premultiplied into `pixels`. None: opaque."""
    icc_profile: bytes | None = None
    """The colour profile that gives `pixels` their meaning; pixels are not converted to another."""
    exif: bytes | None = None
    """EXIF as a TIFF structure (without the "Exif" prefix): orientation 1, no embedded thumbnail."""
    xmp: bytes | None = None  #: The XMP packet, as stored.
    iptc: bytes | None = None  #: Captions, keywords and credits as press agencies store them: IPTC-IIM records.
    dpi: tuple[float, float] | None = None  #: Printing resolution, dots per inch across and down.
    text: tuple[tuple[str, str], ...] = ()
    """Keyword and text of PNG text chunks; a JPEG or GIF comment has the keyword "Comment".

    Bytes of a comment that are no UTF-8 are kept as Python's "surrogateescape" codes."""
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Type and content of PNG colour chunks (cICP, sRGB, gAMA, cHRM), which only PNG can carry."""
    modified_ns: int | None = None  #: When the source file was last changed, nanoseconds since 1970.
    source_format: str | None = None  #: Pillow's name of the format it was read from ("JPEG", "PNG", ...).
    source_mode: str | None = None
    """How it was stored before it became gray or RGB here ("P", "CMYK", "1", "LA", "RGB;16", ...)."""
    notes: tuple[str, ...] = ()
    """Data that the reader dropped or repaired: one short phrase each. `losses` repeats them."""
    photoshop: bytes = b""  #: Photoshop's other image resources (paths, print settings, copyright flag), as stored.
    made_by: str | None = None
    """The program that made these pixels out of a photo's; it becomes the last event of the output's XMP history."""
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Type and content of further chunks that only PNG can carry (see `png_chunks`)."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3) or 0 in self.pixels.shape:
            raise ValueError(f"pixels must be (H, W, 1 or 3), got {self.pixels.shape}")
        if self.pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be uint8 or uint16, got {self.pixels.dtype}")
        if self.alpha is not None:
            if self.alpha.shape != self.pixels.shape[:2]:
                raise ValueError(f"alpha is {self.alpha.shape}, the pixels are {self.pixels.shape[:2]}")
            if self.alpha.dtype != self.pixels.dtype:
                raise ValueError(f"alpha is {self.alpha.dtype}, the pixels are {self.pixels.dtype}")

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def is_gray(self) -> bool:
        return bool(self.pixels.shape[2] == 1)

    @property
    def bits(self) -> Literal[8, 16]:
        """Bits per sample."""
        return 8 if self.pixels.dtype == np.uint8 else 16


@dataclass(kw_only=True)
class Metadata:
    """What a file says of its photo, as its reader collects it; the fields are those of `Photo`."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    photoshop: bytes = b""
    dpi: tuple[float, float] | None = None
    text: list[tuple[str, str]] = field(default_factory=list)
    colour_chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    png_chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def describe(self, photo: Photo) -> Photo:
        """Return `photo` with all of this but the profile, which belongs to the pixels and is there already."""
        found = {each.name: getattr(self, each.name) for each in fields(Metadata)}
        found |= {"icc_profile": photo.icc_profile, "notes": list(dict.fromkeys((*photo.notes, *self.notes)))}
        frozen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        return replace(photo, **frozen)


def comment(data: bytes) -> tuple[str, str]:
    """Return a comment of a JPEG or GIF as `Photo.text` has it."""
    return "Comment", data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class PhotoSequence:
    """Content of a file: one photo, the pages of a TIFF, or the frames of an animation."""

    frames: tuple[Photo, ...]
    """At least one; those of an animation are complete images of one size (already composed)."""
    kind: Literal["still", "pages", "animation"] = "still"
    durations_ms: tuple[float, ...] = ()  #: How long each frame of an animation is shown, milliseconds.
    plays: int = 0  #: How often an animation is shown; 0: for ever.

    def __post_init__(self) -> None:
        if not self.frames or (self.kind == "still") != (len(self.frames) == 1):
            raise ValueError(f"{len(self.frames)} frames cannot be a {self.kind}")
        if len(self.durations_ms) != (len(self.frames) if self.kind == "animation" else 0):
            raise ValueError(f"{len(self.durations_ms)} durations for {len(self.frames)} frames")


@dataclass(frozen=True)
class Limits:
    """Limits above which a file is refused, so that a small hostile file cannot exhaust the machine."""

    max_pixels: int = 250_000_000
    """Pixels read of one image, or of all frames of an animation together (`--max-pixels`)."""
    max_output_pixels: int = 4_000_000_000  #: Pixels of one image written (`--max-output-pixels`).
    max_frames: int = 2_000  #: Frames of an animation or pages of a file (`--max-frames`).
    max_metadata_bytes: int = 64 * 2**20
    """EXIF, XMP, IPTC, ICC profile and text together, uncompressed (`--max-metadata-bytes`)."""
    max_input_bytes: int = 2**29
    """Bytes read of standard input, a named pipe or a device, which are kept in memory (`--max-input`)."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def with_pixels(photo: Photo, pixels: Pixels, alpha: Pixels | None, *, orientation: int = 1) -> Photo:
    """Give the same photo other pixels, of any size: sizes and places in EXIF and XMP follow.

    orientation: how the pixels were turned before they were scaled, as EXIF says it (1: not at all).
    """
    height, width = pixels.shape[:2]
    move = Move((photo.width, photo.height), (width, height), orientation)
    packet = xmp.Edited(None) if photo.xmp is None else xmp.edited(photo.xmp, move)
    lost = [phrases.dropped(what) for what in packet.lost]
    resources = photo.photoshop
    if orientation != 1 and (resources := photoshop.without_paths(photo.photoshop)) != photo.photoshop:
        lost.append("paths of Photoshop are dropped: they cannot be rotated with the photo")
    return replace(
        photo,
        pixels=pixels,
        alpha=alpha,
        exif=None if photo.exif is None else exif.edited(photo.exif, move),
        xmp=packet.packet,
        dpi=photo.dpi[::-1] if photo.dpi and move.swaps else photo.dpi,
        photoshop=resources,
        png_chunks=png_chunks.moved(photo.png_chunks, move),
        notes=tuple(dict.fromkeys((*photo.notes, *lost))),
    )


def without_metadata(photo: Photo) -> Photo:
    """Keep pixels, alpha and nothing else but what gives them their colour (profile, PNG colour chunks)."""
    return replace(
        photo, exif=None, xmp=None, iptc=None, photoshop=b"", dpi=None, text=(), png_chunks=(), modified_ns=None
    )
