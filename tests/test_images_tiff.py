"""TIFF: which picture of a file is read, what is refused and how it is named, and directories made to cost time."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import Limits, losses, probe, read, read_all
from sr_cli.images.formats import PNG
from sr_cli.images.tiff_tags import Directories
from tests.foreign import VIPS

SHORT, LONG = 3, 4
Samples = np.ndarray[Any, Any]


def scene(height: int = 48, width: int = 64, bits: int = 8, channels: int = 3) -> Samples:
    y, x = np.mgrid[0:height, 0:width]
    samples = np.stack([(x * 4 + y * (2 + c)) % 256 for c in range(channels)], axis=2)
    return (samples * 257 + 3).clip(0, 65535).astype(np.uint16) if bits == 16 else samples.astype(np.uint8)


def directory(tags: dict[int, tuple[int, ...]], at: int, following: int = 0) -> bytes:
    """A directory of LONG values (little endian) to be stored at `at`; longer values follow it."""
    head, body = struct.pack("<H", len(tags)), b""
    values_at = at + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"<{len(values)}I", *values)
        head += struct.pack("<HHI", tag, LONG, len(values))
        head += data if len(values) == 1 else struct.pack("<I", values_at + len(body))
        body += data if len(values) > 1 else b""
    return head + struct.pack("<I", following) + body


def gray(width: int, height: int, offset: int, **more: int) -> dict[int, tuple[int, ...]]:
    """The tags of an uncompressed gray picture of 8 bits."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: offset, 277: 1, 278: height, 279: width * height}
    tags |= {int(name[1:]): value for name, value in more.items()}
    return {tag: (value,) for tag, value in tags.items()}


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts how often each directory is read."""
    visits: Counter[int] = Counter()
    original = Directories.entries

    def entries(self: Directories, offset: int) -> Any:
        result = original(self, offset)
        visits[offset] += 1
        return result

    monkeypatch.setattr(Directories, "entries", entries)
    return visits


# Directories that lead back to each other


@pytest.mark.parametrize("tag", [34665, 34853, 40965, 330])
def test_child_directories_that_lead_back_are_read_once(tag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 entries, each of which points at the directory that holds them: once cubed, now linear."""
    count = 4000
    entry = struct.pack("<HHII", tag, LONG, 1, 8)
    data = b"II*\0" + struct.pack("<IH", 8, count) + entry * count + bytes(4)
    visits = counted(monkeypatch)
    with pytest.raises(InputError, match="has no pixels"):
        read_all(io.BytesIO(data))
    with pytest.raises(InputError, match="has no pixels"):
        probe(io.BytesIO(data))
    assert max(visits.values()) <= 2  # one for each of the two calls


@pytest.mark.parametrize("pages", [1, 2, 50])
def test_a_chain_of_pages_that_leads_back_ends_there(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = bytes(range(64))
    offsets = [8 + 64 + index * 200 for index in range(pages)]
    data = b"II*\0" + struct.pack("<I", offsets[0]) + pixels
    for index, at in enumerate(offsets):
        data += directory(gray(8, 8, 8), at, offsets[(index + 1) % pages]).ljust(200, b"\0")
    visits = counted(monkeypatch)
    sequence = read_all(io.BytesIO(data))
    assert len(sequence.frames) == pages
    assert set(visits.values()) == {1}


def test_directories_that_overlap_are_bounded() -> None:
    """Each next directory begins one entry later than the last: 100,000 entries in a file that has room for 3,000."""
    count = 3000
    data = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(12 * count + 100))
    for index in range(count - 20):
        at = 8 + 12 * index
        struct.pack_into("<H", data, at, 1000)
        following = at + 2 + 12 * 1000
        if following + 4 < len(data):
            struct.pack_into("<I", data, following, at + 12)
    with pytest.raises(InputError):
        read_all(io.BytesIO(bytes(data)), limits=Limits(max_frames=50))


def test_values_that_overlap_are_refused() -> None:
    """200 tags whose value is the whole file each."""
    tags = {number: tuple(range(2)) for number in range(30000, 30200)}
    data = bytearray(b"II*\0" + struct.pack("<I", 8) + directory(gray(8, 8, 8) | tags, 8) + bytes(4000))
    for at in range(10, 10 + 12 * 209, 12):
        if struct.unpack_from("<H", data, at)[0] >= 30000:
            struct.pack_into("<II", data, at + 4, 1000, 8)
    with pytest.raises(InputError, match="values of its tags overlap"):
        read(io.BytesIO(bytes(data)))


# Which picture is read


def with_child(path: Path, first: Samples, second: Samples, *, kind: int, photometric: str, **options: Any) -> None:
    """A file whose main directory is a reduced copy (`first`) with `second` in a child directory."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(first, subfiletype=kind, subifds=1, photometric="rgb", **options)
        writer.write(second, subfiletype=0, photometric=photometric)


@pytest.mark.parametrize("name", ["a.dng", "a.nef", "a.tif"])
@pytest.mark.parametrize("photometric", ["cfa", "linear_raw"])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_raw_photo_is_not_its_preview(tmp_path: Path, name: str, photometric: str, kind: int) -> None:
    raw = scene(480, 640, 16, 1)[..., 0] if photometric == "cfa" else scene(480, 640, 16)
    with_child(tmp_path / name, scene(), raw, kind=kind, photometric=photometric)
    for function in (read, read_all, probe):
        with pytest.raises(InputError, match=rf"{name}: a raw photo; develop it first"):
            function(tmp_path / name)


@pytest.mark.parametrize("mark", ["version", "cr2", "phase one", "slices", "nikon", "sony"])
def test_raw_photos_by_their_marks(tmp_path: Path, mark: str) -> None:
    """A DNG with nothing but a preview, Canon's and Phase One's signatures, a compression of raw data alone."""
    more = {"version": {"t50706": 0x401}, "slices": {"t50752": 1}, "nikon": {"t259": 34713}, "sony": {"t259": 32767}}
    at = 8 + 8 + 64
    data = bytearray(b"II*\0" + struct.pack("<I", at) + bytes(8 + 64))
    data += directory(gray(8, 8, 16, **more.get(mark, {})), at)
    data[8:12] = {"cr2": b"CR\2\0", "phase one": b"IIII"}.get(mark, bytes(4))
    with pytest.raises(InputError, match="a raw photo"):
        read(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_full_picture_may_be_in_a_child_directory(tmp_path: Path, bits: int) -> None:
    full = scene(96, 128, bits)
    with_child(tmp_path / "a.tif", scene(), full, kind=1, photometric="rgb")
    photo = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, full)
    assert probe(tmp_path / "a.tif").sizes == ((128, 96),)


@pytest.mark.parametrize("kinds", [(0, 1, 1), (1, 0, 1), (0, 8)])
def test_reduced_copies_and_masks_are_no_pages(tmp_path: Path, kinds: tuple[int, ...]) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for kind in kinds:
            size = (96, 128) if kind == 0 else (48, 64)
            writer.write(scene(*size), subfiletype=kind, photometric="rgb")
    sequence = read_all(tmp_path / "a.tif")
    assert [photo.pixels.shape for photo in sequence.frames] == [(96, 128, 3)]
    assert sequence.kind == "still"


def test_the_older_tag_for_reduced_copies(tmp_path: Path) -> None:
    at = 8 + 64
    first = directory(gray(4, 4, 8, t255=2), at, at + 200).ljust(200, b"\0")
    data = b"II*\0" + struct.pack("<I", at) + bytes(range(64)) + first + directory(gray(8, 8, 8, t255=1), at + 200)
    assert read(io.BytesIO(data)).pixels.shape == (8, 8, 1)
    assert len(read_all(io.BytesIO(data)).frames) == 1


@pytest.mark.needs("vips")
@pytest.mark.parametrize("option", ["pyramid", "pyramid,subifd", "pyramid,tile,bigtiff"])
def test_a_pyramid_is_its_largest_level(tmp_path: Path, option: str) -> None:
    Image.fromarray(scene(300, 400)).save(tmp_path / "a.png")
    target = f"{tmp_path}/a.tif[tile,tile-width=64,tile-height=64,{option}]"
    subprocess.run([str(VIPS), "copy", str(tmp_path / "a.png"), target], check=True, capture_output=True)
    sequence = read_all(tmp_path / "a.tif")
    assert len(sequence.frames) == 1
    np.testing.assert_array_equal(sequence.frames[0].pixels, scene(300, 400))


# What is not supported is named


@pytest.mark.parametrize(
    ("samples", "options", "what"),
    [
        (scene().astype(np.float32), {"photometric": "rgb"}, "floating-point numbers of 32 bits"),
        (scene().astype(np.float16), {"photometric": "rgb"}, "floating-point numbers of 16 bits"),
        (scene()[..., 0].astype(np.float64), {}, "floating-point numbers of 64 bits"),
        (scene()[..., 0].astype(np.int16), {}, "signed integers of 16 bits"),
        (scene()[..., 0].astype(np.int8), {}, "signed integers of 8 bits"),
        (scene().astype(np.uint32), {"photometric": "rgb"}, "samples of 32 bits"),
        (scene()[..., 0].astype(np.complex64), {}, "complex numbers"),
        (scene(bits=16), {"photometric": "cielab"}, "CIE Lab with 16 bits per sample"),
        (scene(), {"photometric": "icclab"}, "the colour space ICC Lab"),
        (scene(bits=16), {"photometric": "ycbcr"}, "YCbCr with 16 bits per sample"),
        (scene(bits=16, channels=12), {"photometric": "minisblack", "planarconfig": "contig"}, "12 samples per pixel"),
    ],
)
def test_unsupported_depths_and_colour_spaces_are_named(
    tmp_path: Path, samples: Samples, options: dict[str, Any], what: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)
    for function in (read, probe):
        with pytest.raises(InputError, match=rf"a\.tif: .*{what}.* cannot be read; save it as RGB or gray"):
            function(tmp_path / "a.tif")


@pytest.mark.needs("imagecodecs")
def test_what_pillow_cannot_open_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", scene(channels=3), photometric="rgb", compression="jpeg2000")
    with pytest.raises(InputError, match=r"a\.tif: TIFF of this kind \(RGB, 3 samples of 8 bits, compression .*2000"):
        read(tmp_path / "a.tif")


def test_ink_of_16_bits_is_a_named_loss(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", scene(bits=16, channels=4), photometric="separated")
    photo = read(tmp_path / "a.tif")
    assert photo.source_mode == "CMYK"
    assert "16 bits per sample were read as 8" in losses(photo, PNG)


@pytest.mark.needs("imagecodecs")
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.needs("imagecodecs")
def test_depths_between_8_and_16_are_spread_over_16(tmp_path: Path, bits: int) -> None:
    samples = (scene(bits=16) >> (16 - bits)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", bitspersample=bits)
    expected = samples.astype(np.uint32) * 65535 // ((1 << bits) - 1)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, expected)


# Without the extra


WITHOUT_CODECS = """
import sys
sys.modules["imagecodecs"] = None
from pathlib import Path
import numpy as np
from sr_cli.images import read
expected = np.load("a.npy")
for path in sorted(Path().glob("*.tif")):
    photo = read(path)
    if path.name == "zstd.tif":
        assert photo.bits == 8 and "srup[tiff]" in photo.notes[0], photo.notes
        assert abs(photo.pixels.astype(int) - (expected >> 8)).max() <= 1
    else:
        assert (photo.pixels == expected).all(), path
"""


@pytest.mark.needs("imagecodecs")
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.needs("imagecodecs")
def test_16_bits_need_no_extra(tmp_path: Path, predictor: bool) -> None:
    """Without imagecodecs the usual compressions keep all bits; a rare one becomes 8 bits and is named."""
    samples = scene(200, 300, 16)
    samples[100:] = np.random.default_rng(1).integers(0, 65536, (100, 300, 3))
    np.save(tmp_path / "a.npy", samples)
    for compression in ("none", "lzw", "zlib", "packbits", "zstd"):
        options = {"compression": None if compression == "none" else compression, "predictor": predictor}
        if compression in ("none", "packbits"):
            options["predictor"] = False
        tifffile.imwrite(tmp_path / f"{compression}.tif", samples, photometric="rgb", rowsperstrip=64, **options)
    command = [sys.executable, "-c", WITHOUT_CODECS]
    subprocess.run(command, cwd=tmp_path, check=True, env={"PYTHONPATH": str(Path(__file__).parents[1])})


def test_a_strip_that_inflates_without_end_takes_no_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**28), 9)
    at = 8 + len(bomb)
    at += at % 2
    tags = gray(8, 8, 8, t258=16, t259=8, t279=len(bomb))
    data = (b"II*\0" + struct.pack("<I", at) + bomb).ljust(at, b"\0") + directory(tags, at)
    tracemalloc.start()
    assert read(io.BytesIO(data)).pixels.shape == (8, 8, 1)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_zero_strips_are_missing_and_not_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", scene(bits=16), photometric="rgb", rowsperstrip=8)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tag = file.pages[0].tags[279]
        width = 2 if tag.dtype == SHORT else 4
        data[tag.valueoffset : tag.valueoffset + width] = bytes(width)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut off"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("offset", [3, 2**31])
def test_a_next_page_that_cannot_be_found_is_named(offset: int) -> None:
    at = 8 + 64
    data = b"II*\0" + struct.pack("<I", at) + bytes(range(64)) + directory(gray(8, 8, 8), at, offset)
    sequence = read_all(io.BytesIO(data))
    assert len(sequence.frames) == 1
    assert "further pages, which cannot be found, are dropped" in losses(sequence.frames[0], PNG)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(sequence.frames[0].pixels[..., 0], np.asarray(image))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_strips_that_say_they_are_longer(tmp_path: Path, compression: str | None) -> None:
    """The last strip's size may reach beyond the file, as long as no pixel is missing."""
    tifffile.imwrite(tmp_path / "a.tif", scene(bits=16), photometric="rgb", compression=compression, rowsperstrip=48)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tag = file.pages[0].tags[279]
        struct.pack_into("<I", data, tag.valueoffset, len(data) * 2)
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, scene(bits=16))
