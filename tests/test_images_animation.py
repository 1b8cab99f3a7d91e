"""Animations: composed as their specification says, each frame upright, their profile kept. Judges are not ours."""

from __future__ import annotations

import random
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_cli import images
from sr_cli.errors import InputError
from sr_cli.images import formats
from tests.foreign import EXIFTOOL, FFMPEG

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = SRGB.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
needs_ffmpeg = pytest.mark.needs("ffmpeg")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def apng(frames: list[tuple[np.ndarray, int, int, int, int]], width: int, height: int, hidden: bool = False) -> bytes:
    """An animated PNG of (samples (h, w, 4), left, top, dispose, blend); 8 or 16 bits as the samples' type says."""
    bits = frames[0][0].dtype.itemsize * 8
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 6, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", len(frames), 0))
    number = 0
    if hidden:
        out += chunk(b"IDAT", zlib.compress(bytes((width * 4 * bits // 8 + 1) * height)))
    for index, (samples, left, top, dispose, blend) in enumerate(frames):
        high, wide = samples.shape[:2]
        out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, wide, high, left, top, 1, 10, dispose, blend))
        number += 1
        rows = samples.astype(">u2" if bits == 16 else "u1").reshape(high, -1).view(np.uint8)
        data = zlib.compress(np.hstack([np.zeros((high, 1), np.uint8), rows]).tobytes())
        if index == 0 and not hidden:
            out += chunk(b"IDAT", data)
        else:
            out += chunk(b"fdAT", struct.pack(">I", number) + data)
            number += 1
    return out + chunk(b"IEND", b"")


def random_frames(seed: int, dtype: type = np.uint8) -> list[tuple[np.ndarray, int, int, int, int]]:
    chance = random.Random(seed)
    noise = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    frames = []
    for index in range(6):
        wide, high = (24, 16) if index == 0 else (chance.randint(1, 24), chance.randint(1, 16))
        samples = noise.integers(0, top + 1, (high, wide, 4)).astype(dtype)
        samples[..., 3] = noise.choice([0, top // 3, top], (high, wide))
        left, upper = chance.randint(0, 24 - wide), chance.randint(0, 16 - high)
        frames.append((samples, left, upper, chance.randint(0, 2), chance.randint(0, 1)))
    return frames


def by_ffmpeg(path: Path, width: int, height: int) -> np.ndarray:
    """All frames (n, H, W, 4)."""
    command = [FFMPEG, "-v", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    raw = subprocess.run([str(part) for part in command], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 4)


def rgba(photo: images.Photo) -> np.ndarray:
    colours = np.repeat(photo.pixels, 3, axis=2) if photo.is_gray else photo.pixels
    alpha = np.full(colours.shape[:2], np.iinfo(colours.dtype).max) if photo.alpha is None else photo.alpha
    return np.dstack([colours, alpha])


def assert_same_to_the_eye(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal up to rounding, wherever anything is to be seen."""
    assert np.abs(ours[..., 3].astype(int) - theirs[..., 3]).max() <= 1
    seen = theirs[..., 3] > 0
    assert np.abs(ours.astype(int) - theirs)[seen].max() <= 3


@needs_ffmpeg
@pytest.mark.parametrize("seed", range(12))
def test_apng_is_composed_as_ffmpeg_does(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(apng(random_frames(seed), 24, 16))
    ours = np.stack([rgba(photo) for photo in images.read_all(path).frames])
    theirs = by_ffmpeg(path, 24, 16)
    assert ours.shape == theirs.shape
    assert_same_to_the_eye(ours, theirs)


def test_apng_of_16_bits_is_composed_like_one_of_8(tmp_path: Path) -> None:
    deep = [(s.astype(np.uint16) * 257, *rest) for s, *rest in random_frames(3)]
    (tmp_path / "8.png").write_bytes(apng(random_frames(3), 24, 16))
    (tmp_path / "16.png").write_bytes(apng(deep, 24, 16))  # type: ignore[arg-type]
    eight, sixteen = (images.read_all(tmp_path / name).frames for name in ("8.png", "16.png"))
    for a, b in zip(eight, sixteen, strict=True):
        assert b.bits == 16
        assert_same_to_the_eye(
            rgba(images.with_pixels(b, images.to_8_bits(b.pixels), images.to_8_bits(b.alpha))), rgba(a)
        )


def test_a_still_that_is_no_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(apng(random_frames(1), 24, 16, hidden=True))
    sequence = images.read_all(path)
    assert len(sequence.frames) == 6
    assert any("still image" in note for note in images.losses(sequence.frames[0], formats.PNG))


def test_a_frame_outside_the_picture_is_damaged(tmp_path: Path) -> None:
    frames = random_frames(1)
    frames[1] = (frames[0][0], 5, 5, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(apng(frames, 24, 16))
    with pytest.raises(InputError, match="outside"):
        images.read_all(path)


def moving(path: Path, **options: object) -> None:
    frames = []
    for n in range(3):
        frame = np.zeros((16, 24, 3), np.uint8)
        frame[:6, : 4 + 2 * n] = (255, 0, 90)
        frames.append(Image.fromarray(frame))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)


@pytest.mark.needs("exiftool")
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_every_frame_is_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, still = tmp_path / f"a.{suffix}", tmp_path / "still.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    moving(path, exif=exif, lossless=True)
    turned = images.read_all(path).frames
    exif = Image.Exif()
    moving(tmp_path / "plain.png")
    for n, frame in enumerate(turned):
        with Image.open(tmp_path / "plain.png") as plain:
            plain.seek(n)
            exif[0x0112] = orientation
            plain.convert("RGB").save(still, exif=exif)
        assert np.array_equal(frame.pixels, images.read(still).pixels)
        assert frame.exif is None or n == 0


@pytest.mark.needs("exiftool")
@pytest.mark.parametrize("target", ["webp", "png"])
@pytest.mark.parametrize("source", ["webp", "png", "avif"])
def test_the_profile_of_an_animation_is_kept(tmp_path: Path, source: str, target: str) -> None:
    moving(tmp_path / f"a.{source}", icc_profile=WIDE)
    sequence = images.read_all(tmp_path / f"a.{source}")
    images.write_all(sequence, tmp_path / f"b.{target}")
    said = subprocess.run(
        [str(EXIFTOOL), "-s3", "-ProfileDescription", tmp_path / f"b.{target}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "wide" in said.stdout
