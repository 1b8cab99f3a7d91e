"""Real files of every kind, by encoders that are not ours (tools/make_test_photos.py), read and enlarged.

One test a file reads it and compares it with the scene that was encoded. One more a file, where exiftool and
ImageMagick are installed, lets them say what `srup upscale -m bicubic` made of it.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from sr_cli import images
from sr_cli.upscale.batch import run as upscale
from sr_cli.upscale.options import UpscaleOptions
from tests.foreign import EXIFTOOL, IDENTIFY, MAGICK

FILES = Path(__file__).parent / "data" / "kinds"
WIDTH, HEIGHT = 37, 23
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = SRGB.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
# What a camera, a photographer and a picture agency write; every line must be found again in the output.
TAGS = {
    "ifd0": ["-IFD0:Make=Maker", "-IFD0:Model=Model 1", "-IFD0:Artist=Ännchen", "-IFD0:Copyright=(c) 2024 A. Person"],
    "exif": ["-ExifIFD:DateTimeOriginal=2024:01:02 03:04:05", "-ExifIFD:FNumber=2.8", "-ExifIFD:UserComment=Grüße"],
    "gps": ["-GPS:GPSLatitude=48.2", "-GPS:GPSLatitudeRef=N", "-GPS:GPSLongitude=16.4", "-GPS:GPSLongitudeRef=E"],
    "xmp": ["-XMP-dc:Creator=Ännchen", "-XMP-xmp:Rating=4", "-XMP-dc:Subject=one", "-XMP-dc:Subject=two"],
    "iptc": ["-IPTC:Caption-Abstract=A caption", "-IPTC:Keywords=one", "-IPTC:Keywords=two"],
}
ALL_TAGS = tuple(TAGS)


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray[Any, Any]:
    """(H, W, 4) uint8: smooth colours with a bright corner at the top left; alpha is a soft disc."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 80 * np.sin(x / 6), 128 + 80 * np.cos(y / 5), 100 + x + y], axis=2)
    rgb[: height // 4, : width // 4] = (250, 245, 240)
    alpha = np.clip((min(height, width) / 2 - np.hypot(y - height / 2, x - width / 2)) * 60, 0, 255)
    return np.dstack([rgb, alpha]).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """One input file, and what must be true of its output."""

    name: str
    channels: int = 3
    """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha."""
    bits: int = 8
    orientation: int = 1
    tags: tuple[str, ...] = ()
    """Groups of metadata that exiftool writes into the input and must find in the output."""
    output: str = ""
    """The output's suffix, if it is not the input's."""
    frames: int = 1
    profile: str = ""
    """Description of the colour profile."""
    dpi: int = 0
    lossy: bool = False
    loses: bool = False
    """Its encoding loses a little, though not what its output is written with."""
    says: dict[str, object] = field(default_factory=dict)
    """More tags that exiftool must find."""

    @property
    def suffix(self) -> str:
        return self.output or Path(self.name).suffix

    @property
    def turned(self) -> bool:
        return self.orientation >= 5


def run(*command: object, data: bytes | None = None) -> bytes:
    return subprocess.run([str(part) for part in command], input=data, capture_output=True, check=True).stdout


CASES = [
    Case("p-rgb.jpg", tags=ALL_TAGS, lossy=True),
    *(Case(f"p-turn{n}.jpg", orientation=n, tags=("ifd0", "xmp"), lossy=True) for n in range(2, 9)),
    Case("p-gray.jpg", channels=1, lossy=True, tags=("exif",)),
    Case("p-ink.jpg", lossy=True),
    Case("p-progressive.jpg", profile="wide", dpi=240, lossy=True),
    Case("p-comment.jpg", lossy=True, says={"File:Comment": "A comment"}),
    Case("p-rgb.png", profile="wide", tags=("ifd0", "exif", "gps", "xmp")),
    Case("p-rgba.png", channels=4, tags=("xmp",)),
    Case("p-gray.png", channels=1),
    Case("p-gray-alpha.png", channels=2),
    Case("p-bit.png", channels=1),
    Case("p-palette.png", loses=True),
    Case("p-palette-alpha.png", loses=True, channels=4),
    Case("p-gray16.png", channels=1, bits=16),
    Case(
        "p-text.png",
        profile="wide",
        dpi=200,
        says={"PNG:Title": "A title", "PNG:Description": "x" * 2000, "PNG:Author": "山田"},
    ),
    Case("p-turn.png", orientation=8, tags=("ifd0",)),
    Case("p-lossy.webp", profile="wide", tags=("ifd0", "exif", "xmp"), lossy=True),
    Case("p-alpha.webp", channels=4, lossy=True),
    Case("p-turn.webp", orientation=6, tags=("ifd0",), lossy=True),
    Case("p-raw.tif", dpi=150, tags=ALL_TAGS),
    Case("p-lzw.tif", profile="wide"),
    Case("p-deflate.tif", channels=4),
    Case("p-jpeg.tif", loses=True, tags=("ifd0",)),
    Case("p-fax.tif", channels=1),
    Case("p-gray16.tif", channels=1, bits=16),
    Case("p-ink.tif"),
    Case("p-palette.tif", loses=True),
    Case("p-turn.tif", orientation=5, tags=("ifd0",)),
    Case("p-pages.tif", frames=3),
    Case("p-rgb.bmp", output=".png"),
    Case("p-gray.bmp", channels=1, output=".png"),
    Case("p-still.gif", loses=True, output=".png"),
    Case("p-moving.gif", frames=4, lossy=True),
    Case("p-moving-alpha.gif", channels=4, frames=4, lossy=True),
    Case("p-moving.webp", frames=4, lossy=True),
    Case("p-moving.png", frames=4),
    Case("p-moving-alpha.png", frames=4, channels=4),
    Case("p-several.mpo", output=".png", lossy=True),
    Case("m-rgb.jpg", dpi=300, tags=ALL_TAGS, lossy=True),
    Case("m-gray.jpg", channels=1, lossy=True),
    Case("m-ink.jpg", lossy=True),
    Case("m-progressive.jpg", lossy=True),
    Case("m-rgb16.png", bits=16, tags=("ifd0", "xmp")),
    Case("m-rgba16.png", channels=4, bits=16),
    Case("m-gray16.png", channels=1, bits=16),
    Case("m-interlaced16.png", bits=16),
    Case("m-interlaced.png"),
    Case("m-gray4.png", loses=True, channels=1),
    Case("m-palette.png", loses=True),
    Case("m-gamma.png", says={"PNG:Gamma": 1.1111}),
    Case("m-rgb16-lzw.tif", bits=16, tags=ALL_TAGS),
    Case("m-rgb16-zip.tif", bits=16, tags=("ifd0", "exif")),
    Case("m-rgba16.tif", channels=4, bits=16),
    Case("m-planes16.tif", bits=16),
    Case("m-tiles16.tif", bits=16),
    Case("m-white-is-zero.tif", channels=1),
    Case("m-ink.tif"),
    Case("m-lossless.webp", lossy=True),
    Case("m-alpha.bmp", channels=4, output=".png"),
    Case("m-old.bmp", output=".png"),
    Case("v-rgb.png"),
    Case("v-deep.png", bits=16),
    Case("v-interlaced.jpg", lossy=True),
    Case("v-tiles16.tif", bits=16),
    Case("v-pyramid.tif"),
    Case("v-lossless.webp", lossy=True),
]


# What an enlargement changes, what a format must not say, and where the same is said again in other words.
CHANGED = {
    "Orientation", "ImageWidth", "ImageHeight", "ImageSize", "ExifImageWidth", "ExifImageHeight", "XResolution",
    "YResolution", "ResolutionUnit", "YCbCrPositioning", "ComponentsConfiguration", "XMPToolkit", "CurrentIPTCDigest",
    "CodedCharacterSet", "EnvelopeRecordVersion", "ApplicationRecordVersion", "ExifVersion", "FlashpixVersion",
    "ColorSpace", "GPSVersionID", "Compression", "PhotometricInterpretation", "SamplesPerPixel", "BitsPerSample",
    "RowsPerStrip", "StripOffsets", "StripByteCounts", "PlanarConfiguration", "Predictor", "SubfileType",
    "NewSubfileType", "ExtraSamples", "FillOrder", "SampleFormat", "PageNumber", "TileWidth", "TileLength",
    "TileOffsets", "TileByteCounts", "YCbCrSubSampling", "ReferenceBlackWhite", "T6Options", "ColorMap", "Software",
    "PixelXDimension", "PixelYDimension", "IPTCDigest", "JPEGTables", "InkSet", "PreviewImage", "PreviewImageStart",
    "PreviewImageLength", "Photoshop",
}  # fmt: skip
GROUPS = ("IFD0", "ExifIFD", "GPS", "XMP-dc", "XMP-xmp", "IPTC")


def metadata(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """By file name: what exiftool says, tags named Group:Tag."""
    listed = run(EXIFTOOL, "-json", "-G1", "-b", "-struct", "-api", "IgnoreMinorErrors=1", *paths)
    return {Path(entry["SourceFile"]).name: entry for entry in json.loads(listed)}


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each EXIF orientation asks for (as Pillow's `exif_transpose` has it)."""


def by_file(parameter: str = "case") -> Any:
    return pytest.mark.parametrize(parameter, CASES, ids=lambda case: case.name)


def test_there_is_a_file_for_each_case() -> None:
    assert {path.name for path in FILES.iterdir()} == {case.name for case in CASES}
    assert len(CASES) >= 60


@by_file()
def test_a_file_is_read_as_it_was_made(case: Case) -> None:
    """Size, depth, channels, frames, orientation and, within what its encoding loses, the pixels of the scene."""
    sequence = images.read_all(FILES / case.name)
    assert len(sequence.frames) == case.frames
    photo = sequence.frames[0]
    assert photo.pixels.shape[:2] == ((WIDTH, HEIGHT) if case.turned else (HEIGHT, WIDTH))
    assert photo.pixels.dtype == (np.uint16 if case.bits == 16 else np.uint8)
    assert photo.pixels.shape[2] == (1 if case.channels < 3 else 3)
    assert (photo.alpha is not None) == (case.channels in (2, 4))
    if case.profile == "wide":
        assert "wide".encode("utf-16-be") in (photo.icc_profile or b"")
    if case.frames > 1 or case.name in ("p-bit.png", "p-fax.tif", "p-several.mpo"):
        return  # a square moves over the scene, or it is made of dots
    scene_shown = Image.fromarray(scene()[..., :3])
    if case.channels < 3:  # ImageMagick was given the red samples alone
        scene_shown = scene_shown.getchannel("R") if case.name.startswith("m-") else scene_shown.convert("L")
    if case.name == "m-white-is-zero.tif":  # ImageMagick took the samples for amounts of ink
        scene_shown = ImageOps.invert(scene_shown)
    if case.orientation != 1:
        scene_shown = scene_shown.transpose(TURNS[case.orientation])
    expected = np.asarray(scene_shown).reshape(photo.pixels.shape) / 255
    error = photo.pixels / np.iinfo(photo.pixels.dtype).max - expected
    if photo.alpha is not None:
        error = error[photo.alpha > 0]
    assert np.sqrt(np.mean(error**2)) < (0.12 if "ink" in case.name else 0.08 if case.lossy or case.loses else 0.02)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What exiftool says of the inputs, and of their enlargements in the folder `target`."""
    target = tmp_path_factory.mktemp("out")
    options = UpscaleOptions(model="bicubic", name="{name}{ext}")
    done = upscale([FILES], target, options, lambda _event: None)
    assert [result for result in done if result.status != "done"] == []
    return {
        "target": target,
        "before": metadata(sorted(FILES.iterdir())),
        "after": metadata(sorted(target.iterdir())),
    }


@pytest.mark.needs("imagemagick", "exiftool")
@by_file()
def test_other_programs_agree_with_the_enlargement(case: Case, results: dict[str, Any]) -> None:
    output: Path = results["target"] / f"{case.name}{case.suffix}"
    assert output.exists(), "no output"
    check_kind(case, output, results)
    check_upright(case, output, results)
    check_pixels(case, output, results)
    check_metadata(case, output, results)
    check_dimensions(case, output, results)


def check_kind(case: Case, output: Path, results: dict[str, Any]) -> None:
    width, height = (HEIGHT * 4, WIDTH * 4) if case.turned else (WIDTH * 4, HEIGHT * 4)
    lines = run(IDENTIFY, "-format", "%W %H %z %[channels] %m\n", output).decode().split("\n")
    lines = [line for line in lines if line]
    assert len(lines) == (1 if case.suffix == ".png" else case.frames)
    for line in lines:
        wide, high, depth, channels, _ = line.lower().split(" ")[:5]
        assert (int(wide), int(high), int(depth)) == (width, height, case.bits)
        if case.suffix != ".gif":
            assert ("a" in channels.removeprefix("gray")) == (case.channels in (2, 4))
    said = results["after"][output.name]
    if case.suffix == ".png":
        kinds = {1: 0, 2: 4, 3: 2, 4: 6}
        names = {0: "Grayscale", 2: "RGB", 4: "Grayscale with Alpha", 6: "RGB with Alpha"}
        assert said["PNG:ColorType"] in (kinds[case.channels], names[kinds[case.channels]])
        assert said.get("PNG:AnimationFrames", 1) == case.frames
    elif case.suffix == ".jpg":
        assert said["File:ColorComponents"] == case.channels
    elif case.suffix == ".tif":
        assert said["IFD0:SamplesPerPixel"] == case.channels


def check_upright(case: Case, output: Path, results: dict[str, Any]) -> None:
    said = results["after"][output.name]
    assert all(value in (1, "Horizontal (normal)") for tag, value in said.items() if tag.endswith(":Orientation"))
    assert not any("Thumbnail" in tag for tag in said)


def check_pixels(case: Case, output: Path, results: dict[str, Any]) -> None:
    """ImageMagick reduces the output to the input's size and compares it with what it reads there."""
    limit = 0.08 if case.lossy or case.name == "p-jpeg.tif" else 0.05
    if case.name in ("p-bit.png", "p-fax.tif"):
        limit = 0.25  # dots
    if "ink" in case.name:
        limit = 0.12  # ImageMagick converts ink in another way
    source = FILES / case.name
    for frame in range(case.frames if case.suffix != ".png" else 1):
        shown = []
        for path in (source, output):
            picture = [path, "-coalesce"] if path.suffix in (".gif", ".webp") else [path]
            steps = ["-delete", f"0-{frame - 1}"] if frame else []
            steps += ["-delete", "1--1"] if case.frames > 1 or "several" in case.name or "pyramid" in case.name else []
            if path == source:  # ImageMagick 6 turns only JPEG and TIFF by itself
                turned = {6: ["-rotate", 90], 8: ["-rotate", 270]}
                steps += turned.get(case.orientation, []) if path.suffix in (".png", ".webp") else ["-auto-orient"]
            on_gray = ["-background", "gray50", "-alpha", "remove", "-alpha", "off", "-colorspace", "sRGB"]
            size = f"{HEIGHT}x{WIDTH}!" if case.turned else f"{WIDTH}x{HEIGHT}!"
            shown.append(
                run(MAGICK, *picture, *steps, *on_gray, "-filter", "box", "-resize", size, "-depth", 8, "rgb:-")
            )
        before, after = (np.frombuffer(raw, np.uint8).astype(float) / 255 for raw in shown)
        assert before.shape == after.shape
        assert np.sqrt(np.mean((before - after) ** 2)) < limit


def check_metadata(case: Case, output: Path, results: dict[str, Any]) -> None:
    before, after = results["before"][case.name], results["after"][output.name]
    if case.profile:
        assert case.profile in str(after["ICC_Profile:ProfileDescription"])
    if case.dpi:
        found = [value for tag, value in after.items() if tag.endswith((":XResolution", ":PixelsPerUnitX"))]
        per_inch = [value * 0.0254 if "PNG" in output.suffix.upper() else value for value in found]
        assert per_inch
        assert all(value == pytest.approx(case.dpi, abs=0.1) for value in per_inch)
    for tag, value in case.says.items():
        assert after[tag] == value
    wanted = {
        tag: value for tag, value in before.items() if tag.split(":")[0] in GROUPS and tag.split(":")[-1] not in CHANGED
    }
    if "ink" in case.name:  # which is sRGB now
        wanted = {tag: value for tag, value in wanted.items() if "White" not in tag and "Primary" not in tag}
    assert len(wanted) >= sum(len({tag.split("=")[0] for tag in TAGS[group]}) for group in case.tags)
    if output.suffix == ".webp":
        wanted = {tag: value for tag, value in wanted.items() if not tag.startswith("IPTC")}
    assert {tag: after.get(tag) for tag in wanted} == wanted


def check_dimensions(case: Case, output: Path, results: dict[str, Any]) -> None:
    said = results["after"][output.name]
    width, height = (HEIGHT * 4, WIDTH * 4) if case.turned else (WIDTH * 4, HEIGHT * 4)
    for tag, value in said.items():
        if tag.split(":")[-1] in ("ExifImageWidth", "PixelXDimension"):
            assert value == width
        if tag.split(":")[-1] in ("ExifImageHeight", "PixelYDimension"):
            assert value == height
