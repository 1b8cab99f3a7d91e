"""Rules for XMP properties that hold a size, a position or a reference to appended data: turn, scale or remove.

docs/photos.md lists the same for readers. Specifications: XMP part 2 (tiff, exif, crs, xmpDM); Metadata Working
Group, "Guidelines for Handling Image Metadata", 2.0, 5.9 (regions); IPTC Photo Metadata 2023.1 (ImageRegion);
Microsoft, "People Tagging Overview"; Google, "Photo Sphere XMP Metadata", "Depthmap Metadata", "Dynamic Depth",
"Motion Photo format 1.0"; Android, "Ultra HDR Image Format"; DJI, "Image metadata".
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from sr_cli.images.exif import moved_subject
from sr_cli.images.geometry import Move
from sr_cli.images.xmp_names import HAS_EXTENDED, NAMESPACES, RDF, name

Edit = Callable[["Tree", ET.Element, Move], None]


class Tree:
    """The tree under change: properties are attributes or elements, and RDF treats both alike."""

    def __init__(self, root: ET.Element) -> None:
        self.root = root
        self.changed = False
        self.lost: dict[str, None] = {}
        self.seen: set[int] = set()

    def text(self, node: ET.Element, short: str) -> str | None:
        """Return the value of a node's property; None if it has none, or one that is no text."""
        full = name(short)
        if full in node.attrib:
            return node.attrib[full].strip()
        child = node.find(full)
        return None if child is None or len(child) else (child.text or "").strip()

    def number(self, node: ET.Element, short: str) -> float | None:
        """Return a property's value as a number; None if it is absent, no number or without bounds."""
        text = self.text(node, short)
        try:
            value = float(Fraction(text)) if text else math.nan
        except (ValueError, ZeroDivisionError, OverflowError):
            return None
        return value if math.isfinite(value) and abs(value) < 1e12 else None

    def numbers(self, node: ET.Element, *shorts: str) -> list[float] | None:
        """Return several properties; None unless all are numbers."""
        found = [value for short in shorts if (value := self.number(node, short)) is not None]
        return found if len(found) == len(shorts) else None

    def set(self, node: ET.Element, short: str, value: float | str) -> None:
        """Change a property that is there."""
        text = value if isinstance(value, str) else f"{round(value, 9):.12g}"
        full = name(short)
        child = node.find(full)
        if full in node.attrib:
            self.changed |= node.attrib[full] != text
            node.attrib[full] = text
        elif child is not None and not len(child):
            self.changed |= child.text != text
            child.text = text

    def change(
        self, node: ET.Element, shorts: Sequence[str], function: Callable[..., Iterable[float]], pixels: bool = False
    ) -> bool:
        """Replace several properties by what a function makes of them, if all are numbers; whether they are.

        pixels: they are whole numbers.
        """
        values = self.numbers(node, *shorts)
        if values is None:
            return False
        for short, value in zip(shorts, function(*values), strict=True):
            self.set(node, short, round(value) if pixels else value)
        return True

    def remove(self, node: ET.Element, full: str) -> bool:
        """Take a property out; whether it was there."""
        there = node.attrib.pop(full, None) is not None
        for child in node.findall(full):
            node.remove(child)
            there = True
        self.changed |= there
        return there


def apply(root: ET.Element, move: Move) -> tuple[bool, tuple[str, ...]]:
    """Change the tree for the moved image; whether anything changed, and what was promised and is lost."""
    tree = Tree(root)
    for edit in _REMOVALS:
        for node in list(root.iter()):
            edit(tree, node, move)
    for edit in _EDITS:
        for node in root.iter():
            edit(tree, node, move)
    return tree.changed, tuple(tree.lost)


# Sizes and places


def _sizes(tree: Tree, node: ET.Element, move: Move) -> None:
    tree.set(node, "tiff:Orientation", 1)
    for width, height in (("tiff:ImageWidth", "tiff:ImageLength"), ("exif:PixelXDimension", "exif:PixelYDimension")):
        tree.set(node, width, move.after[0])
        tree.set(node, height, move.after[1])
    _swap(tree, node, "tiff:XResolution", "tiff:YResolution", move)


def _swap(tree: Tree, node: ET.Element, first: str, second: str, move: Move) -> None:
    a, b = tree.text(node, first), tree.text(node, second)
    if move.swaps and a is not None and b is not None:
        tree.set(node, first, b)
        tree.set(node, second, a)


def _focal_plane(tree: Tree, node: ET.Element, move: Move) -> None:
    across, down = "exif:FocalPlaneXResolution", "exif:FocalPlaneYResolution"
    _swap(tree, node, across, down, move)
    for short, scale in zip((across, down), move.scale, strict=True):
        value = tree.number(node, short)
        if value is not None and scale != 1:
            ratio = (Fraction(value) * Fraction(scale)).limit_denominator(10_000)
            tree.set(node, short, f"{ratio.numerator}/{ratio.denominator}")


def _floats(texts: Iterable[str]) -> list[float]:
    """Read texts as numbers; none unless all are finite."""
    try:
        values = list(map(float, texts))
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _subject(tree: Tree, node: ET.Element, move: Move) -> None:
    """Move a sequence of 2 to 4 numbers, as in EXIF."""
    if node.tag not in (name("exif:SubjectArea"), name("exif:SubjectLocation")):
        return
    items = list(node.iter(RDF + "li"))
    values = _floats(item.text or "" for item in items)
    if 2 <= len(values) <= 4:
        for item, value in zip(items, moved_subject(values, move), strict=True):
            tree.changed |= item.text != str(value)
            item.text = str(value)


def _panorama(tree: Tree, node: ET.Element, move: Move) -> None:
    """Scale GPano's place in the full sphere, and the largest rectangle without black in the image."""
    full = tree.numbers(node, "GPano:FullPanoWidthPixels", "GPano:FullPanoHeightPixels")
    area = [f"GPano:CroppedArea{part}" for part in ("LeftPixels", "TopPixels", "ImageWidthPixels", "ImageHeightPixels")]
    inner = [f"GPano:LargestValidInteriorRect{part}" for part in ("Left", "Top", "Width", "Height")]
    for shorts, within in ((area, full), (inner, list(move.before))):
        size = (within[0], within[1]) if within and min(within) > 0 else None
        if not (size and tree.change(node, shorts, lambda *area, size=size: move.box(area, size), pixels=True)):
            _scale_pair(tree, node, shorts[2], shorts[3], move)
    _scale_pair(tree, node, "GPano:FullPanoWidthPixels", "GPano:FullPanoHeightPixels", move)


def _scale_pair(tree: Tree, node: ET.Element, width: str, height: str, move: Move) -> None:
    tree.change(node, (width, height), lambda *size: move.scaled_size(size), pixels=True)


_APPLIED = (name("mwg-rs:AppliedToDimensions"), name("acdsee-rs:AppliedToDimensions"))


def _regions(tree: Tree, node: ET.Element, move: Move) -> None:
    """Move the regions of faces, pets, focus and bar codes, and the size of the image that they were drawn in."""
    applied = next((child for child in node if child.tag in _APPLIED), None)
    if applied is None:
        return
    holder = next((part for part in applied.iter() if tree.numbers(part, "stDim:w", "stDim:h")), applied)
    size = tree.numbers(holder, "stDim:w", "stDim:h")
    if size and min(size) <= 0:
        size = None
    if size and _is_upright_already(size, move):
        width, height = move.turned_size(move.before)
        move = Move((round(width), round(height)), move.after)
    for part in node.iter():
        _area(tree, part, move, (size[0], size[1]) if size else None)
    if size:
        _scale_pair(tree, holder, "stDim:w", "stDim:h", move)


def _is_upright_already(size: list[float], move: Move) -> bool:
    """Return whether regions were drawn in the turned image: then their image has its proportions."""
    (width, height), ratio = move.before, size[0] / size[1]
    return move.swaps and abs(ratio - height / width) < 0.01 * ratio < abs(ratio - width / height)


def _area(tree: Tree, node: ET.Element, move: Move, within: tuple[float, float] | None = None) -> None:
    """Move a centre, and a width and height or a diameter; the diameter is a share of the shorter side."""
    if id(node) in tree.seen:
        return
    for prefix in ("stArea", "acdsee-stArea"):
        x, y, width, height = (f"{prefix}:{part}" for part in "xywh")
        centre, size = tree.numbers(node, x, y), tree.numbers(node, width, height)
        if centre is None:
            continue
        tree.seen.add(id(node))
        if tree.text(node, f"{prefix}:unit") == "pixel":
            moved = move.point(centre[0], centre[1], within)
            sides = move.scaled_size((size[0], size[1])) if size else ()
            if (diameter := tree.number(node, f"{prefix}:d")) is not None:
                tree.set(node, f"{prefix}:d", diameter * min(move.scale))
        else:
            moved = move.share(centre[0], centre[1])
            sides = move.turned_size((size[0], size[1])) if size else ()
        for short, value in zip((x, y, width, height), (*moved, *sides), strict=False):
            tree.set(node, short, value)


def _people(tree: Tree, node: ET.Element, move: Move) -> None:
    """Move Microsoft's rectangles: left, top, width and height as shares, in one text."""
    values = _floats((tree.text(node, "MPReg:Rectangle") or "").split(","))
    if len(values) == 4 and move.orientation != 1:
        moved = move.box_share(*values)
        tree.set(node, "MPReg:Rectangle", ", ".join(f"{round(value, 9):.9g}" for value in moved))


def _boundary(tree: Tree, node: ET.Element, move: Move) -> None:
    """Move IPTC's region boundary: a rectangle, a circle or a polygon, in pixels or shares."""
    unit = tree.text(node, "Iptc4xmpExt:rbUnit")
    if unit not in ("pixel", "relative"):
        return
    pixel = unit == "pixel"
    x, y, width, height, radius = (f"Iptc4xmpExt:rb{part}" for part in ("X", "Y", "W", "H", "Rx"))
    if not tree.change(node, (x, y, width, height), lambda *area: move.box(area) if pixel else move.box_share(*area)):
        for part in node.iter():
            tree.change(part, (x, y), move.point if pixel else move.share)
    if (length := tree.number(node, radius)) is not None:  # a share of the width
        tree.set(node, radius, length * (move.scale[0] if pixel else move.before[0] / move.upright[0]))


def _focus(tree: Tree, node: ET.Element, move: Move) -> None:
    tree.change(node, ("GFocus:FocalPointX", "GFocus:FocalPointY"), move.share)


def _drone(tree: Tree, node: ET.Element, move: Move) -> None:
    """Scale DJI's lens calibration, in pixels."""
    if (length := tree.number(node, "drone-dji:CalibratedFocalLength")) is not None:
        tree.set(node, "drone-dji:CalibratedFocalLength", length * move.scale[0])
    tree.change(node, ("drone-dji:CalibratedOpticalCenterX", "drone-dji:CalibratedOpticalCenterY"), move.point)
    date, _, rest = (tree.text(node, "drone-dji:DewarpData") or "").partition(";")
    values = rest.split(",")
    if len(values) > 4:  # focal lengths and offset of the centre, then coefficients without a unit
        if move.orientation != 1:
            tree.remove(node, name("drone-dji:DewarpData"))
            tree.lost["lens calibration"] = None
            return
        if lengths := _floats(values[:4]):
            scaled = (f"{value * move.scale[index % 2]:.12g}" for index, value in enumerate(lengths))
            tree.set(node, "drone-dji:DewarpData", f"{date};{','.join([*scaled, *values[4:]])}")


_LOCAL_EDITS = [
    name(f"crs:{local}")
    for local in (
        *("RetouchInfo", "RetouchAreas", "RedEyeInfo", "GradientBasedCorrections", "CircularGradientBasedCorrections"),
        *("PaintBasedCorrections", "MaskGroupBasedCorrections", "UprightGuidedTransforms", "PointColors"),
        *("PerspectiveVertical", "PerspectiveHorizontal", "PerspectiveRotate", "PerspectiveX", "PerspectiveY"),
    )
]


def _camera_raw(tree: Tree, node: ET.Element, move: Move) -> None:
    """Move Camera Raw's edits that are still to be applied; shares, of the image as it is stored."""
    if str(tree.text(node, "crs:AlreadyApplied")).lower() == "true":
        return
    if str(tree.text(node, "crs:CropUnits") or tree.text(node, "crs:CropUnit")) == "0":
        _scale_pair(tree, node, "crs:CropWidth", "crs:CropHeight", move)
    if move.orientation == 1:
        return

    def crop(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        left, top, width, height = move.box_share(left, top, right - left, bottom - top)
        return left, top, left + width, top + height

    tree.change(node, ("crs:CropLeft", "crs:CropTop", "crs:CropRight", "crs:CropBottom"), crop)
    angle = tree.number(node, "crs:CropAngle")
    if angle and move.orientation in (2, 4, 5, 7):  # mirrored
        tree.set(node, "crs:CropAngle", -angle)
    removed = [local for local in _LOCAL_EDITS if tree.remove(node, local)]
    if removed:
        tree.lost["local edits of Camera Raw that were not applied"] = None


def _video_frame(tree: Tree, node: ET.Element, move: Move) -> None:
    if node.tag == name("xmpDM:videoFrameSize"):
        for part in node.iter():
            _scale_pair(tree, part, "stDim:w", "stDim:h", move)


_EDITS: tuple[Edit, ...] = (
    *(_sizes, _focal_plane, _subject, _panorama, _regions, _area, _people, _boundary, _focus, _drone, _camera_raw),
    _video_frame,
)


# Promises of more bytes than the image's


_SEMANTICS = {"GainMap": "gain map", "MotionPhoto": "video", "Depth": "depth map", "DepthMap": "depth map"}
_NAMESPACES_OF_ATTACHMENTS = {
    NAMESPACES["hdrgm"]: "gain map",
    NAMESPACES["HDRGainMap"]: "gain map",
    NAMESPACES["apdi"]: "gain map",
    NAMESPACES["GDepth"]: "depth map",
    "http://ns.google.com/photos/dd/1.0/": "depth map",
    NAMESPACES["GImage"]: "second image inside XMP",
    NAMESPACES["MiCamera"]: "attachments of the camera",
}


def _attachments(tree: Tree, node: ET.Element, move: Move) -> None:
    for full in _names(node):
        what = next((what for uri, what in _NAMESPACES_OF_ATTACHMENTS.items() if full.startswith("{" + uri)), None)
        if what and tree.remove(node, full):
            tree.lost[what] = None


def _directory(tree: Tree, node: ET.Element, move: Move) -> None:
    """Remove the list of what is appended to the file, which is not appended to the output."""
    for directory in node.findall(name("Container:Directory")):
        for item in directory.iter():
            semantic = tree.text(item, "Item:Semantic")
            if semantic and semantic != "Primary":
                tree.lost[_SEMANTICS.get(semantic, f"attachment {semantic[:40]}")] = None
    tree.remove(node, name("Container:Directory"))


def _video(tree: Tree, node: ET.Element, move: Move) -> None:
    promised = (tree.text(node, "GCamera:MotionPhoto"), tree.text(node, "GCamera:MicroVideo"))
    for full in _names(node):
        camera = any(full.startswith(name(f"GCamera:{start}")) for start in ("MotionPhoto", "MicroVideo"))
        oplus = any(full.startswith(name(f"OpCamera:{start}")) for start in ("MotionPhoto", "VideoLength"))
        if (camera and "1" in promised) or oplus:
            tree.remove(node, full)
            tree.lost["video"] = None


def _thumbnails(tree: Tree, node: ET.Element, move: Move) -> None:
    """Remove thumbnails, which show the old image, and pointers to extended XMP, which is joined by now."""
    for full in (name("xmp:Thumbnails"), HAS_EXTENDED):
        tree.remove(node, full)


def _names(node: ET.Element) -> Iterable[str]:
    """List the properties of a node, each once."""
    return list(dict.fromkeys([*node.attrib, *(child.tag for child in node)]))


_REMOVALS: tuple[Edit, ...] = (_directory, _video, _attachments, _thumbnails)
