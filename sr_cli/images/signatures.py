"""Formats told apart by a file's first bytes, which decide alone which decoder opens it.

Sources: the formats' own specifications; brands of ISO base media files (HEIF, AVIF, Canon's CR3, video) from
ISO/IEC 14496-12, 4.3, ISO/IEC 23008-12, annex B, and the AV1 Image File Format, 6.
"""

from __future__ import annotations

import struct

from sr_cli.errors import InputError
from sr_cli.images.formats import READABLE

HEAD_BYTES = 4096  #: Bytes from a file's beginning that are enough to tell its format.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OURS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((signature, "TIFF") for signature in TIFF_SIGNATURES),
)
_RAW = (
    *(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM", b"IIII", b"MMMM", b"ARRI"),
    *(b"RED1", b"RED2", b"II\x1a\0\0\0HEAPCCDR"),
)
"""Fujifilm, Panasonic and Leica, Olympus, Sigma, Minolta, Phase One, ARRI, RED, old Canon."""
_OTHERS = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"II\xbc", "a JPEG XR image"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"\0\0\1\0", "an icon"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI image"),
    (b"gimp xcf", "a GIMP document"),
    (b"\x8aMNG", "an MNG animation"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\x1aE\xdf\xa3", "a video"),
    *((b"P%d" % kind + space, "a PNM image") for kind in range(1, 8) for space in (b"\n", b" ", b"\r", b"\t")),
)
_WEB_PAGES = (b"<!doctype", b"<html", b"<svg", b"<?xml")
_AVIF_BRANDS = {b"avif", b"avis", b"avio"}
_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_STILL_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf", b"jpeg", b"jpgs"}
"""Images in a container of ISO/IEC 23008-12, whatever codec compresses them."""


def identify(name: str, head: bytes) -> str:
    """Tell the format, by Pillow's name, of a file called `name` that begins with `head` (`HEAD_BYTES`).

    Raises InputError for a format that is not opened, by name where it is known.
    """
    for signature, format in _OURS:
        if head.startswith(signature):
            return format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _identify_media(name, head)
    if head.startswith(_RAW):
        raise raw_photo(name)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        raise _not_opened(name, "a video")
    for signature, what in _OTHERS:
        if head.startswith(signature):
            raise _not_opened(name, what)
    if head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGES):
        raise _not_opened(name, "a web page or a drawing (SVG)")
    raise InputError(f"{name}: not a photo in a format that can be read ({', '.join(READABLE)}), or damaged")


def raw_photo(name: str) -> InputError:
    """Build the error for the raw data of a camera's sensor."""
    return InputError(f"{name}: a raw photo; develop it first: save it as TIFF, PNG or JPEG with a raw converter")


def _not_opened(name: str, what: str) -> InputError:
    return InputError(f"{name}: is {what}, which cannot be read; convert it first, to PNG or TIFF for example")


def _brands(head: bytes) -> list[bytes]:
    """List the major brand of an ISO base media file and the compatible ones."""
    (size,) = struct.unpack_from(">I", head)
    return [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head) - 3), 4))]


def _identify_media(name: str, head: bytes) -> str:
    """Tell HEIF from AVIF: by the codec of the items, else by the first brand that names a codec.

    `mif1` as the major brand says only that the file holds images, and some programs put in a wrong one.
    """
    brands = _brands(head)
    for brand, error in ((b"crx ", raw_photo(name)), (b"jxl ", _not_opened(name, "a JPEG XL image"))):
        if brand in brands[:1]:
            raise error
    if not (_AVIF_BRANDS | _HEVC_BRANDS | _STILL_BRANDS) & set(brands):
        raise _not_opened(name, "a video")
    av1, hevc = b"av01" in head, b"hvc1" in head  # types of items, in `iinf`
    if av1 != hevc:
        return "AVIF" if av1 else "HEIF"
    named = next((brand for brand in brands if brand in _AVIF_BRANDS | _HEVC_BRANDS), b"")
    return "AVIF" if named in _AVIF_BRANDS else "HEIF"


def with_codec(format: str, head: bytes) -> bytes:
    """Name the codec in the brands of `head`, which begins a file of `format` ("AVIF", "HEIF").

    Decoders look at the major brand, or demand that the codec's is among the compatible ones. An animation's brand
    is kept, whatever its place.
    """
    brands = _brands(head)
    if format == "HEIF":
        brand = brands[0] if brands[0] in _HEVC_BRANDS else b"heic"
    else:
        brand = b"avis" if b"avis" in brands else b"avif"
    if brand not in brands[1:] and len(brands) > 1:
        head = head[:16] + brand + head[20:]
    return head[:8] + brand + head[12:]
