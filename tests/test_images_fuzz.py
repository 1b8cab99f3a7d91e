"""Damaged and hostile files: bytes flipped, cut, repeated and spliced in real files of every format we open.

Whatever the bytes, reading ends with a picture or with one clear line; what was read can be written; and
`srup upscale` leaves complete outputs and no others. The normal run mutates a few hundred files. For the long
one say how many:

    SRUP_FUZZ_FILES=10000 python -m pytest -m slow tests/test_images_fuzz.py
"""

from __future__ import annotations

import faulthandler
import functools
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from sr_cli.errors import SrupError
from sr_cli.images import (
    Limits,
    Photo,
    PhotoSequence,
    WriteOptions,
    default_suffix,
    probe,
    read,
    read_all,
    with_pixels,
    write,
    write_all,
)

LONG = int(os.environ.get("SRUP_FUZZ_FILES", "10000"))
LIMITS = Limits(max_pixels=1_000_000, max_frames=50, max_metadata_bytes=1_000_000)
HANGS_AFTER_S, SLOW_CPU_S, GREEDY_MB = 120, 10, 300
KINDS = Path(__file__).parent / "data/kinds"


def scene(channels: int, bits: int = 8, height: int = 21, width: int = 33) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(channels + bits)
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([(x * (5 + c) + y * 3) % 200 for c in range(channels)], axis=2) + rng.integers(0, 20)
    return (planes * 257).astype(np.uint16) if bits == 16 else planes.astype(np.uint8)


def metadata() -> dict[str, Any]:
    """EXIF with a directory in a directory, an XMP packet, a profile, text."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8769).update({0xA002: 33, 0xA003: 21, 0x927C: b"note" * 20})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 0.0)})
    return {
        "exif": exif.tobytes().removeprefix(b"Exif\0\0"),
        "xmp": (
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
        ),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "iptc": b"\x1c\x02\x78\0\x05Hello",
        "dpi": (300.0, 300.0),
        "text": (("Title", "a"), ("Author", "山田")),
    }


def ours(channels: int, format: str, bits: int = 8, alpha: bool = False, **options: Any) -> bytes:
    samples = scene(channels + alpha, bits)
    photo = Photo(samples[..., :channels], samples[..., -1] if alpha else None, **metadata())
    file = io.BytesIO()
    write(photo, file, format=format, **options)
    return file.getvalue()


def ours_moving(format: str, kind: Any, alpha: bool = False) -> bytes:
    frames = []
    for n in range(3):
        samples = scene(4)
        samples[4:9, 4 * n : 4 * n + 8] = (255, 0, 0, 255)
        frames.append(Photo(samples[..., :3], samples[..., 3] if alpha else None))
    file = io.BytesIO()
    durations = (40.0, 50.0, 60.0) if kind == "animation" else ()
    write_all(PhotoSequence(tuple(frames), kind, durations), file, WriteOptions(format))
    return file.getvalue()


def pillows(mode: str, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene(3)).convert(mode).save(file, format, **options)
    return file.getvalue()


def with_child(photometric: str) -> bytes:
    """A TIFF with a small copy first and the picture, or a sensor's data, in a child directory."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(scene(3), subfiletype=1, subifds=1, photometric="rgb")
        child = scene(3, 16) if photometric == "rgb" else scene(1, 16)[..., 0]
        writer.write(child, photometric=photometric, compression="zlib")
    return file.getvalue()


@functools.cache
def corpus() -> dict[str, bytes]:
    """Small sound files, by name with their suffix."""
    files = {
        "rgb.jpg": ours(3, "jpeg"),
        "gray.jpg": ours(1, "jpeg"),
        "progressive.jpg": pillows("RGB", "JPEG", progressive=True),
        "ink.jpg": pillows("CMYK", "JPEG"),
        "several.jpg": pillows("RGB", "MPO", save_all=True, append_images=[Image.fromarray(scene(3))]),
        "rgb.png": ours(3, "png"),
        "rgba.png": ours(3, "png", alpha=True),
        "deep.png": ours(3, "png", bits=16),
        "deep-rgba.png": ours(3, "png", bits=16, alpha=True),
        "deep-gray-alpha.png": ours(1, "png", bits=16, alpha=True),
        "palette.png": pillows("P", "PNG", transparency=b"\0\x80"),
        "bit.png": pillows("1", "PNG"),
        "moving.png": ours_moving("png", "animation"),
        "moving-alpha.png": ours_moving("png", "animation", alpha=True),
        "lossy.webp": ours(3, "webp"),
        "lossless.webp": ours(3, "webp", alpha=True, quality=100),
        "moving.webp": ours_moving("webp", "animation"),
        "deflate.tif": ours(3, "tiff", alpha=True),
        "deep.tif": ours(3, "tiff", bits=16),
        "pages.tif": ours_moving("tiff", "pages"),
        "raw.tif": pillows("RGB", "TIFF"),
        "lzw.tif": pillows("RGB", "TIFF", compression="tiff_lzw"),
        "jpeg.tif": pillows("RGB", "TIFF", compression="jpeg"),
        "fax.tif": pillows("1", "TIFF", compression="group4"),
        "ink.tif": pillows("CMYK", "TIFF"),
        "rgb.bmp": pillows("RGB", "BMP"),
        "palette.bmp": pillows("P", "BMP"),
        "still.gif": pillows("P", "GIF"),
        "moving.gif": ours_moving("gif", "animation", alpha=True),
    }
    files["child.tif"] = with_child("rgb")
    files["raw.dng"] = with_child("cfa")
    # Files of other programs: ink, Lab, tiles, planes, HEIC, metadata of all kinds.
    files |= {path.name: path.read_bytes() for path in sorted(KINDS.iterdir()) if path.stat().st_size < 20_000}
    files["picture.heic"] = (KINDS.parent / "picture.heic").read_bytes()
    if features.check("avif"):
        files["rgb.avif"] = pillows("RGB", "AVIF", speed=10)
    return files


def flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 5, 30))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def poke(data: bytearray, random: Random) -> None:
    """A number of two to eight bytes, of the kind that counts, sizes and offsets go wrong with."""
    value = random.choice((0, 1, 2**7, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, len(data)))
    packed = struct.pack(random.choice("<>") + "Q", value)
    size = random.choice((2, 4, 8))
    at = random.randrange(len(data))
    data[at : at + size] = packed[:size] if random.random() < 0.5 else packed[-size:]


def poke_head(data: bytearray, random: Random) -> None:
    """The same in the first bytes, where headers and directories are."""
    head = data[:200]
    poke(head, random)
    data[:200] = head


def cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(1, len(data)) :]


def remove(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 4, 50, 500))]


def repeat(data: bytearray, random: Random) -> None:
    at, size = random.randrange(len(data)), random.choice((1, 4, 12, 100, 1000))
    data[at:at] = data[at : at + size] * random.choice((1, 2, 50))


def splice(data: bytearray, random: Random) -> None:
    other = random.choice(list(corpus().values()))
    start, at = random.randrange(len(other)), random.randrange(len(data))
    size = random.choice((4, 30, 300, 3000))
    data[at : at + random.choice((0, size))] = other[start : start + size]


def mend(data: bytearray, random: Random) -> None:
    """Right checksums for the chunks of a PNG, so that what was changed in them is looked at."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (flip, flip, poke, poke_head, cut, remove, repeat, splice)


def mutated(name: str, seed: int) -> bytes:
    random, data = Random(seed), bytearray(corpus()[name])
    for _ in range(random.choice((1, 1, 2, 4))):
        if data:
            random.choice(MUTATIONS)(data, random)
    if random.random() < 0.7:
        mend(data, random)
    return bytes(data)


def attempt(function: Callable[[], Any]) -> Any:
    """What the function gives, or None after an error of one line. Any other error passes through."""
    try:
        return function()
    except SrupError as error:
        if "\n" in str(error):
            raise AssertionError("more than one line") from error
        return None


def check(name: str, seed: int) -> bool:
    """Whether the mutated file is still a picture. Anything but a `SrupError` of one line passes through."""
    data = mutated(name, seed)
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    before, started = peak_memory_mb(), time.process_time()
    try:
        attempt(lambda: probe(io.BytesIO(data), limits=LIMITS))
        first = attempt(lambda: read(io.BytesIO(data), limits=LIMITS))
        sequence = attempt(lambda: read_all(io.BytesIO(data), limits=LIMITS))
        if sequence is None:
            return first is not None
        for format in ("png", "jpeg", "webp", "tiff", "gif"):
            written = attempt(lambda format=format: encoded(sequence, format))
            if written and format in ("png", "tiff"):
                again = read_all(io.BytesIO(written))
                np.testing.assert_array_equal(again.frames[0].pixels, sequence.frames[0].pixels)
        return True
    finally:
        if time.process_time() - started > SLOW_CPU_S:
            raise AssertionError(f"{name} with seed {seed} took more than {SLOW_CPU_S} s")
        if peak_memory_mb() - before > GREEDY_MB:
            raise AssertionError(f"{name} with seed {seed} took more than {GREEDY_MB} MB")
        faulthandler.cancel_dump_traceback_later()


def peak_memory_mb() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 2**20)


def encoded(sequence: PhotoSequence, format: str) -> bytes:
    file = io.BytesIO()
    copies = [with_pixels(photo, photo.pixels, photo.alpha) for photo in sequence.frames]
    write_all(sequence, file, WriteOptions(format), frames=copies)
    return file.getvalue()


names, seeds = st.sampled_from(sorted(corpus())), st.integers(0, 2**32)


@settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
@given(names, seeds)
def test_damaged_files(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.long
@settings(max_examples=LONG, database=None, suppress_health_check=list(HealthCheck))
@given(names, seeds)
def test_many_damaged_files(name: str, seed: int) -> None:
    check(name, seed)


def test_the_corpus_is_sound_and_mutation_reaches_beyond_the_header() -> None:
    for name, data in corpus().items():
        if name.endswith(".dng"):
            continue  # refused, as it should be
        read_all(io.BytesIO(data), limits=LIMITS)
        assert probe(io.BytesIO(data), limits=LIMITS).sizes
        assert default_suffix(Path(name))
    survived = sum(check(name, seed) for name in corpus() for seed in range(3))
    assert 0.1 < survived / (3 * len(corpus())) < 0.9


def upscale(folder: Path, count: int, first: int) -> dict[str, int]:
    """Mutated files through the command line; how many were done and failed."""
    source, target = folder / "in", folder / "out"
    source.mkdir(parents=True)
    target.mkdir()
    every = sorted(corpus())
    for seed in range(first, first + count):
        name = every[seed % len(every)]
        (source / f"{seed}-{name}").write_bytes(mutated(name, seed))
    limits = ["--max-pixels", LIMITS.max_pixels, "--max-frames", LIMITS.max_frames]
    raws = sorted(source.glob("*.dng"))  # a folder's files are taken by suffix: raw photos have to be named
    inputs = [source, *raws]
    command = [sys.executable, "-m", "sr_cli", "upscale", *inputs, "-o", target, "-m", "bicubic", *limits, "--json"]
    process = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=HANGS_AFTER_S + count, check=False
    )
    assert "Traceback" not in process.stderr
    assert process.returncode in (0, 1, 3), process.stderr
    results = json.loads(process.stdout)["results"]
    assert len(results) == count
    done = {Path(result["output"]).name for result in results if result["status"] == "done"}
    assert {path.name for path in target.iterdir() if not path.name.startswith(".")} == done
    assert not list(target.glob("*.part")) + list(target.glob(".*.part"))
    for name in done:
        read_all(target / name)
    return {"done": len(done), "failed": count - len(done)}


def test_damaged_files_through_the_command_line(tmp_path: Path) -> None:
    outcome = upscale(tmp_path, 60, 0)
    assert outcome["done"]
    assert outcome["failed"]


@pytest.mark.long
def test_many_damaged_files_through_the_command_line(tmp_path: Path) -> None:
    for first in range(0, LONG, 250):
        outcome = upscale(tmp_path / str(first), 250, 1_000_000 + first)
        print(first, outcome)
