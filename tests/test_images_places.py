"""Metadata that describe pixels or attachments follow the picture; exiftool judges. And the cases that once failed."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sr_cli import images
from sr_cli.images import exif, phrases, xmp
from sr_cli.images.decode import oriented
from sr_cli.images.geometry import Move
from tests.foreign import EXIFTOOL, FFMPEG

needs_exiftool = pytest.mark.needs("exiftool")
WIDTH, HEIGHT = 64, 48


def run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], capture_output=True, check=True).stdout


def enlarge(source: Path, target: Path, scale: int = 4) -> list[str]:
    """Every pixel `scale` squared times, by our readers and writers; what was said to be lost."""
    sequence = images.read_all(source)
    frames = []
    for photo in sequence.frames:
        pixels = photo.pixels.repeat(scale, axis=0).repeat(scale, axis=1)
        alpha = None if photo.alpha is None else photo.alpha.repeat(scale, axis=0).repeat(scale, axis=1)
        frames.append(images.with_pixels(photo, pixels, alpha))
    images.write_all(sequence, target, frames=frames)
    return images.losses_of_all(sequence, images.for_target(target))


def facts(path: Path, *options: str) -> dict[str, Any]:
    """What exiftool says, by tag name."""
    [found] = json.loads(run(EXIFTOOL, "-json", "-struct", "-n", *options, path))
    result: dict[str, Any] = found
    return result


def tagged(path: Path, *tags: str) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(path)
    run(EXIFTOOL, "-q", "-m", "-n", "-overwrite_original", *tags, path)
    return path


# Geometry


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_place_turns_with_its_pixel(orientation: int, width: int, height: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    stored = np.zeros((height, width, 1), np.uint8)
    stored[y, x] = 1
    upright = oriented(stored, orientation)
    move = Move((width, height), (upright.shape[1], upright.shape[0]), orientation)
    across, down = move.point(x + 0.5, y + 0.5)
    assert upright[int(down), int(across), 0] == 1
    left, top, wide, high = move.box((x, y, 1, 1))
    assert (round(wide, 9), round(high, 9)) == (1, 1)
    assert upright[round(top), round(left), 0] == 1


# Sizes and places in EXIF and XMP

REGION = (
    "-XMP-mwg-rs:RegionInfo={AppliedToDimensions={W=64,H=48,Unit=pixel},RegionList=["
    "{Area={X=0.25,Y=0.5,W=0.1,H=0.2,Unit=normalized},Type=Face,Name=A},"
    "{Area={X=16,Y=24,W=8,H=12,Unit=pixel},Type=Pet},{Area={X=0.25,Y=0.5,D=0.1,Unit=normalized},Type=Focus}]}"
)


@needs_exiftool
def test_regions_of_the_metadata_working_group(tmp_path: Path) -> None:
    source = tagged(tmp_path / "a.jpg", REGION, "-IFD0:Orientation=8")
    enlarge(source, tmp_path / "b.png")
    info = facts(tmp_path / "b.png")["RegionInfo"]
    assert info["AppliedToDimensions"] == {"W": 192, "H": 256, "Unit": "pixel"}
    face, pet, focus = (region["Area"] for region in info["RegionList"])
    assert {key: face[key] for key in "XYWH"} == {"X": 0.5, "Y": 0.75, "W": 0.2, "H": 0.1}
    assert {key: pet[key] for key in "XYWH"} == {"X": 96, "Y": 192, "W": 48, "H": 32}
    assert (focus["X"], focus["Y"], focus["D"]) == (0.5, 0.75, 0.1)


@needs_exiftool
def test_regions_drawn_in_the_turned_picture_are_not_turned_again(tmp_path: Path) -> None:
    applied = "AppliedToDimensions={W=48,H=64,Unit=pixel},RegionList=[{Area={X=0.2,Y=0.3,W=0.1,H=0.2}}]"
    source = tagged(tmp_path / "a.jpg", f"-XMP-mwg-rs:RegionInfo={{{applied}}}", "-IFD0:Orientation=6")
    enlarge(source, tmp_path / "b.jpg")
    info = facts(tmp_path / "b.jpg")["RegionInfo"]
    assert info["AppliedToDimensions"]["W"] == 192
    assert info["RegionList"][0]["Area"]["X"] == 0.2


@needs_exiftool
def test_people_regions_of_microsoft_and_boundaries_of_iptc(tmp_path: Path) -> None:
    people = "-XMP-MP:RegionInfoMP={Regions=[{Rectangle=0.1\\, 0.2\\, 0.3\\, 0.4,PersonDisplayName=A}]}".replace(
        "\\", "|"
    )
    boundaries = (
        "-XMP-iptcExt:ImageRegion=["
        "{RegionBoundary={RbShape=rectangle,RbUnit=pixel,RbX=8,RbY=4,RbW=16,RbH=12},Name=r},"
        "{RegionBoundary={RbShape=circle,RbUnit=relative,RbX=0.25,RbY=0.5,RbRx=0.12},Name=c},"
        "{RegionBoundary={RbShape=polygon,RbUnit=relative,RbVertices=[{RbX=0.1,RbY=0.2},{RbX=0.3,RbY=0.4}]},Name=p}]"
    )
    source = tagged(tmp_path / "a.jpg", people, boundaries, "-IFD0:Orientation=6")
    enlarge(source, tmp_path / "b.jpg")
    found = facts(tmp_path / "b.jpg")
    rectangle = [float(part) for part in found["RegionInfoMP"]["Regions"][0]["Rectangle"].split(",")]
    assert rectangle == pytest.approx([0.4, 0.1, 0.4, 0.3])
    shapes = [region["RegionBoundary"] for region in found["ImageRegion"]]
    assert [shapes[0][f"Rb{part}"] for part in ("X", "Y", "W", "H")] == [128, 32, 48, 64]
    assert (shapes[1]["RbX"], shapes[1]["RbY"]) == (0.5, 0.25)
    assert shapes[1]["RbRx"] == pytest.approx(0.12 * 64 / 48)
    assert shapes[2]["RbVertices"] == [{"RbX": 0.8, "RbY": 0.1}, {"RbX": 0.6, "RbY": 0.3}]


@needs_exiftool
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_sizes_and_places_of_exif(tmp_path: Path, suffix: str) -> None:
    tags = (
        *("-ExifIFD:SubjectArea=20 10 8 6", "-ExifIFD:SubjectLocation=20 10", "-ExifIFD:ExifImageWidth=64"),
        *("-ExifIFD:ExifImageHeight=48", "-ExifIFD:FocalPlaneXResolution=100", "-ExifIFD:FocalPlaneYResolution=50"),
        *(
            "-IFD0:XResolution=300",
            "-IFD0:YResolution=150",
            "-IFD0:ResolutionUnit=2",
            "-IFD0:Orientation=6",
            "-InteropIFD:RelatedImageWidth=64",
        ),
    )
    source = tagged(tmp_path / "a.jpg", *tags)
    enlarge(source, tmp_path / f"b.{suffix}")
    found = facts(tmp_path / f"b.{suffix}", "-EXIF:all")
    assert found.get("Orientation", 1) == 1
    assert [int(part) for part in found["SubjectArea"].split()] == [(48 - 10) * 4, 20 * 4, 6 * 4, 8 * 4]
    assert [int(part) for part in found["SubjectLocation"].split()] == [(48 - 10) * 4, 20 * 4]
    assert (found["ExifImageWidth"], found["ExifImageHeight"], found["RelatedImageWidth"]) == (192, 256, 192)
    assert (found["FocalPlaneXResolution"], found["FocalPlaneYResolution"]) == (200, 400)
    assert (found["XResolution"], found["YResolution"]) == pytest.approx((150, 300), rel=1e-3)


@needs_exiftool
def test_a_subject_beyond_16_bits_moves_to_wider_numbers(tmp_path: Path) -> None:
    source = tagged(tmp_path / "a.jpg", "-ExifIFD:SubjectLocation=60 40", "-IFD0:Artist=A")
    block = images.read(source).exif
    assert block is not None
    (tmp_path / "a.exif").write_bytes(exif.edited(block, Move((64, 48), (128_000, 96_000))))
    found = facts(tmp_path / "a.exif")
    assert (found["SubjectLocation"], found["Artist"]) == ("120000 80000", "A")


@needs_exiftool
def test_places_of_other_programs(tmp_path: Path) -> None:
    tags = (
        *("-XMP-exif:SubjectArea=20", "-XMP-exif:SubjectArea=10", "-XMP-tiff:ImageWidth=64", "-XMP-tiff:Orientation=6"),
        *("-XMP-crs:CropLeft=0.1", "-XMP-crs:CropTop=0.2", "-XMP-crs:CropRight=0.5", "-XMP-crs:CropBottom=0.8"),
        *("-XMP-crs:HasCrop=true", "-XMP-drone-dji:CalibratedFocalLength=50", "-IFD0:Orientation=6"),
        *("-XMP-GPano:FullPanoWidthPixels=128", "-XMP-GPano:FullPanoHeightPixels=64"),
        *("-XMP-GPano:CroppedAreaLeftPixels=10", "-XMP-GPano:CroppedAreaTopPixels=6"),
        *("-XMP-GPano:CroppedAreaImageWidthPixels=64", "-XMP-GPano:CroppedAreaImageHeightPixels=48"),
    )
    enlarge(tagged(tmp_path / "a.jpg", *tags), tmp_path / "b.webp")
    found = facts(tmp_path / "b.webp", "-XMP:all")
    assert found["SubjectArea"] == [(48 - 10) * 4, 80]
    assert (found["ImageWidth"], found["Orientation"], found["CalibratedFocalLength"]) == (192, 1, 200)
    crop = [found[f"Crop{side}"] for side in ("Left", "Top", "Right", "Bottom")]
    assert crop == pytest.approx([0.2, 0.1, 0.8, 0.5])
    assert (found["FullPanoWidthPixels"], found["FullPanoHeightPixels"]) == (256, 512)
    assert (found["CroppedAreaLeftPixels"], found["CroppedAreaTopPixels"]) == ((64 - 6 - 48) * 4, 40)


@needs_exiftool
def test_edits_that_camera_raw_has_applied_stay(tmp_path: Path) -> None:
    source = tagged(tmp_path / "a.jpg", "-XMP-crs:CropLeft=0.1", "-XMP-crs:AlreadyApplied=true", "-IFD0:Orientation=6")
    enlarge(source, tmp_path / "b.jpg")
    assert facts(tmp_path / "b.jpg")["CropLeft"] == 0.1


@needs_exiftool
def test_thumbnails_go_from_every_directory(tmp_path: Path) -> None:
    """A JPEG stream in the main directory and in EXIF's, where it does not belong, and in the one after."""
    small = Image.new("RGB", (8, 6), (255, 0, 0))
    small.save(tmp_path / "t.jpg")
    stream = (tmp_path / "t.jpg").read_bytes()
    at = 8 + (2 + 4 * 12 + 4) + (2 + 2 * 12 + 4) + (2 + 2 * 12 + 4)
    pair = struct.pack("<HHIIHHII", 0x201, 4, 1, at, 0x202, 4, 1, len(stream))
    exif_at, next_at = 8 + 54, 8 + 54 + 30
    main = struct.pack("<H", 4) + pair[:12] + pair[12:] + struct.pack("<HHI4s", 0x013B, 2, 2, b"A\0\0\0")
    main += struct.pack("<HHII", 0x8769, 4, 1, exif_at) + struct.pack("<I", next_at)
    block = b"II*\0" + struct.pack("<I", 8) + main + 2 * (struct.pack("<H", 2) + pair + bytes(4)) + stream
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    assert "ThumbnailOffset" in facts(tmp_path / "a.jpg")
    enlarge(tmp_path / "a.jpg", tmp_path / "b.jpg")
    found = facts(tmp_path / "b.jpg")
    assert found["Artist"] == "A"
    assert not [tag for tag in found if "Thumbnail" in tag or "Preview" in tag or "OtherImage" in tag]
    assert stream[:40] not in (tmp_path / "b.jpg").read_bytes()


def test_prefixes_are_only_names() -> None:
    """The same namespace under another prefix, and a property as an element or as an attribute."""
    for inner in (
        '<rdf:Description xmlns:q="http://ns.adobe.com/tiff/1.0/" q:ImageWidth="64" q:Orientation="6"/>',
        '<rdf:Description xmlns:q="http://ns.adobe.com/tiff/1.0/"><q:ImageWidth>64</q:ImageWidth></rdf:Description>',
    ):
        packet = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{inner}</rdf:RDF>'.encode()
        found = xmp.edited(packet, Move((64, 48), (192, 256), 6)).packet
        assert found is not None
        assert b"192" in found
        assert b"64" not in found.replace(b"W5M0MpCehiHzreSzNTczkc9d", b"")


def test_what_needs_no_change_stays_byte_for_byte() -> None:
    packet = (
        b'<?xpacket begin=""?><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/> <?xpacket end="w"?>  '
    )
    assert xmp.edited(packet, Move((64, 48), (192, 256), 6)).packet == packet


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>',
        b"<a>" * 100_000,
        b"<rdf:RDF/>",
        b"",
        b"\xff\xfe<\0",
    ],
)
def test_hostile_and_broken_packets_are_left_out_and_named(packet: bytes) -> None:
    assert xmp.edited(packet, Move((4, 3), (8, 6))) == xmp.Edited(None, (xmp.UNREADABLE,))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (phrases.dropped("gain map"), "the gain map is dropped"),
        (phrases.dropped("local edits of Camera Raw"), "the local edits of Camera Raw are dropped"),
        (phrases.other_images(1), "another image is dropped"),
        (phrases.other_images(2), "2 other images are dropped"),
    ],
)
def test_words_for_what_is_dropped(words: str, expected: str) -> None:
    assert words == expected


def test_bytes_after_a_png_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab") as file:
        file.write(b"more")
    assert enlarge(tmp_path / "a.png", tmp_path / "b.png") == ["4 bytes after the image are dropped"]


@needs_exiftool
def test_sixteen_bits_of_ink_are_named(shared: Path) -> None:
    lost = " ".join(images.losses(images.read(shared / "cases" / "cmyk16.tif"), images.by_name("tif")))
    assert "16 bits" in lost
    assert "CMYK becomes sRGB" in lost


# Outputs are not enlarged again


@pytest.mark.parametrize("strip", [[], ["--strip"]], ids=["whole", "stripped"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif"])
def test_an_output_is_known_by_itself(tmp_path: Path, srup_here: Any, suffix: str, strip: list[str]) -> None:
    """In a copied folder and with an emptied cache, and whatever the model's name and the scale."""
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    several = {"save_all": True, "append_images": frames[1:]} if suffix == "gif" else {}
    frames[0].save(first / f"a.{suffix}", **several)
    assert srup_here("upscale", first / f"a.{suffix}", "-m", "bicubic", "--name", "larger{ext}", *strip).returncode == 0
    first.rename(copy)
    empty = {"XDG_CACHE_HOME": str(tmp_path / "other"), "XDG_DATA_HOME": str(tmp_path / "data")}
    again = srup_here("upscale", copy, "-m", "bicubic", "--name", "{stem}-again{ext}", **empty)
    assert again.returncode == 0
    assert "1 photo" in again.stderr
    assert "skipped: outputs of srup" in again.stderr
    assert sorted(path.name for path in copy.iterdir()) == [f"a-again.{suffix}", f"a.{suffix}", f"larger.{suffix}"]
    named = srup_here("upscale", copy / f"larger.{suffix}", "-m", "bicubic", "-o", tmp_path / "huge.png")
    assert named.returncode == 0
    assert "output of srup already" in named.stderr
    assert (tmp_path / "huge.png").exists()


def test_outputs_that_the_shell_named_are_left_out(tmp_path: Path, srup_here: Any) -> None:
    """`srup upscale *.png`: the names are the user's, the wish is not."""
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    assert srup_here("upscale", tmp_path / "a.png", "-m", "bicubic", "-o", tmp_path / "b.png").returncode == 0
    arguments = (tmp_path / "a.png", tmp_path / "b.png", "-o", f"{tmp_path}/out/")
    done = srup_here("upscale", *arguments, "-m", "bicubic", XDG_CACHE_HOME=str(tmp_path / "empty"))
    assert done.returncode == 0
    assert "1 photo skipped: outputs of srup" in done.stderr
    assert [path.name[0] for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_picture_that_another_program_edited_is_no_output() -> None:
    ours = xmp.finished(None, mime="image/png", history="srup 1.0")
    assert ours is not None
    assert xmp.last_software(ours) == "srup 1.0"
    theirs = xmp.finished(ours, mime="image/png", history="Another Program 2")
    assert theirs is not None
    assert xmp.last_software(theirs) == "Another Program 2"


# Cases that once failed


@pytest.fixture
def case(shared: Path) -> Path:
    return shared / "cases"


@needs_exiftool
def test_case_panorama(case: Path, tmp_path: Path) -> None:
    enlarge(case / "gpano.jpg", tmp_path / "b.jpg")
    found = facts(tmp_path / "b.jpg")
    assert (found["FullPanoWidthPixels"], found["FullPanoHeightPixels"]) == (384, 192)
    assert (found["CroppedAreaImageWidthPixels"], found["CroppedAreaImageHeightPixels"]) == (256, 192)
    assert (found["CroppedAreaLeftPixels"], found["CroppedAreaTopPixels"]) == (64, 0)


@needs_exiftool
def test_case_face(case: Path, tmp_path: Path) -> None:
    enlarge(case / "face-region-orientation6.jpg", tmp_path / "b.jpg")
    info = facts(tmp_path / "b.jpg")["RegionInfo"]
    area = info["RegionList"][0]["Area"]
    assert [area[key] for key in "XYWH"] == [0.6875, 0.3125, 0.2083, 0.3125]
    assert (info["AppliedToDimensions"]["W"], info["AppliedToDimensions"]["H"]) == (192, 256)


@needs_exiftool
@pytest.mark.parametrize(("name", "word"), [("gain-map.jpg", "gain map"), ("motion-photo.jpg", "video")])
def test_case_attachments(case: Path, tmp_path: Path, name: str, word: str) -> None:
    assert word in " ".join(enlarge(case / name, tmp_path / "b.jpg"))
    found = facts(tmp_path / "b.jpg", "-XMP:all")
    assert not [tag for tag in found if tag not in ("SourceFile", "XMPToolkit")]


@needs_exiftool
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif"])
def test_case_extended_xmp(case: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"b.{suffix}"
    enlarge(case / "extended-xmp.jpg", target)
    assert len(run(EXIFTOOL, "-b", "-XMP-dc:Description", target)) == 90_000
    assert run(EXIFTOOL, "-s3", "-XMP-dc:Title", target).strip() == b"short"
    assert not run(EXIFTOOL, "-s3", "-Warning", target)
    assert bool(run(EXIFTOOL, "-s3", "-HasExtendedXMP", target)) == (suffix == "jpg")


@needs_exiftool
@pytest.mark.parametrize(
    ("name", "expected"),
    [("com_latin1.jpg", b"Caf\xe9 \xe0 Gen\xe8ve"), ("com_two.jpg", b"first commentsecond comment")],
)
def test_case_comments(case: Path, tmp_path: Path, name: str, expected: bytes) -> None:
    enlarge(case / name, tmp_path / "b.jpg")
    assert run(EXIFTOOL, "-a", "-b", "-Comment", tmp_path / "b.jpg") == expected


@needs_exiftool
@pytest.mark.parametrize("target", ["png", "webp", "gif"])
@pytest.mark.parametrize("name", ["p3-animated.webp", "p3-animated.png", "p3-animated.avif"])
def test_case_profile_of_animations(case: Path, tmp_path: Path, name: str, target: str) -> None:
    enlarge(case / name, tmp_path / f"b.{target}")
    assert facts(tmp_path / f"b.{target}")["ProfileDescription"] == "P3 handmade-1"


@needs_exiftool
@pytest.mark.parametrize(
    ("name", "code"), [("cicp-p3.avif", (12, 13)), ("cicp-pq.avif", (9, 16)), ("major-brand-mif1.avif", None)]
)
def test_case_colours_of_avif(case: Path, tmp_path: Path, name: str, code: tuple[int, int] | None) -> None:
    enlarge(case / name, tmp_path / "b.png")
    found = facts(tmp_path / "b.png")
    assert (found.get("ColorPrimaries"), found.get("TransferCharacteristics")) == (code or (None, None))
    lost = enlarge(case / name, tmp_path / "b.jpg")
    if code == (12, 13):
        assert "H.273 12/13" in facts(tmp_path / "b.jpg")["ProfileDescription"]
    assert bool(lost) == (code == (9, 16))


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("name", ["apng-blend-over.png", "apng-dispose.png"])
def test_case_composition(case: Path, name: str) -> None:
    frames = images.read_all(case / name).frames
    width, height = frames[0].width, frames[0].height
    options = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgba")
    raw = run(FFMPEG, "-v", "error", "-i", case / name, *options, "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 4)
    for ours, expected in zip(frames, theirs, strict=True):
        colours = ours.pixels.repeat(3, axis=2) if ours.is_gray else ours.pixels
        alpha = np.full((height, width), 255, np.uint8) if ours.alpha is None else ours.alpha
        assert np.abs(alpha.astype(int) - expected[..., 3]).max() <= 1
        seen = expected[..., 3] > 0
        assert np.abs(colours[..., :3].astype(int) - expected[..., :3])[seen].max() <= 2


@pytest.mark.parametrize("name", ["orientation6-animated.webp", "orientation6-animated.png"])
def test_case_turned_animation(case: Path, name: str) -> None:
    frames = images.read_all(case / name).frames
    assert {(frame.width, frame.height) for frame in frames} == {(48, 64)}
    with Image.open(case / name) as image:
        for n, frame in enumerate(frames):
            image.seek(n)
            expected = np.asarray(image.convert("RGB").transpose(Image.Transpose.ROTATE_270))
            assert np.abs(frame.pixels.astype(int) - expected).max() <= 1
