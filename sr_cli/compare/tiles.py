"""Photos cut into tiles at several sizes, encoded within a budget of bytes."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from sr_cli.errors import UsageError
from sr_cli.metrics import differences

TILE = 512  #: Pixels a side of a tile.
MARGIN = 8
"""Pixels that a tile holds beyond its own on each side. The page does not show them; without, lossy tiles would
meet in visible steps (measured: errors jump by twice as much at a seam as elsewhere; with 8, as elsewhere)."""
STEP = 4  #: How much smaller each level of the pyramid is than the one before.
LOSSLESS = 100
LOSSY = {"AVIF": (90, 80, 72, 66, 60, 55, 50, 45, 40), "WEBP": (95, 90, 84, 76, 68, 60)}
"""Qualities that are tried, best first. AVIF, which keeps colour at full resolution, is 1 dB better at equal size."""
_SAMPLES = 40
_LOSSLESS_BYTES = 0.2  #: Bytes a pixel below which lossless is not worth a try: enlargements need 0.3 to 0.6.
_BASE64 = 4 / 3

Picture = NDArray[np.uint8]  #: (H, W, 3).
OnTile = Callable[[int, int], None]  #: Called with the tiles encoded and their total.


@dataclass(frozen=True)
class Tile:
    """A tile to encode."""

    layer: int  #: Which photo.
    level: int  #: Which size of it; 0 is the full one.
    index: int  #: Which tile, row by row.
    rows: slice  #: Its rows, margin included.
    columns: slice  #: Its columns, margin included.

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)


@dataclass(frozen=True)
class Level:
    """One size of a photo."""

    width: int  #: Its columns.
    height: int  #: Its rows.
    tiles: tuple[bytes | None, ...]  #: Their files, row by row; None where full size had no room.

    def record(self) -> dict[str, Any]:
        """Return what the page reads."""
        tiles = [None if tile is None else base64.b64encode(tile).decode("ascii") for tile in self.tiles]
        return {"width": self.width, "height": self.height, "tiles": tiles}


@dataclass(frozen=True)
class Pyramid:
    """All tiles of all photos."""

    pictures: tuple[tuple[Level, ...], ...]  #: For each photo its sizes, the full one first.
    format: str  #: `WEBP` or `AVIF`.
    quality: int  #: The encoder's quality; LOSSLESS means what it says.
    coverage: float  #: Share of the full-size tiles that are there.


def levels(picture: Picture) -> list[Picture]:
    """Return a photo (H, W, 3) and its reductions by STEP each, down to one that fits a tile."""
    found = [picture]
    while max(found[-1].shape[:2]) > TILE:
        found.append(_reduced(found[-1]))
    return found


def _reduced(picture: Picture) -> Picture:
    """Return a photo reduced by STEP, the mean of each square, computed in strips: it may be on disk."""
    height, width = picture.shape[:2]
    reduced = np.empty((-(-height // STEP), -(-width // STEP), 3), np.uint8)
    for top in range(0, height, TILE):
        strip = Image.fromarray(np.ascontiguousarray(picture[top : top + TILE])).reduce(STEP)
        reduced[top // STEP : top // STEP + strip.height] = np.asarray(strip)
    return reduced


def _tiles(pictures: Sequence[Sequence[Picture]]) -> Iterator[Tile]:
    for layer, sizes in enumerate(pictures):
        for level, picture in enumerate(sizes):
            height, width = picture.shape[:2]
            places = [(rows, columns) for rows in _parts(height) for columns in _parts(width)]
            for index, (rows, columns) in enumerate(places):
                yield Tile(layer, level, index, rows, columns)


def _parts(length: int) -> list[slice]:
    """Return one axis cut into tiles with their margins."""
    return [slice(max(0, start - MARGIN), min(length, start + TILE + MARGIN)) for start in range(0, length, TILE)]


def lossy_format() -> str:
    """Return AVIF where Pillow was built with it, else WebP."""
    return "AVIF" if features.check("avif") else "WEBP"


def encode(pixels: Picture, quality: int) -> bytes:
    """Return a tile in the lossy format, or as lossless WebP."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if quality == LOSSLESS:
        image.save(file, "WEBP", lossless=True, quality=30, method=2)
    elif lossy_format() == "AVIF":
        image.save(file, "AVIF", quality=quality, subsampling="4:4:4", speed=10, max_threads=1)
    else:
        image.save(file, "WEBP", quality=quality, method=3)
    return file.getvalue()


def build(pictures: Sequence[Picture], budget: int, on_tile: OnTile | None = None) -> Pyramid:
    """Return tiles of all photos in at most `budget` bytes of base64, at the best quality that allows.

    Where even the lowest does not, full-size tiles are left out, those with the least differences between
    the photos (all but the first, the original) first; smaller sizes are always there. Raises UsageError
    where even those do not fit.
    """
    sized = [levels(picture) for picture in pictures]
    tiles = list(_tiles(sized))
    room = int(budget / _BASE64)

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def encode_all(some: Sequence[Tile], quality: int, on_tile: OnTile | None = None) -> list[bytes]:
            encoded = []
            parts = (sized[tile.layer][tile.level][tile.rows, tile.columns] for tile in some)
            for one in pool.map(partial(encode, quality=quality), parts):
                encoded.append(one)
                if on_tile:
                    on_tile(len(encoded), len(some))
            return encoded

        qualities = (LOSSLESS, *LOSSY[lossy_format()])
        quality = _choose_quality(qualities, tiles, room, encode_all)
        encoded = encode_all(tiles, quality, on_tile)
        while sum(map(len, encoded)) > room and quality != qualities[-1]:  # the estimate was too low
            quality = qualities[qualities.index(quality) + 1]
            encoded = encode_all(tiles, quality, on_tile)
    kept = _within(tiles, encoded, pictures, room)
    files: dict[tuple[int, int], list[bytes | None]] = {}
    for tile, data in zip(tiles, kept, strict=True):
        files.setdefault((tile.layer, tile.level), []).append(data)
    done = tuple(
        tuple(Level(size.shape[1], size.shape[0], tuple(files[layer, level])) for level, size in enumerate(sizes))
        for layer, sizes in enumerate(sized)
    )
    full = [tile is not None for picture in done for tile in picture[0].tiles]
    return Pyramid(done, "WEBP" if quality == LOSSLESS else lossy_format(), quality, sum(full) / len(full))


def _choose_quality(
    qualities: Sequence[int], tiles: list[Tile], room: int, encode_all: Callable[[list[Tile], int], list[bytes]]
) -> int:
    """Return the best quality at which all tiles seem to fit, judged by some tiles of each level."""
    groups = [[tile for tile in tiles if bool(tile.level) == reduced] for reduced in (False, True)]
    for quality in qualities[:-1]:
        if quality == LOSSLESS and sum(tile.area for tile in tiles) * _LOSSLESS_BYTES > room:
            continue
        total = 0.0
        for group in filter(None, groups):
            some = group[:: max(1, len(group) // _SAMPLES)]
            density = sum(map(len, encode_all(some, quality))) / sum(tile.area for tile in some)
            total += density * sum(tile.area for tile in group)
        if total <= 0.97 * room:
            return quality
    return qualities[-1]


def _within(tiles: list[Tile], encoded: list[bytes], pictures: Sequence[Picture], room: int) -> list[bytes | None]:
    """Return the encoded tiles; None for the full-size ones that do not fit, where the photos differ least."""
    excess = sum(map(len, encoded)) - room
    kept: list[bytes | None] = list(encoded)
    if excess <= 0:
        return kept
    compared = pictures[1:] if len(pictures) > 2 else pictures
    height, width = compared[0].shape[:2]
    luma = differences.difference_map(compared, min(TILE // 8, height, width))
    columns = -(-width // TILE)

    def difference(index: int) -> float:
        part = luma[8 * (index // columns) :, 8 * (index % columns) :][:8, :8]
        return float(part.mean()) if part.size else 0.0  # a last tile of a few pixels has no block of its own

    places: dict[int, list[int]] = {}
    for position, tile in enumerate(tiles):
        if tile.level == 0 and tile.layer > 0:
            places.setdefault(tile.index, []).append(position)
    for index in sorted(places, key=difference):
        if excess <= 0:
            return kept
        for position in places[index]:
            excess -= len(encoded[position])
            kept[position] = None
    if excess > 0:
        raise UsageError("even reduced images need a larger page than that; raise --max-mb or use --crop")
    return kept
