"""Nothing is lost while `losses` is silent: every pair of input and output format, judged by exiftool.

What exiftool finds in an input must be in the output, with the value that is true for the enlarged picture, or
`losses` must name it.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from sr_cli import images
from sr_cli.images import formats
from tests.foreign import EXIFTOOL

pytestmark = pytest.mark.needs("exiftool")

WIDTH, HEIGHT, SCALE = 12, 8, 2
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = SRGB.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
CAMERA = [
    *("-IFD0:Make=Maker", "-IFD0:Artist=Ännchen", "-ExifIFD:FNumber=2.8", "-ExifIFD:UserComment=Grüße"),
    *("-ExifIFD:ExifImageWidth=12", "-ExifIFD:ExifImageHeight=8", "-GPS:GPSLatitude=48.2", "-GPS:GPSLatitudeRef=N"),
    *("-ExifIFD:SubjectArea=4 2 6 4", "-ExifIFD:FocalPlaneXResolution=100", "-ExifIFD:FocalPlaneYResolution=50"),
]
PACKET = ["-XMP-dc:Creator=Ännchen", "-XMP-xmp:Rating=4", "-XMP-dc:Subject=one", "-XMP-dc:Subject=two"]
CAPTION = ["-IPTC:Caption-Abstract=A caption", "-IPTC:Keywords=one", "-IPTC:Keywords=two"]
PAINTER = ["-Photoshop:URL=https://example.org"]


def scene(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([x * 20, y * 30, 255 - x * 10], axis=2).astype(np.uint8)).convert(mode)


def tagged(path: Path, *tags: str) -> None:
    run(EXIFTOOL, "-q", "-m", "-overwrite_original", "-charset", "iptc=utf8", *tags, path)


def run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], capture_output=True, check=True).stdout


def jpeg(path: Path) -> None:
    scene().save(path, quality=95, icc_profile=WIDE, dpi=(300, 300))
    tagged(path, *CAMERA, *PACKET, *CAPTION, *PAINTER)
    comments = b"".join(struct.pack(">BBH", 0xFF, 0xFE, len(text) + 2) + text for text in (b"first", b"second"))
    path.write_bytes(b"\xff\xd8" + comments + path.read_bytes()[2:])


def jpeg_with_much(path: Path) -> None:
    """Descriptions beyond what one segment holds, in XMP and in IPTC."""
    scene().save(path, quality=95)
    long = path.with_suffix(".txt")
    long.write_text("".join(chr(65 + n % 26) for n in range(90_000)))
    tagged(path, *PACKET, f"-XMP-dc:Description<={long}")
    tagged(path, *(f"-IPTC:Keywords+=keyword {n:056d}" for n in range(1200)))
    long.unlink()


def png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "A title")
    text.add_text("Comment", "A comment")
    text.add_itxt("Author", "山田", lang="ja", tkey="著者")
    text.add(b"tIME", struct.pack(">HBBBBB", 2024, 1, 2, 3, 4, 5))
    text.add(b"bKGD", struct.pack(">HHH", 10, 20, 30))
    text.add(b"sBIT", bytes([5, 6, 5]))
    scene().save(path, pnginfo=text, icc_profile=WIDE, dpi=(200, 200))
    tagged(path, *CAMERA, *PACKET)


def png_with_colours(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"cICP", bytes([12, 13, 0, 1]))
    scene().save(path, pnginfo=info)


def png_hdr(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"cICP", bytes([9, 16, 0, 1]))
    scene().save(path, pnginfo=info)


def webp(path: Path) -> None:
    scene().save(path, lossless=True, icc_profile=WIDE)
    tagged(path, *CAMERA, *PACKET)


def tiff(path: Path) -> None:
    scene().save(path, icc_profile=WIDE, dpi=(150, 150))
    tagged(path, *CAMERA, *PACKET, *CAPTION)


def gif(path: Path) -> None:
    scene().quantize(60).save(path)
    data = path.read_bytes()
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    blocks = b"".join(bytes([len(part)]) + part for part in (WIDE[n : n + 255] for n in range(0, len(WIDE), 255)))
    profile = b"!\xff\x0bICCRGBG1012" + blocks + b"\0"
    path.write_bytes(b"GIF89a" + data[6:at] + b"!\xfe\x05first\0!\xfe\x06second\0" + profile + data[at:])
    tagged(path, *PACKET)


def bmp(path: Path) -> None:
    """A BITMAPV5HEADER with an embedded profile."""
    rows = np.asarray(scene())[::-1, :, ::-1].tobytes()  # 36 bytes a row, a multiple of four
    header = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(rows), len(WIDE), 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(WIDE), 0, 0, 138) + header + rows + WIDE)


def avif(path: Path) -> None:
    scene().save(path, quality=95, icc_profile=WIDE)
    tagged(path, *CAMERA, *PACKET)


INPUTS: dict[str, Callable[[Path], None]] = {
    "a.jpg": jpeg,
    "much.jpg": jpeg_with_much,
    "a.png": png,
    "p3.png": png_with_colours,
    "hdr.png": png_hdr,
    "a.webp": webp,
    "a.tif": tiff,
    "a.gif": gif,
    "a.bmp": bmp,
    "a.avif": avif,
}
OUTPUTS = [output.suffixes[0] for output in formats.OUTPUT_FORMATS]

# How pixels are stored in a file, not what they show; and exiftool's own summaries.
STORAGE = {
    *("ImageWidth", "ImageHeight", "BitDepth", "ColorType", "Compression", "Filter", "Interlace", "BitsPerSample"),
    *("ColorComponents", "EncodingProcess", "YCbCrSubSampling", "YCbCrPositioning", "PhotometricInterpretation"),
    *("SamplesPerPixel", "RowsPerStrip", "StripOffsets", "StripByteCounts", "PlanarConfiguration", "SRGBRendering"),
    *("GIFVersion", "HasColorMap", "ColorResolutionDepth", "BackgroundColorIndex", "VP8Version", "NumColors"),
    *("HorizontalScale", "VerticalScale", "WebP_Flags", "AlphaIsUsed", "NumImportantColors", "BMPVersion", "Planes"),
    *("ImageLength", "PixelsPerMeterX", "PixelsPerMeterY", "RedMask", "GreenMask", "BlueMask", "AlphaMask"),
    *("ColorSpace", "RenderingIntent", "ProfileDataOffset", "ProfileSize", "ExifByteOrder", "XMPToolkit", "Palette"),
    *("CodedCharacterSet", "EnvelopeRecordVersion", "ApplicationRecordVersion", "CurrentIPTCDigest", "IPTCDigest"),
    *("ExifVersion", "ComponentsConfiguration", "FlashpixVersion", "GPSVersionID", "ExifImageWidth", "FrameCount"),
    *("ExifImageHeight", "ResolutionUnit", "JFIFVersion", "PixelUnits", "Transparency", "ImageSize", "Megapixels"),
    *("GammaRed", "GammaGreen", "GammaBlue", "RedEndpoint", "GreenEndpoint", "BlueEndpoint", "Predictor"),
    *("MajorBrand", "MinorVersion", "CompatibleBrands", "HandlerType", "PrimaryItemReference", "ImageSpatialExtent"),
    *("ImagePixelDepth", "AV1ConfigurationVersion", "ChromaFormat", "ChromaSamplePosition", "ColorProfiles"),
    *("MatrixCoefficients", "VideoFullRangeFlag", "MetaImageSize", "MediaDataSize", "MediaDataOffset"),
    *("SignificantBits", "Profile-Id", "XResolution", "YResolution", "PixelsPerUnitX", "PixelsPerUnitY", "Warning"),
    *("HasExtendedXMP", "ProfileName", "BitsPerPixel", "ColorTable"),
    *("DisplayedUnitsX", "DisplayedUnitsY", "FileType", "SubfileType", "ExtraSamples", "AVIFVersion"),
}  # fmt: skip
GROUPS = ("File", "System", "ExifTool", "Composite")
NAMED_BY = {
    "EXIF": ("IFD0", "ExifIFD", "GPS", "InteropIFD"),
    "IPTC": ("IPTC",),
    "Photoshop": ("Photoshop",),
    "profile": ("ICC_Profile", "ICC-header", "ICC-view", "ICC-meas"),
    "text": ("PNG", "GIF", "File"),
    "only PNG": ("PNG",),
    "colour space": ("PNG-cICP",),
}
SCALED = {
    "SubjectArea": lambda value: " ".join(str(int(part) * SCALE) for part in str(value).split()),
    "FocalPlaneXResolution": lambda value: value * SCALE,
    "FocalPlaneYResolution": lambda value: value * SCALE,
}


def facts(paths: list[Path]) -> dict[str, dict[str, list[tuple[str, Any]]]]:
    """By file name and tag: group and value, each as often as it is there."""
    options = ("-json", "-G1:4", "-a", "-n", "-struct", "-api", "LargeFileSupport=1")
    listed = json.loads(run(EXIFTOOL, *options, *paths))
    result: dict[str, dict[str, list[tuple[str, Any]]]] = {}
    for entry in listed:
        found = result.setdefault(Path(entry.pop("SourceFile")).name, {})
        for tag, value in entry.items():
            *groups, name = tag.split(":")
            if name in STORAGE or groups[0] in ("QuickTime", "RIFF") or (groups[0] in GROUPS and name != "Comment"):
                continue
            if (groups[0], name) == ("GIF", "BackgroundColor"):  # an index, of what nobody shows
                continue
            found.setdefault(name.removesuffix("-ja"), []).append((groups[0], value))
    return result


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs, the outputs of each, the losses that were said, and what exiftool finds in all of them."""
    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    losses = {}
    for name, make in INPUTS.items():
        make(folder / name)
        photo = images.read(folder / name)
        larger = np.repeat(np.repeat(photo.pixels, SCALE, axis=0), SCALE, axis=1)
        for suffix in OUTPUTS:
            losses[name + suffix] = images.losses(photo, images.by_name(suffix))
            images.write(images.with_pixels(photo, larger, None), out / f"{name}{suffix}")
    return {"before": facts(sorted(folder.iterdir())), "after": facts(sorted(out.iterdir())), "losses": losses}


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_what_is_in_the_input_is_in_the_output_or_named(judged: dict[str, Any], name: str, suffix: str) -> None:
    before, after = judged["before"][name], judged["after"][name + suffix]
    said = " ".join(judged["losses"][name + suffix])
    silent = []
    for tag, values in before.items():
        there = [value for _, value in after.get(tag, [])]
        for group, value in values:
            expected = SCALED.get(tag, lambda same: same)(value)
            named = any(phrase in said and group in groups for phrase, groups in NAMED_BY.items())
            equivalent = group == "PNG-cICP" and "H.273 12/13" in str(after.get("ProfileDescription"))
            if expected not in there and not named and not equivalent:
                silent.append((group, tag, value, there))
    assert silent == []


def test_the_inputs_are_as_rich_as_they_should_be(judged: dict[str, Any]) -> None:
    before = judged["before"]
    for name, tags in {
        "a.jpg": ("Artist", "GPSLatitude", "Creator", "Keywords", "Comment", "ProfileDescription", "URL"),
        "much.jpg": ("Description", "Keywords"),
        "a.png": ("Artist", "Creator", "Title", "Author", "ModifyDate", "BackgroundColor", "ProfileDescription"),
        "p3.png": ("ColorPrimaries",),
        "a.webp": ("Artist", "Creator", "ProfileDescription"),
        "a.tif": ("Artist", "Creator", "Keywords", "ProfileDescription"),
        "a.gif": ("Creator", "Comment", "ProfileDescription"),
        "a.bmp": ("ProfileDescription",),
        "a.avif": ("Artist", "Creator", "ProfileDescription"),
    }.items():
        assert set(tags) <= set(before[name]), name
    assert len(before["much.jpg"]["Description"][0][1]) == 90_000
    assert len(before["much.jpg"]["Keywords"][0][1]) == 1200


def test_two_comments_stay_two_and_byte_for_byte(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.jpg", comment=b"Caf\xe9")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xfe\0\x07first" + data[2:])
    images.write(images.read(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert run(EXIFTOOL, "-a", "-b", "-Comment", tmp_path / "b.jpg") == b"firstCaf\xe9"
