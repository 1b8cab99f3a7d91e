"""Real files of every kind, by encoders that are not ours, through `srup upscale`, judged by readers that are not ours.

Pillow, ImageMagick and libvips encode, exiftool writes camera metadata into the files; the whole folder is
enlarged in one call with `-m bicubic`; exiftool and ImageMagick's identify then say what the outputs are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from tests.foreign import EXIFTOOL, IDENTIFY, MAGICK, VIPS

pytestmark = pytest.mark.skipif(
    not (MAGICK and IDENTIFY and EXIFTOOL), reason="ImageMagick and exiftool are not installed"
)

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
    make: Callable[[Path], object]
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


def pillow(mode: str = "RGB", **options: Any) -> Callable[[Path], object]:
    """A maker: the scene in one of Pillow's modes."""

    def make(path: Path) -> None:
        rgba = Image.fromarray(scene())
        if mode == "LA":
            image = Image.merge("LA", (rgba.convert("RGB").convert("L"), rgba.getchannel("A")))
        elif mode == "I;16":
            image = Image.fromarray(np.asarray(rgba.convert("RGB").convert("L")).astype(np.uint16) * 257)
        elif mode == "RGBA":
            image = rgba
        elif mode == "P":
            image = rgba.convert("RGB").quantize(200)
        else:
            image = rgba.convert("RGB").convert(mode)
        image.save(path, **options)

    return make


def magick(*options: object, kind: str = "rgb", bits: int = 8, prefix: str = "") -> Callable[[Path], object]:
    """A maker: raw samples of the scene (kind "gray", "rgb" or "rgba") through ImageMagick."""

    def make(path: Path) -> None:
        samples = scene()[..., : {"gray": 1, "rgb": 3, "rgba": 4}[kind]]
        data = (samples.astype(np.uint16) * 257 + 3).clip(0, 65535).astype(">u2") if bits == 16 else samples
        raw = ["-size", f"{WIDTH}x{HEIGHT}", "-depth", bits, "-endian", "MSB", f"{kind}:-"]
        run(MAGICK, *raw, *options, f"{prefix}{path}", data=data.tobytes())

    return make


def vips(*options: str, kind: str = "ppm") -> Callable[[Path], object]:
    """A maker: the scene through libvips; kind "ppm" (8 bits) or "16" (a raw PPM of 16 bits)."""

    def make(path: Path) -> None:
        if VIPS is None:
            pytest.skip("libvips-tools is not installed")
        source = path.with_suffix(".source.ppm")
        samples = scene()[..., :3]
        data = samples.astype(">u2") * 257 if kind == "16" else samples
        top = 65535 if kind == "16" else 255
        source.write_bytes(
            b"P6 %d %d %d\n" % (WIDTH, HEIGHT, top) + data.astype(">u2" if top > 255 else "u1").tobytes()
        )
        run(VIPS, "copy", source, f"{path}{options[0] if options else ''}")
        source.unlink()

    return make


def frames(format: str, count: int = 4, alpha: bool = False, **options: Any) -> Callable[[Path], object]:
    """A maker: a square that moves, as an animation or as pages."""

    def make(path: Path) -> None:
        images = []
        for n in range(count):
            frame = scene()
            frame[..., 3] = 0 if alpha else 255
            frame[6:14, 3 + 5 * n : 11 + 5 * n] = (255, 0, 0, 255)
            images.append(Image.fromarray(frame if alpha else frame[..., :3]))
        images[0].save(path, format, save_all=True, append_images=images[1:], **options)

    return make


def with_text(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A title")
    info.add_text("Description", "x" * 2000, zip=True)
    info.add_itxt("Author", "山田")
    Image.fromarray(scene()[..., :3]).save(path, pnginfo=info, dpi=(200, 200), icc_profile=WIDE)


CASES = [
    # Pillow
    Case("p-rgb.jpg", pillow(quality=92), tags=ALL_TAGS, lossy=True),
    *(
        Case(f"p-turn{n}.jpg", pillow(quality=92, dpi=(300, 300)), orientation=n, tags=("ifd0", "xmp"), lossy=True)
        for n in range(2, 9)
    ),
    Case("p-gray.jpg", pillow("L"), channels=1, lossy=True, tags=("exif",)),
    Case("p-ink.jpg", pillow("CMYK"), lossy=True),
    Case("p-progressive.jpg", pillow(progressive=True, icc_profile=WIDE, dpi=(240, 240)), profile="wide", dpi=240,
         lossy=True),
    Case("p-comment.jpg", pillow(comment="A comment"), lossy=True, says={"File:Comment": "A comment"}),
    Case("p-rgb.png", pillow(icc_profile=WIDE), profile="wide", tags=("ifd0", "exif", "gps", "xmp")),
    Case("p-rgba.png", pillow("RGBA"), channels=4, tags=("xmp",)),
    Case("p-gray.png", pillow("L"), channels=1),
    Case("p-gray-alpha.png", pillow("LA"), channels=2),
    Case("p-bit.png", pillow("1"), channels=1),
    Case("p-palette.png", pillow("P")),
    Case("p-palette-alpha.png", pillow("P", transparency=b"\0\x80" + b"\xff" * 198), channels=4),
    Case("p-gray16.png", pillow("I;16"), channels=1, bits=16),
    Case("p-text.png", with_text, profile="wide", dpi=200,
         says={"PNG:Title": "A title", "PNG:Description": "x" * 2000, "PNG:Author": "山田"}),
    Case("p-turn.png", pillow(), orientation=8, tags=("ifd0",)),
    Case("p-lossy.webp", pillow(icc_profile=WIDE), profile="wide", tags=("ifd0", "exif", "xmp"), lossy=True),
    Case("p-alpha.webp", pillow("RGBA", lossless=True), channels=4, lossy=True),
    Case("p-turn.webp", pillow(), orientation=6, tags=("ifd0",), lossy=True),
    Case("p-raw.tif", pillow(dpi=(150, 150)), dpi=150, tags=ALL_TAGS),
    Case("p-lzw.tif", pillow(compression="tiff_lzw", icc_profile=WIDE), profile="wide"),
    Case("p-deflate.tif", pillow("RGBA", compression="tiff_adobe_deflate"), channels=4),
    Case("p-jpeg.tif", pillow(compression="jpeg"), tags=("ifd0",)),
    Case("p-fax.tif", pillow("1", compression="group4"), channels=1),
    Case("p-gray16.tif", pillow("I;16"), channels=1, bits=16),
    Case("p-ink.tif", pillow("CMYK")),
    Case("p-palette.tif", pillow("P")),
    Case("p-turn.tif", pillow(), orientation=5, tags=("ifd0",)),
    Case("p-pages.tif", frames("TIFF", 3), frames=3),
    Case("p-rgb.bmp", pillow(), output=".png"),
    Case("p-gray.bmp", pillow("L"), channels=1, output=".png"),
    Case("p-still.gif", pillow("P"), output=".png"),
    Case("p-moving.gif", frames("GIF", duration=120, loop=0), frames=4, lossy=True),
    Case("p-moving-alpha.gif", frames("GIF", alpha=True, duration=120, disposal=2), channels=4, frames=4, lossy=True),
    Case("p-moving.webp", frames("WEBP", duration=120), frames=4, lossy=True),
    Case("p-moving.png", frames("PNG", duration=120), frames=4),
    Case("p-moving-alpha.png", frames("PNG", alpha=True, duration=120), frames=4, channels=4),
    Case("p-several.mpo", frames("MPO", 2), output=".png", lossy=True),
    # ImageMagick
    Case("m-rgb.jpg", magick("-density", "300"), dpi=300, tags=ALL_TAGS, lossy=True),
    Case("m-gray.jpg", magick("-quality", 90, kind="gray"), channels=1, lossy=True),
    Case("m-ink.jpg", magick("-colorspace", "CMYK"), lossy=True),
    Case("m-progressive.jpg", magick("-interlace", "plane", "-sampling-factor", "4:2:0"), lossy=True),
    Case("m-rgb16.png", magick(bits=16), bits=16, tags=("ifd0", "xmp")),
    Case("m-rgba16.png", magick(kind="rgba", bits=16), channels=4, bits=16),
    Case("m-gray16.png", magick(kind="gray", bits=16), channels=1, bits=16),
    Case("m-interlaced16.png", magick("-interlace", "PNG", bits=16), bits=16),
    Case("m-interlaced.png", magick("-interlace", "PNG")),
    Case("m-gray4.png", magick("-depth", 4, "-define", "png:bit-depth=4", kind="gray"), channels=1),
    Case("m-palette.png", magick("-colors", 16, prefix="PNG8:")),
    Case("m-gamma.png", magick("-set", "gamma", "0.9"), says={"PNG:Gamma": 1.1111}),
    Case("m-rgb16-lzw.tif", magick("-compress", "lzw", bits=16), bits=16, tags=ALL_TAGS),
    Case("m-rgb16-zip.tif", magick("-compress", "zip", "-endian", "MSB", bits=16), bits=16, tags=("ifd0", "exif")),
    Case("m-rgba16.tif", magick(kind="rgba", bits=16), channels=4, bits=16),
    Case("m-planes16.tif", magick("-interlace", "plane", bits=16), bits=16),
    Case("m-tiles16.tif", magick("-define", "tiff:tile-geometry=16x16", "-compress", "lzw", bits=16), bits=16),
    Case("m-white-is-zero.tif", magick("-define", "quantum:polarity=min-is-white", kind="gray"), channels=1),
    Case("m-ink.tif", magick("-colorspace", "CMYK")),
    Case("m-lossless.webp", magick("-define", "webp:lossless=true"), lossy=True),
    Case("m-alpha.bmp", magick(kind="rgba"), channels=4, output=".png"),
    Case("m-old.bmp", magick(prefix="BMP3:"), output=".png"),
    # libvips
    Case("v-rgb.png", vips()),
    Case("v-deep.png", vips(kind="16"), bits=16),
    Case("v-interlaced.jpg", vips("[Q=90,interlace]"), lossy=True),
    Case("v-tiles16.tif", vips("[tile,tile-width=16,tile-height=16,compression=deflate]", kind="16"), bits=16),
    Case("v-pyramid.tif", vips("[tile,pyramid,tile-width=16,tile-height=16]")),
    Case("v-lossless.webp", vips("[lossless]"), lossy=True),
]  # fmt: skip

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


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs, outputs, and what was said about both."""
    source = tmp_path_factory.mktemp("in")
    target = tmp_path_factory.mktemp("out")
    for case in CASES:
        if case.name.startswith("v-") and VIPS is None:
            continue
        path = source / case.name
        case.make(path)
        wanted = [tag for group in case.tags for tag in TAGS[group]]
        if case.orientation != 1:
            wanted.append(f"-IFD0:Orientation#={case.orientation}")
        if wanted:
            run(EXIFTOOL, "-q", "-m", "-overwrite_original", "-charset", "iptc=utf8", *wanted, path)
    command = [
        sys.executable,
        "-m",
        "sr_cli",
        "upscale",
        source,
        "-o",
        target,
        "-m",
        "bicubic",
        "--name",
        "{name}{ext}",
    ]
    process = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, check=False)
    said = json.loads(process.stdout) if process.stdout else {"stderr": process.stderr}
    return {
        "code": process.returncode,
        "said": said,
        "source": source,
        "target": target,
        "before": metadata(sorted(source.iterdir())),
        "after": metadata(sorted(target.iterdir())) if any(target.iterdir()) else {},
    }


def test_nothing_failed(results: dict[str, Any]) -> None:
    failures = [entry for entry in results["said"].get("results", [results["said"]]) if entry.get("status") != "done"]
    assert failures == []
    assert results["code"] == 0
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestOutput:
    """Each output by itself."""

    @pytest.fixture
    def output(self, results: dict[str, Any], case: Case) -> Path:
        if case.name.startswith("v-") and VIPS is None:
            pytest.skip("libvips-tools is not installed")
        path: Path = results["target"] / f"{case.name}{case.suffix}"
        assert path.exists(), "no output"
        return path

    def test_size_depth_and_kind(self, case: Case, output: Path, results: dict[str, Any]) -> None:
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

    def test_it_stands_upright(self, case: Case, output: Path, results: dict[str, Any]) -> None:
        said = results["after"][output.name]
        assert all(value in (1, "Horizontal (normal)") for tag, value in said.items() if tag.endswith(":Orientation"))
        assert not any("Thumbnail" in tag for tag in said)

    def test_the_picture_is_the_same(self, case: Case, output: Path, results: dict[str, Any]) -> None:
        """ImageMagick reduces the output to the input's size and compares it with what it reads there."""
        limit = 0.08 if case.lossy or case.name == "p-jpeg.tif" else 0.05
        if case.name in ("p-bit.png", "p-fax.tif"):
            limit = 0.25  # dots
        if "ink" in case.name:
            limit = 0.12  # ImageMagick converts ink in another way
        source = results["source"] / case.name
        for frame in range(case.frames if case.suffix != ".png" else 1):
            shown = []
            for path in (source, output):
                picture = [path, "-coalesce"] if path.suffix in (".gif", ".webp") else [path]
                steps = ["-delete", f"0-{frame - 1}"] if frame else []
                steps += (
                    ["-delete", "1--1"] if case.frames > 1 or "several" in case.name or "pyramid" in case.name else []
                )
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

    def test_metadata(self, case: Case, output: Path, results: dict[str, Any]) -> None:
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
            tag: value
            for tag, value in before.items()
            if tag.split(":")[0] in GROUPS and tag.split(":")[-1] not in CHANGED
        }
        if "ink" in case.name:  # which is sRGB now
            wanted = {tag: value for tag, value in wanted.items() if "White" not in tag and "Primary" not in tag}
        assert len(wanted) >= sum(len({tag.split("=")[0] for tag in TAGS[group]}) for group in case.tags)
        if output.suffix == ".webp":
            wanted = {tag: value for tag, value in wanted.items() if not tag.startswith("IPTC")}
        assert {tag: after.get(tag) for tag in wanted} == wanted

    def test_dimensions_in_metadata_follow(self, case: Case, output: Path, results: dict[str, Any]) -> None:
        said = results["after"][output.name]
        width, height = (HEIGHT * 4, WIDTH * 4) if case.turned else (WIDTH * 4, HEIGHT * 4)
        for tag, value in said.items():
            if tag.split(":")[-1] in ("ExifImageWidth", "PixelXDimension"):
                assert value == width
            if tag.split(":")[-1] in ("ExifImageHeight", "PixelYDimension"):
                assert value == height
