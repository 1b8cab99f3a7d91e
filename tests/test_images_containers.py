"""Which decoder a file gets, and what is said of files that get none: by content, whatever the name."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.images import Limits, probe, read, read_all


def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 4], axis=2).astype(np.uint8))


def encoded(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture().save(file, format, **options)
    return file.getvalue()


def with_brands(data: bytes, major: bytes, *compatible: bytes) -> bytes:
    """The same file with another `ftyp` box."""
    (size,) = struct.unpack_from(">I", data)
    box = b"ftyp" + major + bytes(4) + b"".join(compatible)
    padding = size - len(box) - 4
    assert padding >= 0 and padding % 4 == 0, "offsets in the file must not move"
    return struct.pack(">I", size) + box + b"miaf" * (padding // 4) + data[size:]


@pytest.mark.needs("avif")
@pytest.mark.parametrize(
    ("major", "compatible"),
    [
        (b"mif1", (b"avif",)),
        (b"miaf", (b"mif1", b"avif")),
        (b"avio", (b"avif",)),
        (b"mif1", ()),
        (b"iso8", (b"avif",)),
        (b"heic", (b"mif1",)),
    ],
)
def test_avif_by_its_compatible_brands(major: bytes, compatible: tuple[bytes, ...]) -> None:
    data = encoded("AVIF", quality=90)
    expected = read(io.BytesIO(data))
    photo = read(io.BytesIO(with_brands(data, major, *compatible)))
    assert photo.source_format == "AVIF"
    np.testing.assert_array_equal(photo.pixels, expected.pixels)


@pytest.mark.parametrize(
    ("major", "compatible"),
    [
        (b"heic", (b"mif1", b"heic")),
        (b"mif1", (b"heic",)),
        (b"mif1", ()),
        (b"heix", (b"mif1",)),
        (b"msf1", (b"hevc",)),
        (b"avif", (b"mif1",)),
    ],
)
def test_heic_whatever_the_major_brand(major: bytes, compatible: tuple[bytes, ...]) -> None:
    """`picture.heic` is `picture()` by libheif's own encoder (pillow_heif, quality 90)."""
    data = (Path(__file__).parent / "data/picture.heic").read_bytes()
    photo = read(io.BytesIO(with_brands(data, major, *compatible)))
    assert photo.source_format == "HEIF"
    assert np.abs(photo.pixels.astype(int) - np.asarray(picture())).mean() < 3
    with pytest.raises(InputError, match="damaged or cut off"):
        read(io.BytesIO(data[:-100]))


@pytest.mark.parametrize(
    "head",
    [
        b"FUJIFILMCCD-RAW 0201",
        b"IIU\0\x08\0\0\0",
        b"IIRO\x08\0\0\0",
        b"FOVb\0\0",
        b"\0MRM\0\0",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"II\x1a\0\0\0HEAPCCDR",
    ],
)
def test_raw_photos_are_named(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(head + bytes(100))
    for function in (read, probe):
        with pytest.raises(InputError, match=r"a\.jpg: a raw photo; develop it first"):
            function(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\xff\x0a\x01", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\xef\xbb\xbf <!DOCTYPE html>", "a web page or a drawing"),
        (b"<svg xmlns=''>", "a web page or a drawing"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"P6\n3 4\n255\n", "a PNM image"),
    ],
)
def test_formats_that_are_not_opened_are_named(head: bytes, what: str) -> None:
    with pytest.raises(InputError, match=f"is {what}.*, which cannot be read; convert it first"):
        read(io.BytesIO(head + bytes(50)))


@pytest.mark.parametrize("kind", ["endless", "long"])
def test_standard_input_is_read_up_to_a_limit(tmp_path: Path, kind: str) -> None:
    """An endless stream of text is refused by its first bytes, a picture that never ends at the limit."""
    program = {
        "endless": "import os\nwhile True: os.write(1, b'y\\n' * 5000)",
        "long": f"import os\nos.write(1, {encoded('JPEG')!r})\nwhile True: os.write(1, bytes(9999))",
    }[kind]
    source = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert source.stdout is not None
    expected = "not a photo" if kind == "endless" else "is larger than 3,000,000 bytes"
    with source.stdout as stream, pytest.raises(InputError, match=expected):
        read(stream, limits=Limits(max_input_bytes=3_000_000))
    source.kill()
    source.wait()


def test_the_limit_on_standard_input_is_an_option(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sr_cli", "upscale", "-", "-o", "a.png", "-m", "bicubic", "--max-input", "99"]
    done = subprocess.run(command, input=encoded("PNG"), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"--max-input" in done.stderr


def fed(path: Path, data: bytes) -> threading.Thread:
    """A named pipe that is given `data` once. Whoever opens it a second time waits forever."""
    os.mkfifo(path)

    def feed() -> None:
        with path.open("wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    return thread


@pytest.mark.needs("posix")
@pytest.mark.parametrize("name", ["q.gif", "q.png", "q"])
@pytest.mark.parametrize("several", [False, True])
def test_a_named_pipe_is_read_once(tmp_path: Path, name: str, several: bool) -> None:
    picture().quantize(64).save(tmp_path / "b.gif")
    fed(tmp_path / name, (tmp_path / "b.gif").read_bytes())
    inputs = [name, "b.gif"] if several else [name]
    command = [sys.executable, "-m", "sr_cli", "upscale", *inputs, "-o", "out/", "-m", "bicubic"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert len(list((tmp_path / "out").iterdir())) == len(inputs)


@pytest.mark.needs("posix")
def test_a_pipe_that_nobody_feeds_does_not_hold_up_an_interrupt(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    picture().save(tmp_path / "b.png")
    command = [sys.executable, "-m", "sr_cli", "upscale", "b.png", "a.png", "-o", "out/", "-m", "bicubic"]
    process = subprocess.Popen([*command, "--json-lines"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if '"done"' in line:  # the reader waits for the pipe now
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a photo"):
        read_all(Path("/dev/zero" if Path("/dev/zero").exists() else os.devnull))
