"""Photos in and out: pixels, transparency, metadata, and the safety of files."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from sr_cli.errors import InputError, OutputError, UsageError
from sr_cli.images import (
    Limits,
    Photo,
    bleed,
    read,
    with_pixels,
    write,
)
from sr_cli.storage import atomic_output, is_temporary

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(height: int = 24, width: int = 36, channels: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    """A smooth picture with a little noise; no two corners alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [100 + 90 * np.sin(x / (5 + c)) * np.cos(y / (7 + c)) + y - x for c in range(channels)]
    noisy = np.stack(planes, axis=2) + rng.normal(0, 3, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def exif_bytes(orientation: int = 1, size: tuple[int, int] = (36, 24)) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8298] = "(c) Someone"
    exif.get_ifd(0x8769).update({0xA002: size[0], 0xA003: size[1], 0x9003: "2024:01:02 03:04:05"})
    return exif.tobytes()


def properties(path: Path) -> Any:
    """EXIF as Pillow sees it."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(0x8769)
        return exif


def enlarged(photo: Photo) -> Photo:
    """A stand-in for a network, given and giving what the real one does."""

    def resize(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        size = (samples.shape[1] * 4, samples.shape[0] * 4)
        return np.asarray(Image.fromarray(samples).resize(size, Image.Resampling.BICUBIC))

    pixels = bleed(photo.pixels, photo.alpha)
    planes = [resize(pixels[..., channel]) for channel in range(pixels.shape[2])]
    return with_pixels(photo, np.dstack(planes), None if photo.alpha is None else resize(photo.alpha))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_lossless_formats_keep_every_sample(tmp_path: Path, suffix: str, channels: int, transparent: bool) -> None:
    alpha = picture(channels=1, seed=7)[..., 0] if transparent else None
    photo = Photo(picture(channels=channels), alpha)
    write(photo, tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.pixels, photo.pixels)
    if alpha is None:
        assert back.alpha is None
    else:
        np.testing.assert_array_equal(back.alpha, alpha)


@pytest.mark.parametrize(("suffix", "shape"), [(".jpg", (24, 36, 3)), (".webp", (24, 36, 3)), (".jpeg", (24, 36, 1))])
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str, shape: tuple[int, int, int]) -> None:
    photo = Photo(picture(*shape))
    write(photo, tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    assert back.pixels.shape == shape
    assert np.abs(back.pixels.astype(int) - photo.pixels).mean() < 4


def test_quality_100_webp_is_lossless(tmp_path: Path) -> None:
    photo = Photo(picture())
    write(photo, tmp_path / "a.webp", quality=100)
    np.testing.assert_array_equal(read(tmp_path / "a.webp").pixels, photo.pixels)


def test_bmp_is_read(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read(tmp_path / "a.bmp").pixels, picture())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(picture()).save(source, exif=exif_bytes(orientation))
    with Image.open(source) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read(source)
    np.testing.assert_array_equal(photo.pixels, expected)
    write(photo, target)
    again = read(target)
    np.testing.assert_array_equal(again.pixels, expected)
    assert properties(target)[0x0112] == 1
    assert properties(target).get_ifd(0x8769)[0xA002] == expected.shape[1]


@pytest.mark.parametrize("source_suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_metadata_is_carried_between_all_formats(tmp_path: Path, source_suffix: str, suffix: str) -> None:
    source, target = tmp_path / f"in.{source_suffix}", tmp_path / f"out.{suffix}"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:ImageWidth="36"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    exif = Image.Exif()
    exif.load(exif_bytes(6))
    if source_suffix == "tif":
        exif[700] = xmp
        options: dict[str, Any] = {"exif": exif}
    else:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"exif": exif, "xmp": xmp, "pnginfo": info}
    Image.fromarray(picture()).save(source, dpi=(300, 150), icc_profile=SRGB, **options)
    write(enlarged(read(source)), target)
    back = read(target)
    assert back.pixels.shape == (144, 96, 3)
    assert back.icc_profile == SRGB
    assert back.xmp is not None
    assert b'tiff:Orientation="1"' in back.xmp
    assert b'tiff:ImageWidth="96"' in back.xmp
    exif = properties(target)
    assert exif.get(0x0112, 1) == 1
    assert exif[0x8298] == "(c) Someone"
    assert exif.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (96, 144)
    if "webp" not in (source_suffix, suffix):
        assert back.dpi == pytest.approx((150, 300), abs=0.1)


def test_the_embedded_thumbnail_is_dropped(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(thumbnail, "JPEG")
    # One directory with an orientation, a second one that points at a JPEG (EXIF 2.32, 4.6.9).
    first = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x01\0\0" + b"\0\0\0\x1a"
    second = b"\0\x02" + b"\x02\x01\0\x04\0\0\0\x01\0\0\0\x38" + b"\x02\x02\0\x04\0\0\0\x01"
    second += len(thumbnail.getvalue()).to_bytes(4, "big") + bytes(4)
    block = first + second + thumbnail.getvalue()
    Image.fromarray(picture()).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + block)
    exif = read(tmp_path / "in.jpg").exif
    assert exif is not None
    assert b"\xff\xd8\xff" not in exif
    assert len(exif) == len(first) + len(second)
    loaded = Image.Exif()
    loaded.load(exif)
    assert loaded[0x0112] == 1
    assert not loaded.get_ifd(1)


def test_maker_notes_stay_where_they_were(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0x927C: b"NOTE" + bytes(range(200)), 0xA002: 36, 0xA003: 24})
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    Image.fromarray(picture()).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + block)
    write(enlarged(read(tmp_path / "in.jpg")), tmp_path / "out.jpg")
    result = read(tmp_path / "out.jpg").exif
    assert result is not None
    assert result.find(b"NOTE") == block.find(b"NOTE") > 0
    assert len(result) == len(block)


def test_png_text_survives(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Straße")
    info.add_itxt("Author", "山田")
    Image.fromarray(picture()).save(tmp_path / "in.png", pnginfo=info)
    photo = read(tmp_path / "in.png")
    assert dict(photo.text) == {"Title": "Straße", "Author": "山田"}
    write(photo, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.text == {"Title": "Straße", "Author": "山田"}  # type: ignore[attr-defined]


def test_the_files_time_is_kept(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "in.png")
    os.utime(tmp_path / "in.png", ns=(10**18, 10**18))
    write(read(tmp_path / "in.png"), tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_strip_leaves_pixels_and_their_colour(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"a.{suffix}"
    xmp = b"<x:xmpmeta>secret</x:xmpmeta>"
    text = (("Comment", "secret"),)
    photo = Photo(
        picture(), None, SRGB, exif_bytes().removeprefix(b"Exif\0\0"), xmp, None, (300, 300), text, (), 10**18
    )
    write(photo, target, strip=True)
    back = read(target)
    assert (back.exif, back.xmp, back.text) == (None, None, ())
    assert back.icc_profile == SRGB
    assert b"secret" not in target.read_bytes()
    assert b"Someone" not in target.read_bytes()
    assert target.stat().st_mtime_ns != 10**18


def disc(background: int = 0) -> Photo:
    """A red disc, its edge antialiased, on transparent black."""
    y, x = np.mgrid[0:40, 0:40]
    alpha = np.clip((12 - np.hypot(y - 19.5, x - 19.5)) * 255, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, np.uint8([250, 20, 10]), np.uint8(background))
    return Photo(pixels, alpha)


@pytest.mark.parametrize("background", [0, 255])
def test_transparency_gets_no_halo(tmp_path: Path, background: int) -> None:
    Image.fromarray(np.dstack([disc(background).pixels, disc().alpha])).save(tmp_path / "in.png")
    write(enlarged(read(tmp_path / "in.png")), tmp_path / "out.png")
    result = read(tmp_path / "out.png")
    assert result.alpha is not None
    visible = result.alpha > 0
    assert 400 < visible.sum() / 16 < 520  # about the disc's own 452 pixels
    assert (np.abs(result.pixels[visible].astype(int) - [250, 20, 10]) <= 2).all()


def test_bleeding_leaves_what_is_visible(tmp_path: Path) -> None:
    photo = disc()
    assert photo.alpha is not None
    kept = photo.alpha >= 32
    np.testing.assert_array_equal(bleed(photo.pixels, photo.alpha)[kept], photo.pixels[kept])
    nothing = np.zeros_like(photo.alpha)
    np.testing.assert_array_equal(bleed(photo.pixels, nothing), photo.pixels)
    np.testing.assert_array_equal(bleed(photo.pixels, nothing + np.uint8(255)), photo.pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 2)])
def test_bleeding_any_size(size: tuple[int, int]) -> None:
    alpha = np.zeros(size, np.uint8)
    alpha[0, 0] = 255
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[0, 0] = (10, 200, 30)
    assert (bleed(pixels, alpha) == (10, 200, 30)).all()


def test_jpeg_lays_transparency_on_white(tmp_path: Path) -> None:
    write(disc(), tmp_path / "a.jpg")
    back = read(tmp_path / "a.jpg").pixels
    assert (back[0, 0] > 250).all()
    assert back[20, 20, 0] > 235 > 40 > back[20, 20, 1]


# Safety of files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a\.png: already exists"):
        write(Photo(picture()), target)
    assert target.read_bytes() == b"precious"
    write(Photo(picture()), target, overwrite=True)
    assert read(target).width == 36
    assert names(tmp_path) == ["a.png"]


def race(target: Path) -> None:
    """Write a file that another process writes at the same time, a little faster."""
    with atomic_output(target) as file:
        file.write(b"ours")
        target.write_bytes(b"theirs")


def test_a_file_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    with pytest.raises(OutputError, match="already exists"):
        race(target)
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a.png"]


def test_without_hard_links_nothing_is_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    write(Photo(picture()), tmp_path / "a.png")
    with pytest.raises(OutputError, match="already exists"):
        race(tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"theirs"
    assert names(tmp_path) == ["a.png", "b.png"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_output(tmp_path / "a.png") as file:
            file.write(b"half")
            (unfinished,) = tmp_path.iterdir()
            assert is_temporary(unfinished)
            assert unfinished.suffix == ".part"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == []


@pytest.mark.needs("/dev/full")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_full_disk_is_named(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def limited(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return real(Path("/dev/full"), "wb") if "x" in mode else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", limited)
    with pytest.raises(OutputError, match=r"a\.\w+: cannot be written: the disk is full"):
        write(Photo(picture(200, 300)), tmp_path / f"a.{suffix}")
    assert names(tmp_path) == []


def test_output_obeys_umask_and_keeps_the_folder_clean(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(Photo(picture()), tmp_path / "a.png")
    finally:
        os.umask(old)
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640
    assert names(tmp_path) == ["a.png"]


def test_output_errors_are_one_clear_line(tmp_path: Path) -> None:
    photo = Photo(picture())
    with pytest.raises(UsageError, match=r"a\.xyz: cannot write \.xyz; choose one of \.png, \.jpg"):
        write(photo, tmp_path / "a.xyz")
    with pytest.raises(UsageError, match="no suffix"):
        write(photo, tmp_path / "a")
    with pytest.raises(UsageError, match="suffix says PNG"):
        write(photo, tmp_path / "a.png", format="jpeg")
    with pytest.raises(UsageError, match="quality"):
        write(photo, tmp_path / "a.jpg", quality=0)
    with pytest.raises(OutputError, match=r"the folder .*gone does not exist"):
        write(photo, tmp_path / "gone" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write(photo, tmp_path / "folder.png", overwrite=True)
    with pytest.raises(UsageError, match=r"WEBP, which ends at 16,383"):
        write(Photo(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "a.webp")
    assert names(tmp_path) == ["folder.png"]


# Bad input


def test_bad_inputs_are_one_clear_line(tmp_path: Path) -> None:
    def expect(path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)

    expect(tmp_path / "gone.jpg", "no such file")
    expect(tmp_path, "is a folder")
    (tmp_path / "empty.png").write_bytes(b"")
    expect(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.jpg").write_text("not a picture\n")
    expect(tmp_path / "text.jpg", "not a photo in a format that can be read")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_cut_off_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(200, 300)).save(path)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=rf"a\.{suffix}: "):
            read(path)


def test_formats_that_are_not_named_are_never_opened(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png", "PPM")
    with pytest.raises(InputError, match="is a PNM image, which cannot be read"):
        read(tmp_path / "a.png")


def test_limits_name_their_option(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(replace(Photo(picture()), xmp=b"x" * 1000), path)
    with pytest.raises(InputError, match=r"36x24 is more than 100 pixels; raise the limit with --max-pixels"):
        read(path, limits=Limits(max_pixels=100))
    with pytest.raises(InputError, match=r"--max-metadata-bytes"):
        read(path, limits=Limits(max_metadata_bytes=999))
    with pytest.raises(ValueError, match="at least 1"):
        Limits(max_frames=0)


def test_streams(tmp_path: Path) -> None:
    out = io.BytesIO()
    write(Photo(picture()), out)
    assert out.getvalue().startswith(b"\x89PNG")
    out.seek(0)
    np.testing.assert_array_equal(read(out).pixels, picture())
    with pytest.raises(InputError, match="is empty"):
        read(io.BytesIO())
    jpeg = io.BytesIO()
    write(Photo(picture()), jpeg, format="jpg", quality=80)
    assert jpeg.getvalue().startswith(b"\xff\xd8")


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, sr_cli.images; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
