"""Animations as complete images: frames of APNG composed by its specification, all others by Pillow's decoders."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.images import colour, png
from sr_cli.images.photo import Photo, PhotoSequence, Pixels
from sr_cli.images.source import Source

FORMATS = ("GIF", "WEBP", "AVIF")  #: Pillow's names of the formats whose frames Pillow composes.
_BACKGROUND, _PREVIOUS = 1, 2
_OVER = 1


def read_frames(source: Source, image: Image.Image, profile: bytes | None) -> PhotoSequence:
    """Read all frames of a GIF, WebP or AVIF as complete images of one kind. Raises InputError over a limit."""
    count: int = image.n_frames  # type: ignore[attr-defined]
    source.check_pixels(image.width, image.height, count)
    frames, durations = [], []
    frames_size = image.size
    for index in range(count):
        image.seek(index)
        source.check_pixels(image.width, image.height, count)  # a frame may be larger than those before
        image.load()
        # The screen has the size of the first frame; viewers crop what is outside.
        frame = image.convert("RGBA")
        frames.append(np.array(frame if frame.size == frames_size else frame.crop((0, 0, *frames_size))))
        durations.append(max(0.0, float(image.info.get("duration", 0))))
    photos = _of_one_kind(frames, profile, str(image.format), image.mode)
    return _sequence(photos, durations, _plays(image))


def _plays(image: Image.Image) -> int:
    """Return how often an animation is shown. GIF counts repetitions and plays once if it says nothing."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop + 1 if loop else 0
    return int(loop or 0)


def read_apng(source: Source, contents: png.Contents) -> PhotoSequence:
    """Read all frames of an animated PNG, composed. Raises InputError over a limit, ValueError if they are damaged.

    Source: W3C, "PNG Specification (Third Edition)", 2025, 11.3.6 and 13.13.3 (dispose and blend operations).
    """
    source.check_pixels(contents.width, contents.height, len(contents.frames))
    deep = contents.bits == 16
    canvas: Pixels = np.zeros((contents.height, contents.width, 4), np.uint16 if deep else np.uint8)
    frames, durations = [], []
    for index, frame in enumerate(contents.frames):
        area = canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
        if frame.width < 1 or frame.height < 1 or area.shape[:2] != (frame.height, frame.width):
            raise ValueError("a frame is outside the image")
        before = area.copy()
        drawn = (_deep_frame if deep else _frame)(source, contents, frame)
        area[...] = _over(drawn, before) if frame.blend == _OVER else drawn
        frames.append(canvas.copy())
        durations.append(frame.delay_ms)
        if frame.dispose == _PREVIOUS and index > 0:
            area[...] = before
        elif frame.dispose in (_BACKGROUND, _PREVIOUS):  # of the first frame, there is nothing before
            area[...] = 0
    if contents.hides_still:
        contents.notes.append("the still image for programs without animations is dropped")
    photos = _of_one_kind(frames, contents.icc_profile, "PNG", "16 bits" if deep else "RGBA")
    return _sequence(photos, durations, contents.plays)


def _over(drawn: Pixels, below: Pixels) -> Pixels:
    """Lay one image over another (13.16): colours and alpha (H, W, 4), not premultiplied."""
    top = np.iinfo(drawn.dtype).max
    front = drawn[..., 3:].astype(np.float64) / top
    back = below[..., 3:].astype(np.float64) / top * (1 - front)
    alpha = front + back
    colours = (drawn[..., :3] * front + below[..., :3] * back) / np.where(alpha == 0, 1, alpha)
    return np.rint(np.concatenate([colours, alpha * top], axis=2)).astype(drawn.dtype)


def _frame(source: Source, contents: png.Contents, frame: png.Frame) -> Pixels:
    """Decode a frame's own 8-bit pixels (h, w, 4), by Pillow as a still image of its size."""
    header = struct.pack(">IIBBBBB", frame.width, frame.height, contents.bits, contents.colour_type, 0, 0,
                         contents.interlaced)  # fmt: skip
    chunks = [(b"IHDR", header)]
    chunks += [(kind, data) for kind, data in ((b"PLTE", contents.palette), (b"tRNS", contents.transparency)) if data]
    chunks += [(b"IDAT", png.pixel_data(source, frame.pieces)), (b"IEND", b"")]
    still = io.BytesIO(png.SIGNATURE + b"".join(png.chunk(kind, data) for kind, data in chunks))
    with Image.open(still, formats=["PNG"]) as image:
        return np.array(image.convert("RGBA"))


def _deep_frame(source: Source, contents: png.Contents, frame: png.Frame) -> Pixels:
    """Decode a frame's own 16-bit pixels (h, w, 4)."""
    still = replace(contents, width=frame.width, height=frame.height)
    photo = png.decoded_16_bits(png.pixel_data(source, frame.pieces), still)
    colours = np.repeat(photo.pixels, 3, axis=2) if photo.is_gray else photo.pixels
    alpha = np.full(colours.shape[:2], 65535, np.uint16) if photo.alpha is None else photo.alpha
    return np.dstack([colours, alpha])


def _of_one_kind(frames: list[NDArray[Any]], profile: bytes | None, format: str, mode: str) -> tuple[Photo, ...]:
    """Turn frames (H, W, 4) into photos that are all gray or all RGB, all with alpha or all without.

    They are gray only if their profile does not say that they are RGB.
    """
    top = np.iinfo(frames[0].dtype).max
    opaque = all(bool((frame[..., 3] == top).all()) for frame in frames)
    gray = not (profile and colour.space(profile) == b"RGB ") and all(
        bool((frame[..., :2] == frame[..., 1:3]).all()) for frame in frames
    )
    profile = colour.fitting(profile, gray=gray)
    return tuple(
        Photo(
            np.ascontiguousarray(frame[..., : 1 if gray else 3]),
            None if opaque else np.ascontiguousarray(frame[..., 3]),
            profile,
            source_format=format,
            source_mode=mode,
        )
        for frame in frames
    )


def _sequence(photos: tuple[Photo, ...], durations: list[float], plays: int) -> PhotoSequence:
    if len(photos) == 1:
        return PhotoSequence(photos)
    return PhotoSequence(photos, "animation", tuple(durations), plays)
