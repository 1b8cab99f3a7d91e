"""Files that others open: damaged chunks that make no pixels, long texts, missing ends. And files that lack pixels."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_cli.errors import InputError
from sr_cli.images import Limits, Photo, losses, probe, read, read_all, write
from sr_cli.images.formats import PNG
from tests.foreign import MAGICK

NO_END = "the file is cut off at its end; no pixel is missing"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Samples = np.ndarray[Any, Any]


def scene(bits: int = 8, channels: int = 3, seed: int = 0) -> Samples:
    y, x = np.mgrid[0:48, 0:64]
    noise = np.random.default_rng(seed).integers(0, 30, (48, 64, channels))
    samples = np.stack([x * 3 + y * (c + 1) for c in range(channels)], axis=2) % 220 + noise
    return (samples * 257).astype(np.uint16) if bits == 16 else samples.astype(np.uint8)


def encoded(format: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(scene(channels=4), "CMYK") if mode == "CMYK" else Image.fromarray(scene()).convert(mode)
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, *, sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + data) ^ (not sound)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(bits: int = 8, channels: int = 3) -> bytes:
    file = io.BytesIO()
    write(Photo(scene(bits, channels)), file)
    return file.getvalue()


def behind_header(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


def magick_rgb(data: bytes, suffix: str) -> Samples:
    """What ImageMagick sees, which warns and goes on."""
    assert MAGICK is not None
    done = subprocess.run([MAGICK, f"{suffix}:-", "-depth", "8", "rgb:-"], input=data, capture_output=True, check=False)
    return np.frombuffer(done.stdout, np.uint8).reshape(48, 64, 3)


# PNG

ANCILLARY = {
    "pHYs": struct.pack(">IIB", 3000, 3000, 1),
    "tEXt": b"Title\0a",
    "zTXt": b"Title\0\0" + zlib.compress(b"a"),
    "iTXt": b"Title\0\0\0\0\0a",
    "iCCP": b"p\0\0" + zlib.compress(SRGB),
    "gAMA": struct.pack(">I", 45455),
    "cHRM": bytes(32),
    "sRGB": b"\0",
    "cICP": b"\x0c\x0d\0\1",
    "tIME": bytes(7),
    "bKGD": bytes(6),
    "eXIf": b"MM\0*\0\0\0\x08\0\0",
    "tRNS": bytes(6),
    "sBIT": b"\5\5\5",
    "hIST": bytes(2),
    "prVt": b"data",
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_a_damaged_ancillary_chunk_is_left_out_and_named(kind: str, bits: int) -> None:
    data = behind_header(png(bits), chunk(kind.encode(), ANCILLARY[kind], sound=False))
    photo = read(io.BytesIO(data))
    np.testing.assert_array_equal(photo.pixels, scene(bits))
    assert losses(photo, PNG) == [f"the damaged PNG chunk {kind} is dropped"]
    assert probe(io.BytesIO(data)).sizes == ((64, 48),)
    if MAGICK and bits == 8 and kind != "tRNS":
        np.testing.assert_array_equal(magick_rgb(data, "png"), photo.pixels)


@pytest.mark.parametrize(("kind", "content"), [("tRNS", b"\0"), ("cHRM", b"\0"), ("pHYs", b""), ("gAMA", b"\0")])
def test_chunks_of_a_wrong_length_spoil_no_picture(kind: str, content: bytes) -> None:
    photo = read(io.BytesIO(behind_header(png(), chunk(kind.encode(), content))))
    np.testing.assert_array_equal(photo.pixels, scene())
    assert photo.alpha is None


@pytest.mark.parametrize("bits", [8, 16])
def test_damaged_pixels_are_refused(bits: int) -> None:
    data = bytearray(png(bits))
    data[data.index(b"IDAT") + 30] ^= 1
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(bytes(data)))


def test_a_damaged_palette_is_refused() -> None:
    data = bytearray(encoded("PNG", "P"))
    data[data.index(b"PLTE") + 6] ^= 1
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt compressed"])
@pytest.mark.parametrize("bits", [8, 16])
def test_long_texts_are_kept(tmp_path: Path, kind: str, bits: int) -> None:
    text = "All that the author has to say. " * 60_000
    raw, packed = text.encode(), zlib.compress(text.encode())
    content = {
        "tEXt": b"Comment\0" + raw,
        "zTXt": b"Comment\0\0" + packed,
        "iTXt": b"Comment\0\0\0\0\0" + raw,
        "iTXt compressed": b"Comment\0\1\0\0\0" + packed,
    }[kind]
    photo = read(io.BytesIO(behind_header(png(bits), chunk(kind[:4].encode(), content))))
    assert photo.text == (("Comment", text),)
    write(photo, tmp_path / "a.png")
    assert read(tmp_path / "a.png").text == photo.text  # srup reads what it wrote
    with pytest.raises(InputError, match="--max-metadata-bytes"):
        read(tmp_path / "a.png", limits=Limits(max_metadata_bytes=1_000_000))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_srup_reads_what_it_wrote(tmp_path: Path, suffix: str) -> None:
    """20 MB of each kind of metadata: more than Pillow accepts in one piece or in all."""
    large = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="%s"/></rdf:RDF></x:xmpmeta>"""
    large %= b"x" * 20_000_000
    exif = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 270, 2, 20_000_000, 26) + bytes(4) + b"d" * 19_999_999 + b"\0"
    profile = SRGB + bytes(5_000_000)
    text = (("Title", "t" * 5_000_000),) if suffix == "png" else ()
    photo = Photo(scene(), xmp=large, exif=exif, icc_profile=profile, text=text)
    write(photo, tmp_path / f"a.{suffix}")
    again = read(tmp_path / f"a.{suffix}")
    assert (again.icc_profile, again.text) == (photo.icc_profile, photo.text)
    assert b"x" * 20_000_000 in (again.xmp or b"")
    assert b"d" * 19_999_999 in (again.exif or b"")
    np.testing.assert_array_equal(again.pixels, photo.pixels)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("cut", [1, 4, 12, 13, 16, 18])
def test_a_png_without_its_end(bits: int, cut: int) -> None:
    """Without IEND, the checksum of the last pixels, or the checksum inside their stream."""
    data = png(bits)[:-cut]
    photo = read(io.BytesIO(data))
    np.testing.assert_array_equal(photo.pixels, scene(bits))
    if cut >= 12:
        assert NO_END in losses(photo, PNG)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("cut", [60, 500])
def test_a_png_without_pixels_is_refused(bits: int, cut: int) -> None:
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(png(bits)[:-cut]))


def test_a_png_of_an_ios_app_is_named() -> None:
    data = png()
    with pytest.raises(InputError, match="iOS app"):
        read(io.BytesIO(data[:8] + chunk(b"CgBI", bytes(4)) + data[8:]))


def test_what_follows_the_end_of_a_png_is_not_read() -> None:
    np.testing.assert_array_equal(read(io.BytesIO(png() + b"more" * 99)).pixels, scene())


# JPEG

JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {"quality": 90},
    "progressive": {"quality": 90, "progressive": True},
    "restarts": {"quality": 90, "restart_marker_blocks": 3},
    "4:2:0 optimised": {"quality": 60, "subsampling": "4:2:0", "optimize": True},
    "progressive 4:2:0": {"quality": 30, "subsampling": "4:2:0", "progressive": True},
}
MODES = ["RGB", "L", "CMYK"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_marker(tmp_path: Path, kind: str, mode: str, cut: int) -> None:
    data = encoded("JPEG", mode, **JPEGS[kind])
    photo = read(io.BytesIO(data[:-cut]))
    np.testing.assert_array_equal(photo.pixels, read(io.BytesIO(data)).pixels)
    assert NO_END in losses(photo, PNG)
    djpeg = shutil.which("djpeg")
    if djpeg and mode == "RGB":
        done = subprocess.run([djpeg, "-nosmooth", "-ppm"], input=data[:-cut], capture_output=True, check=False)
        with Image.open(io.BytesIO(done.stdout)) as image:
            assert image.size == (64, 48)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_jpeg_that_lacks_pixels_is_refused(kind: str, mode: str, share: float) -> None:
    data = encoded("JPEG", mode, **JPEGS[kind])
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(data[: scan + 14 + int((len(data) - scan - 16) * share)]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["baseline", "restarts", "4:2:0 optimised"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
def test_an_end_marker_hides_no_missing_pixels(kind: str, mode: str, share: float) -> None:
    data = encoded("JPEG", mode, **JPEGS[kind])
    scan = data.rindex(b"\xff\xda")
    cut = data[: scan + 14 + int((len(data) - scan - 16) * share)]
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(cut.removesuffix(b"\xff") + b"\xff\xd9"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_flat_corner_is_no_missing_pixel(kind: str, mode: str) -> None:
    samples = scene(channels=4)
    samples[20:, 20:] = 90
    image = Image.fromarray(samples, "CMYK") if mode == "CMYK" else Image.fromarray(samples[..., :3]).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **JPEGS[kind])
    for data in (file.getvalue(), file.getvalue() + b"appended", file.getvalue()[:-2]):
        assert read(io.BytesIO(data)).pixels.shape[:2] == (48, 64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scans", [1, 2, 5])
def test_a_progressive_jpeg_that_lacks_scans_is_refused(mode: str, scans: int) -> None:
    data = encoded("JPEG", mode, quality=90, progressive=True)
    for _ in range(scans):
        data = data[: data.rindex(b"\xff\xda")]
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(data))


def test_segments_that_make_no_pixels_do_no_harm() -> None:
    data = encoded("JPEG", quality=90)
    segments = [
        (0xE1, b"Exif\0\0nonsense"),
        (0xE2, b"MPF\0MM\0*nonsense"),
        (0xED, b"Photoshop 3.0\08BIM"),
        (0xEE, b"Adobe"),
    ]
    extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    photo = read(io.BytesIO(data[:2] + extra + data[2:]))
    np.testing.assert_array_equal(photo.pixels, read(io.BytesIO(data)).pixels)


@pytest.mark.parametrize(
    ("marker", "precision", "components", "what"),
    [
        (0xC1, 12, 3, "JPEG with 12 bits per sample"),
        (0xC2, 12, 1, "JPEG with 12 bits per sample"),
        (0xC3, 16, 1, "lossless JPEG"),
        (0xC5, 8, 3, "hierarchical JPEG"),
        (0xF7, 8, 3, "JPEG-LS"),
        (0xC0, 8, 2, "JPEG with 2 colour components"),
    ],
)
def test_unsupported_jpeg_is_named(tmp_path: Path, marker: int, precision: int, components: int, what: str) -> None:
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4], data[at + 9] = marker, precision, components
    (tmp_path / "a.jpg").write_bytes(data)
    for function in (read, probe):
        with pytest.raises(InputError, match=rf"a\.jpg: {what} cannot be read"):
            function(tmp_path / "a.jpg")


# WebP and GIF


def webp(moving: bool = False, **options: Any) -> bytes:
    frames = [Image.fromarray(scene(seed=n)) for n in range(3)]
    file = io.BytesIO()
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]} if moving else {}
    frames[0].save(file, "WEBP", lossless=True, **more, **options)
    return file.getvalue()


def with_size(data: bytes, change: int) -> bytes:
    return data[:4] + struct.pack("<I", max(0, len(data) - 8 + change)) + data[8:]


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("change", [-(10**9), -50, -8, -2, -1, 1, 2, 6])
@pytest.mark.parametrize("metadata", [False, True])
def test_a_webp_that_states_a_wrong_size(moving: bool, change: int, metadata: bool) -> None:
    options: dict[str, Any] = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0", "icc_profile": SRGB} if metadata else {}
    data = webp(moving, **options)
    sequence = read_all(io.BytesIO(with_size(data, change)))
    for photo, expected in zip(sequence.frames, read_all(io.BytesIO(data)).frames, strict=True):
        np.testing.assert_array_equal(photo.pixels, expected.pixels)
    assert sequence.frames[0].icc_profile == (SRGB if metadata else None)


def test_a_webp_that_ends_behind_its_pixels() -> None:
    data = webp(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(100))
    photo = read(io.BytesIO(data[:-50]))
    np.testing.assert_array_equal(photo.pixels, scene())
    assert NO_END in losses(photo, PNG)


@pytest.mark.parametrize("moving", [False, True])
def test_a_webp_that_lacks_pixels_or_frames_is_refused(moving: bool) -> None:
    data = webp(moving)
    for end in (len(data) // 2, data.rindex(b"ANMF") if moving else len(data) - 100):
        with pytest.raises(InputError, match="damaged or cut off"):
            read_all(io.BytesIO(data[:end]))


@pytest.mark.parametrize("cut", [1, 2])
def test_a_gif_without_its_trailer(cut: int) -> None:
    frames = [Image.fromarray(scene(seed=n)).quantize(64) for n in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert len(read_all(io.BytesIO(file.getvalue()[:-cut])).frames) == 3
    with pytest.raises(InputError, match="damaged or cut off"):
        read_all(io.BytesIO(file.getvalue()[:-100]))
