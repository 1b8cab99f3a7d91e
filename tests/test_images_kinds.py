"""Every kind of picture: palettes, ink, one bit, pages, animations, and the formats that Pillow may or may not have."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_cli.errors import InputError, UsageError
from sr_cli.images import (
    OUTPUT_FORMATS,
    Limits,
    Photo,
    PhotoSequence,
    WriteOptions,
    default_suffix,
    losses,
    read,
    read_all,
    write,
    write_all,
)
from tests.foreign import EXIFTOOL, MAGICK, icc_profile

Samples = np.ndarray[Any, Any]
needs_magick = pytest.mark.needs("imagemagick")


def magick(*arguments: object) -> bytes:
    assert MAGICK is not None
    return subprocess.run([MAGICK, *map(str, arguments)], capture_output=True, check=True).stdout


def colours(height: int = 20, width: int = 30, seed: int = 3) -> Samples:
    """Blocks of a few colours, so that a palette holds them all."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (height // 5, width // 5, 3)), np.ones((5, 5, 1))).astype(np.uint8)


def moving(frame: int, alpha: bool = False) -> Samples:
    """A red square that moves over a pattern, or over nothing."""
    background = np.zeros((20, 30, 4), np.uint8) if alpha else np.dstack([colours(), np.full((20, 30), 255)])
    background = background.astype(np.uint8)
    background[4:12, 3 + 4 * frame : 11 + 4 * frame] = (230, 10, 20, 255)
    return background


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(colours()).quantize(64)
    image.save(tmp_path / "a.png")
    photo = read(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    assert (photo.alpha, photo.source_mode) == (None, "P")
    image.save(tmp_path / "b.png", transparency=bytes([0, 128]) + bytes([255]) * 62)
    photo = read(tmp_path / "b.png")
    np.testing.assert_array_equal(photo.alpha, np.choose(np.minimum(np.asarray(image), 2), [0, 128, 255]))


def test_a_palette_of_grays_is_gray(tmp_path: Path) -> None:
    gray = Image.fromarray(colours()).convert("L")
    gray.convert("P").save(tmp_path / "a.gif")
    photo = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(photo.pixels[..., 0], np.asarray(gray))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(colours()).convert("1")
    image.save(tmp_path / f"a.{suffix}")
    photo = read(tmp_path / f"a.{suffix}")
    assert photo.is_gray
    np.testing.assert_array_equal(photo.pixels[..., 0], np.asarray(image) * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_with_alpha(tmp_path: Path, suffix: str) -> None:
    samples = colours()[..., :2]
    Image.fromarray(samples).save(tmp_path / f"a.{suffix}")
    photo = read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(np.dstack([photo.pixels, photo.alpha]), samples)


def test_a_transparent_colour_of_8_bits_becomes_alpha(tmp_path: Path) -> None:
    samples = colours()
    Image.fromarray(samples).save(tmp_path / "a.png", transparency=tuple(int(v) for v in samples[0, 0]))
    photo = read(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.alpha, np.where((samples == samples[0, 0]).all(axis=2), 0, 255))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_ink_without_a_profile_is_subtracted(tmp_path: Path, suffix: str) -> None:
    ink = Image.fromarray(colours()).convert("CMYK")
    ink.save(tmp_path / f"a.{suffix}", quality=98)
    photo = read(tmp_path / f"a.{suffix}")
    assert photo.source_mode == "CMYK"
    assert photo.icc_profile is None
    assert np.abs(photo.pixels.astype(int) - colours()).mean() < 8


@pytest.mark.needs("ink profile")
def test_ink_is_converted_through_its_profile(tmp_path: Path) -> None:
    profile = icc_profile(b"CMYK")
    ink = Image.fromarray(np.full((16, 16, 4), (0, 0, 0, 200), np.uint8), "CMYK")
    ink.save(tmp_path / "a.tif", icc_profile=profile)
    photo = read(tmp_path / "a.tif")
    assert photo.icc_profile is not None
    assert photo.icc_profile[16:20] == b"RGB "
    expected = ImageCms.profileToProfile(
        ink,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert expected is not None
    np.testing.assert_array_equal(photo.pixels, np.asarray(expected))


def test_a_profile_of_another_kind_of_pixels_is_not_carried(tmp_path: Path) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    Image.fromarray(colours()).save(tmp_path / "a.png", icc_profile=bytes(profile))
    assert read(tmp_path / "a.png").icc_profile is None


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(np.kron(colours(), np.ones((4, 4, 1))).astype(np.uint8))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(rgb, srgb, lab, outputMode="LAB")
    assert image is not None
    image.save(tmp_path / "a.tif")
    photo = read(tmp_path / "a.tif")
    assert np.abs(photo.pixels.astype(int) - np.asarray(rgb)).mean() < 5


def test_wide_gamut_pixels_are_not_converted(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"sRGB", b"wide")
    Image.fromarray(colours()).save(tmp_path / "a.png", icc_profile=profile)
    photo = read(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, colours())
    assert photo.icc_profile == profile


# Several pictures in a file


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    pages = [Image.fromarray(colours(10 * n, 20, n)) for n in (1, 2, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw", dpi=(90, 90))
    sequence = read_all(tmp_path / "a.tif")
    assert (sequence.kind, len(sequence.frames), sequence.durations_ms) == ("pages", 3, ())
    write_all(sequence, tmp_path / "b.tif")
    again = read_all(tmp_path / "b.tif")
    for page, photo, copy in zip(pages, sequence.frames, again.frames, strict=True):
        np.testing.assert_array_equal(photo.pixels, np.asarray(page))
        np.testing.assert_array_equal(copy.pixels, np.asarray(page))
    assert again.frames[0].dpi == pytest.approx((90, 90))
    with Image.open(tmp_path / "b.tif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    assert read(tmp_path / "a.tif").height == 10


def test_pages_may_differ_in_depth(tmp_path: Path) -> None:
    deep = Photo((colours().astype(np.uint16) << 8) + np.uint16(3), (colours()[..., 0].astype(np.uint16) << 7))
    sequence = PhotoSequence((Photo(colours()), deep, Photo(colours()[..., :1])), "pages")
    write_all(sequence, tmp_path / "a.tif")
    for photo, copy in zip(sequence.frames, read_all(tmp_path / "a.tif").frames, strict=True):
        np.testing.assert_array_equal(copy.pixels, photo.pixels)
        assert (copy.alpha is None) == (photo.alpha is None)


def test_reduced_copies_are_no_pages(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(colours(), photometric="rgb")
        writer.write(colours()[::2, ::2], photometric="rgb", subfiletype=1)
    sequence = read_all(tmp_path / "a.tif")
    assert (sequence.kind, sequence.frames[0].width) == ("still", 30)


@pytest.mark.parametrize("source", ["gif", "webp", "png"])
@pytest.mark.parametrize("target", ["gif", "webp", "png"])
@pytest.mark.parametrize("alpha", [False, True])
def test_animations(tmp_path: Path, source: str, target: str, alpha: bool) -> None:
    frames = [moving(n, alpha) for n in range(4)]
    images = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {"webp": {"lossless": True}, "gif": {"disposal": 2}}.get(source, {})
    path = tmp_path / f"a.{source}"
    durations = [100, 200, 150, 1000]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    sequence = read_all(path)
    assert (sequence.kind, sequence.plays) == ("animation", 0)
    assert sequence.durations_ms == (100, 200, 150, 1000)
    assert (sequence.frames[0].alpha is not None) == alpha
    write_all(sequence, tmp_path / f"b.{target}", WriteOptions(quality=100))
    again = read_all(tmp_path / f"b.{target}")
    assert (again.kind, again.plays, again.durations_ms) == ("animation", 0, sequence.durations_ms)
    for frame, photo in zip(frames, again.frames, strict=True):
        if alpha:
            np.testing.assert_array_equal(photo.alpha, frame[..., 3])
        visible = frame[..., 3] > 0
        np.testing.assert_array_equal(photo.pixels[visible], frame[visible][:, :3])


def test_frames_can_be_made_while_they_are_written(tmp_path: Path) -> None:
    sequence = PhotoSequence(tuple(Photo(moving(n)[..., :3]) for n in range(3)), "animation", (50, 50, 50), 2)

    def doubled(photo: Photo) -> Photo:
        return replace(photo, pixels=photo.pixels.repeat(2, axis=0).repeat(2, axis=1))

    write_all(sequence, tmp_path / "a.png", frames=(doubled(photo) for photo in sequence.frames))
    again = read_all(tmp_path / "a.png")
    assert again.plays == 2
    for photo, copy in zip(sequence.frames, again.frames, strict=True):
        np.testing.assert_array_equal(copy.pixels, doubled(photo).pixels)


@pytest.mark.parametrize("plays", [0, 1, 2, 5])
@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_number_of_plays_survives(tmp_path: Path, plays: int, suffix: str) -> None:
    frames = (Photo(moving(0)[..., :3]), Photo(moving(1)[..., :3]))
    write_all(PhotoSequence(frames, "animation", (40, 40), plays), tmp_path / f"a.{suffix}")
    assert read_all(tmp_path / f"a.{suffix}").plays == plays


@needs_magick
@pytest.mark.parametrize("dispose", ["None", "Background", "Previous"])
@pytest.mark.parametrize("optimised", [False, True])
def test_gif_frames_are_composed_as_imagemagick_does(tmp_path: Path, dispose: str, optimised: bool) -> None:
    for n in range(4):
        Image.fromarray(moving(n, alpha=True)).save(tmp_path / f"{n}.png")
    inputs = [tmp_path / f"{n}.png" for n in range(4)]
    steps = ["-layers", "optimize-frame"] if optimised else []
    magick("-dispose", dispose, "-delay", "12", "-loop", "0", *inputs, *steps, tmp_path / "a.gif")
    sequence = read_all(tmp_path / "a.gif")
    raw = magick(tmp_path / "a.gif", "-coalesce", "-depth", 8, "rgba:-")
    expected = np.frombuffer(raw, np.uint8).reshape(4, 20, 30, 4)
    assert sequence.durations_ms == (120.0,) * 4
    for frame, photo in zip(expected, sequence.frames, strict=True):
        alpha = np.full((20, 30), 255) if photo.alpha is None else photo.alpha
        np.testing.assert_array_equal(alpha, frame[..., 3])
        visible = frame[..., 3] > 0
        np.testing.assert_array_equal(photo.pixels[visible], frame[visible][:, :3])


@needs_magick
def test_imagemagick_reads_our_gif(tmp_path: Path) -> None:
    frames = tuple(Photo(moving(n, True)[..., :3], moving(n, True)[..., 3]) for n in range(3))
    write_all(PhotoSequence(frames, "animation", (70, 80, 90), 0), tmp_path / "a.gif")
    raw = magick(tmp_path / "a.gif", "-coalesce", "-depth", 8, "rgba:-")
    for n, frame in enumerate(np.frombuffer(raw, np.uint8).reshape(3, 20, 30, 4)):
        np.testing.assert_array_equal(frame[..., 3], moving(n, True)[..., 3])
    assert magick(tmp_path / "a.gif", "-format", "%T ", "info:-").split() == [b"7", b"8", b"9"]


def test_a_png_may_show_old_readers_another_picture(tmp_path: Path) -> None:
    images = [Image.fromarray(moving(n)[..., :3]) for n in range(3)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], default_image=True, duration=40)
    sequence = read_all(tmp_path / "a.png")
    assert len(sequence.frames) == 2
    np.testing.assert_array_equal(sequence.frames[0].pixels, moving(1)[..., :3])
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, moving(0)[..., :3])


@pytest.mark.parametrize(("suffix", "longest"), [("gif", 655_350), ("webp", 1_000_000), ("png", 6_553_500)])
def test_long_frames_last_as_long_as_the_format_can_say(tmp_path: Path, suffix: str, longest: int) -> None:
    frames = (Photo(moving(0)[..., :3]), Photo(moving(1)[..., :3]))
    write_all(PhotoSequence(frames, "animation", (1e9, 70_000.0)), tmp_path / f"a.{suffix}")
    assert read_all(tmp_path / f"a.{suffix}").durations_ms == (longest, 70_000)


def test_formats_for_one_picture_refuse_several(tmp_path: Path) -> None:
    frames = (Photo(colours()), Photo(colours()))
    animation, pages = PhotoSequence(frames, "animation", (10, 10)), PhotoSequence(frames, "pages")
    with pytest.raises(UsageError, match=r"JPEG cannot hold the 2 frames of an animation; write one of \.png, \.webp"):
        write_all(animation, tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"PNG cannot hold the 2 pages; write one of \.tif"):
        write_all(pages, tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"TIFF cannot hold the 2 frames"):
        write_all(animation, tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="cannot be a still"):
        PhotoSequence(frames)
    with pytest.raises(ValueError, match="1 durations for 2 frames"):
        PhotoSequence(frames, "animation", (10,))


def test_too_many_frames_name_their_option(tmp_path: Path) -> None:
    frames = tuple(Photo(moving(n % 4)[..., :3]) for n in range(6))
    for suffix, sequence in (
        ("gif", PhotoSequence(frames, "animation", (40,) * 6)),
        ("png", PhotoSequence(frames, "animation", (40,) * 6)),
        ("tif", PhotoSequence(frames, "pages")),
    ):
        write_all(sequence, tmp_path / f"a.{suffix}")
        with pytest.raises(InputError, match=r"--max-frames"):
            read_all(tmp_path / f"a.{suffix}", limits=Limits(max_frames=5))
        with pytest.raises(InputError, match=r"(30x20 times|) 6( pages|) is more than 3,000 pixels; .* --max-pixels"):
            read_all(tmp_path / f"a.{suffix}", limits=Limits(max_pixels=3000))
        assert read(tmp_path / f"a.{suffix}", limits=Limits(max_pixels=600)).width == 30


def test_a_frame_larger_than_the_animation_says_is_refused(tmp_path: Path) -> None:
    frames = tuple(Photo(moving(n)[..., :3]) for n in range(2))
    write_all(PhotoSequence(frames, "animation", (40, 40)), tmp_path / "a.gif")
    data = bytearray((tmp_path / "a.gif").read_bytes())
    second = data.index(b"\x2c", data.index(b"\x2c") + 10)  # the second image descriptor (GIF89a, section 20)
    data[second + 5 : second + 9] = b"\x60\xea\x60\xea"  # 60,000 by 60,000
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(InputError, match=r"--max-pixels|damaged"):
        read_all(tmp_path / "a.gif")


def test_a_deep_tiff_up_to_the_limit_is_read(tmp_path: Path) -> None:
    photo = Photo(np.full((300, 400, 3), 513, np.uint16))
    write(photo, tmp_path / "a.tif")
    limits = Limits(max_pixels=300 * 400)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", limits=limits).pixels, photo.pixels)


def test_a_picture_with_others_behind_it_gives_the_first(tmp_path: Path) -> None:
    images = [Image.fromarray(colours(seed=n)) for n in range(3)]
    images[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=images[1:], quality=98)
    for photo in (read(tmp_path / "a.jpg"), *read_all(tmp_path / "a.jpg").frames):
        assert photo.source_format == "JPEG"
        assert np.abs(photo.pixels.astype(int) - colours(seed=0)).mean() < 25


@pytest.mark.needs("avif")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours(40, 60)).save(tmp_path / "a.avif", quality=95, exif=exif)
    photo = read(tmp_path / "a.avif")
    expected = np.rot90(colours(40, 60), -1) if orientation == 6 else colours(40, 60)
    assert photo.pixels.shape == expected.shape
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 25


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.needs("imagemagick", "heic encoder")
def test_heic(tmp_path: Path) -> None:
    Image.fromarray(np.kron(colours(), np.ones((4, 4, 1))).astype(np.uint8)).save(tmp_path / "a.png")
    magick(tmp_path / "a.png", "-quality", 95, tmp_path / "a.heic")
    photo = read(tmp_path / "a.heic")
    assert photo.source_format == "HEIF"
    assert np.abs(photo.pixels.astype(int) - read(tmp_path / "a.png").pixels).mean() < 10
    (tmp_path / "b.heic").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"b\.heic: "):
        read(tmp_path / "b.heic")


# What is lost, and what is chosen


def test_losses_are_said() -> None:
    deep = Photo(np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2), np.uint16), exif=b"II*\0" + bytes(70_000))
    said = {output.name: losses(deep, output) for output in OUTPUT_FORMATS}
    assert said["PNG"] == said["TIFF"] == []
    assert said["JPEG"] == [
        "16 bits per sample become 8",
        "transparency is laid on white",
        "EXIF over 64 KB is dropped",
    ]
    assert said["WEBP"] == ["16 bits per sample become 8"]


def test_a_colour_space_that_only_png_can_name_is_reported(tmp_path: Path) -> None:
    """cICP 9/16 is HDR (BT.2020 with PQ), which no matrix profile can say; gAMA 1/2.2 is sRGB to everyone."""
    for name, chunk, expected in (
        ("pq", (b"cICP", b"\x09\x10\0\1"), ["the colour space, which is not sRGB"]),
        ("usual", (b"gAMA", (45_455).to_bytes(4, "big")), []),
    ):
        photo = Photo(colours(), colour_chunks=(chunk,))
        write(photo, tmp_path / f"{name}.png")
        again = read(tmp_path / f"{name}.png")
        assert again.colour_chunks == photo.colour_chunks
        assert [loss.split(" and cannot")[0] for loss in losses(again, OUTPUT_FORMATS[1])] == expected
        assert losses(again, OUTPUT_FORMATS[0]) == []


@pytest.mark.parametrize(
    "chunks",
    [((b"gAMA", (100_000).to_bytes(4, "big")),), ((b"cICP", b"\x0c\x0d\0\1"),), ((b"cICP", b"\x09\x01\0\1"),)],
    ids=["linear", "Display P3", "BT.2020"],
)
def test_a_colour_space_that_a_profile_can_say_becomes_one(
    tmp_path: Path, chunks: tuple[tuple[bytes, bytes], ...]
) -> None:
    """Judge: LittleCMS converts the picture to sRGB; expected by the definition of the primaries and curves."""
    photo = Photo(np.full((4, 4, 3), (200, 120, 40), np.uint8), colour_chunks=chunks)
    assert losses(photo, OUTPUT_FORMATS[3]) == []
    write(photo, tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert shown is not None
    value = np.array([200, 120, 40]) / 255
    kind, code = chunks[0]
    if kind == b"gAMA":
        linear = value
    elif code[0] == 12:  # Display P3 to sRGB, linear light (CSS Color 4, section 18)
        linear = (
            np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
            @ np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]).T
        )
    else:  # BT.2020 to BT.709 (ITU-R BT.2087)
        linear = (
            np.where(value <= 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))
            @ np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]).T
        )
    linear = linear.clip(0, 1)
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(shown)[0, 0] - expected).max() <= 2


def test_metadata_too_large_for_jpeg_do_not_stop_it(tmp_path: Path) -> None:
    photo = Photo(colours(), exif=b"II*\0" + bytes(70_000), xmp=bytes(70_000), iptc=bytes(70_000))
    write(photo, tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").exif is None


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
@pytest.mark.parametrize("source", ["jpg", "tif"])
def test_iptc_survives(tmp_path: Path, source: str, suffix: str) -> None:
    iptc = b"\x1c\x02\x78\0\x05Hello\x1c\x02\x19\0\x03key"
    write(Photo(colours(), iptc=iptc), tmp_path / f"a.{source}")
    write(read(tmp_path / f"a.{source}"), tmp_path / f"b.{suffix}")
    assert read(tmp_path / f"b.{suffix}").iptc == iptc
    if EXIFTOOL:
        shown = subprocess.check_output(["exiftool", "-Caption-Abstract", "-Keywords", tmp_path / f"b.{suffix}"])
        assert [line.split(b": ")[1] for line in shown.splitlines()] == [b"Hello", b"key"]


@pytest.mark.needs("gray profile")
def test_gray_with_a_gray_profile_becomes_srgb_where_there_is_no_gray(tmp_path: Path) -> None:
    profile = icc_profile(b"GRAY")
    assert profile is not None
    write(Photo(colours()[..., :1], icc_profile=profile), tmp_path / "a.webp", quality=100)
    back = read(tmp_path / "a.webp")
    assert back.icc_profile is not None
    assert back.icc_profile[16:20] == b"RGB "


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.JPG", "still", ".JPG"),
        ("a.tiff", "pages", ".tiff"),
        ("a.gif", "still", ".png"),
        ("a.gif", "animation", ".gif"),
        ("a.bmp", "still", ".png"),
        ("a.avif", "still", ".png"),
    ],
)
def test_default_suffixes(name: str, kind: str, expected: str) -> None:
    assert default_suffix(Path(name), kind) == expected
