"""16 bits per sample, bit by bit, against encoders and decoders that are not ours."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import Photo, PixelType, PngWriter, read, write
from sr_cli.images.png import metadata_chunks
from tests.foreign import MAGICK

Samples = np.ndarray[Any, Any]
needs_magick = pytest.mark.needs("imagemagick")


def deep(channels: int, height: int = 43, width: int = 57, seed: int = 1) -> Samples:
    """Samples (H, W, C) of 16 bits: a ramp that every filter likes, and noise that none does."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 65536, (height, width, channels)).astype(np.uint16)
    samples[: height // 2] = (np.arange(width)[None, :, None] * 1100 + np.arange(channels) * 77).astype(np.uint16)
    return samples


def magick(*arguments: object, data: bytes | None = None) -> bytes:
    assert MAGICK is not None
    return subprocess.run([MAGICK, *map(str, arguments)], input=data, capture_output=True, check=True).stdout


def magick_samples(path: Path, kind: str) -> Samples:
    """What ImageMagick decodes; kind: "gray", "rgb" or "rgba"."""
    raw = magick(path, "-depth", 16, "-endian", "MSB", f"{kind}:-")
    size = magick(path, "-format", "%w %h", "info:-").split()
    return np.frombuffer(raw, ">u2").reshape(int(size[1]), int(size[0]), -1)


def joined(photo: Photo) -> Samples:
    return photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])


@needs_magick
@pytest.mark.parametrize("kind", ["gray", "rgb", "rgba"])
@pytest.mark.parametrize("interlace", ["none", "PNG"])
@pytest.mark.parametrize("filter_type", range(6))
def test_foreign_png_is_read_bit_by_bit(tmp_path: Path, kind: str, interlace: str, filter_type: int) -> None:
    samples = deep(len(kind) if kind != "gray" else 1)
    colour_type = {"gray": 0, "rgb": 2, "rgba": 6}[kind]
    size = ["-size", "57x43", "-depth", 16, "-endian", "MSB", f"{kind}:-"]
    define = ["-quality", f"5{filter_type}", "-define", "png:bit-depth=16", "-define", f"png:color-type={colour_type}"]
    magick(*size, "-interlace", interlace, *define, tmp_path / "a.png", data=samples.astype(">u2").tobytes())
    photo = read(tmp_path / "a.png")
    assert photo.bits == 16
    np.testing.assert_array_equal(joined(photo), samples)


@needs_magick
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("kind", "channels"), [("gray", 1), ("rgb", 3), ("rgba", 4)])
def test_a_foreign_reader_finds_the_same_samples(tmp_path: Path, suffix: str, kind: str, channels: int) -> None:
    samples = deep(channels)
    alpha = samples[..., -1] if channels == 4 else None
    write(Photo(samples[..., :3], alpha), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(magick_samples(tmp_path / f"a{suffix}", kind), samples)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (700, 700)])
def test_round_trip(
    tmp_path: Path, suffix: str, channels: int, transparent: bool, bits: int, size: tuple[int, int]
) -> None:
    samples = deep(channels + 1, *size) >> (16 - bits)
    samples = samples.astype(np.uint16 if bits == 16 else np.uint8)
    photo = Photo(samples[..., :channels].copy(), samples[..., -1].copy() if transparent else None)
    write(photo, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(joined(read(tmp_path / f"a{suffix}")), joined(photo))
    if suffix == ".tif" and joined(photo).shape[2] == 2 and bits == 16:
        return  # which Pillow cannot open
    with Image.open(tmp_path / f"a{suffix}") as image:  # an independent reader, at its 8 bits
        image.load()
        assert image.size == size[::-1]
        if bits == 8:
            np.testing.assert_array_equal(np.asarray(image).reshape(joined(photo).shape), joined(photo))
        elif channels == 3 or not transparent:
            high = np.asarray(image) if channels == 3 else np.asarray(image) >> 8
            np.testing.assert_array_equal(high.reshape(joined(photo).shape), joined(photo) >> 8)


@needs_magick
@pytest.mark.parametrize("compression", ["none", "lzw", "zip"])
@pytest.mark.parametrize("layout", ["strips", "planes", "big endian", "tiles", "tiles in planes"])
@pytest.mark.parametrize("kind", ["gray", "rgb", "rgba"])
def test_foreign_tiff_is_read_bit_by_bit(tmp_path: Path, compression: str, layout: str, kind: str) -> None:
    samples = deep(len(kind) if kind != "gray" else 1)
    options: list[object] = ["-compress", compression]
    options += ["-interlace", "plane"] if "planes" in layout else []
    options += ["-endian", "MSB"] if layout == "big endian" else []
    options += ["-define", "tiff:tile-geometry=32x16"] if "tiles" in layout else []
    source = ["-size", "57x43", "-depth", 16, "-endian", "MSB", f"{kind}:-"]
    magick(*source, *options, tmp_path / "a.tif", data=samples.astype(">u2").tobytes())
    photo = read(tmp_path / "a.tif")
    assert photo.bits == 16
    np.testing.assert_array_equal(joined(photo), samples)


@pytest.mark.parametrize("tile", [None, (32, 16)])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tifffiles_files_are_read_bit_by_bit(
    tmp_path: Path, tile: tuple[int, int] | None, predictor: bool, planar: str, big: bool, order: str
) -> None:
    import tifffile

    samples = deep(3)
    data = samples.transpose(2, 0, 1) if planar == "separate" else samples
    options = {"tile": tile, "compression": "zlib", "predictor": predictor, "planarconfig": planar}
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", bigtiff=big, byteorder=order, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, samples)


def test_tifffile_reads_ours(tmp_path: Path) -> None:
    import tifffile

    samples = deep(4, 300, 900)
    write(Photo(samples[..., :3], samples[..., 3]), tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), samples)


@pytest.mark.needs("opencv")
def test_opencv_agrees(tmp_path: Path) -> None:
    import cv2

    samples = deep(4)
    write(Photo(samples[..., :3], samples[..., 3]), tmp_path / "ours.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "ours.png"), -1)[..., [2, 1, 0, 3]], samples)
    cv2.imwrite(str(tmp_path / "theirs.png"), samples[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(joined(read(tmp_path / "theirs.png")), samples)


def test_associated_alpha_of_tiff_is_divided_out(tmp_path: Path) -> None:
    import tifffile

    samples = deep(4)
    alpha = np.maximum(samples[..., 3], 20000)
    stored = np.dstack([np.rint(samples[..., :3] * (alpha / 65535)[..., None]).astype(np.uint16), alpha])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    photo = read(tmp_path / "a.tif")
    assert np.abs(photo.pixels.astype(int) - samples[..., :3]).max() <= 2
    np.testing.assert_array_equal(photo.alpha, alpha)


def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path: Path) -> None:
    samples = deep(3)
    write(Photo(samples), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    chunk = b"tRNS" + struct.pack(">HHH", *samples[30, 30])
    chunk = struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read(tmp_path / "a.png")
    assert photo.alpha is not None
    expected = np.where((samples == samples[30, 30]).all(axis=2), 0, 65535)
    np.testing.assert_array_equal(photo.alpha, expected)


def test_16_bits_become_8_by_rounding_for_formats_without(tmp_path: Path) -> None:
    samples = deep(3)
    write(Photo(samples), tmp_path / "a.webp", quality=100)
    np.testing.assert_array_equal(read(tmp_path / "a.webp").pixels, np.rint(samples / 257.0).astype(np.uint8))


def test_twelve_bits_are_spread_over_sixteen(tmp_path: Path) -> None:
    import tifffile

    tags = {256: (3, 2), 257: (3, 1), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1)}
    tags |= {278: (3, 1), 279: (4, 3)}
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    pixels = bytes([0xFF, 0xF8, 0x00])  # 4095 and 2048
    data = b"II*\0" + struct.pack("<I", 12) + pixels + b"\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(data)
    assert tifffile.TiffFile(tmp_path / "a.tif").pages[0].bitspersample == 12
    assert read(tmp_path / "a.tif").pixels.ravel().tolist() == [65535, 2048 * 65535 // 4095]


@pytest.mark.parametrize("kind", ["I", "F"])
def test_32_bits_are_refused_clearly(tmp_path: Path, kind: str) -> None:
    Image.new(kind, (5, 4), 70000).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: samples that are .* of 32 bits cannot be read; save it"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("damage", ["truncated", "checksum", "swapped"])
def test_damaged_16_bit_png_is_refused(tmp_path: Path, damage: str) -> None:
    write(Photo(deep(3, 100, 100)), tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "checksum":
        data[len(data) // 2] ^= 1
    else:
        data[16:20], data[20:24] = struct.pack(">I", 1000), struct.pack(">I", 1000)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: the photo is damaged or cut off"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("step", [1, 7, 2000])
def test_rows_may_arrive_in_any_portions(threads: int, step: int) -> None:
    samples = deep(3, 2000, 300)
    file = io.BytesIO()
    with PngWriter(file, (300, 2000), PixelType(3, 16), threads=threads) as writer:
        for top in range(0, 2000, step):
            writer.write(samples[top : top + step])
    np.testing.assert_array_equal(read(io.BytesIO(file.getvalue())).pixels, samples)


def test_the_writer_counts_rows() -> None:
    with pytest.raises(ValueError, match="1 rows are missing"), PngWriter(io.BytesIO(), (4, 3), PixelType(1)) as writer:
        writer.write(np.zeros((2, 4, 1), np.uint8))
    with pytest.raises(ValueError, match="does not fit"), PngWriter(io.BytesIO(), (4, 3), PixelType(1)) as writer:
        writer.write(np.zeros((2, 5, 1), np.uint8))


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"</rdf:RDF></x:xmpmeta>"
)


def test_metadata_travel_with_the_streaming_writer() -> None:
    photo = Photo(deep(3), xmp=XMP, dpi=(72, 72), text=(("Title", "t"),))
    file = io.BytesIO()
    with PngWriter(file, (57, 43), PixelType(3, 16), chunks=metadata_chunks(photo)) as writer:
        writer.write(photo.pixels)
    back = read(io.BytesIO(file.getvalue()))
    assert (back.xmp, back.text) == (photo.xmp, photo.text)
    assert back.dpi == pytest.approx((72, 72), abs=0.02)
