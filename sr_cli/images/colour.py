"""Colours that are not gray or RGB yet: palettes, ink, Lab; and grayscale for formats that have none."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageCms

_RGB, _GRAY = b"RGB ", b"GRAY"


@functools.cache
def srgb_profile() -> bytes:
    """Return the sRGB profile that converted images carry."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def space(profile: bytes) -> bytes:
    """Return the colour space that an ICC profile describes, e.g. b"RGB " (ICC.1:2022, 7.2.6)."""
    return profile[16:20]


def fitting(profile: bytes | None, *, gray: bool) -> bytes | None:
    """Return the profile unless it describes another kind of pixels; an RGB profile is valid for gray ones, too."""
    if profile and (space(profile) == _RGB or (gray and space(profile) == _GRAY)):
        return profile
    return None


def gray_or_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert a decoded image of any of Pillow's 8-bit modes to L, LA, RGB or RGBA; with the profile that then fits.

    Gray and RGB keep their numbers and their profile. Ink (CMYK) and Lab are converted to sRGB, through the
    embedded profile if it is usable; ink without one by plain subtraction.
    """
    if image.mode == "CMYK":
        return to_srgb(image, profile if profile and space(profile) == b"CMYK" else None)
    if image.mode == "LAB":
        return to_srgb(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    if image.mode in ("P", "PA"):
        image = _without_palette(image)
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB"))
    return image, fitting(profile, gray=image.mode in ("L", "LA"))


def _without_palette(image: Image.Image) -> Image.Image:
    """Convert a palette image to gray or RGB, with alpha where the palette has any."""
    transparent = image.mode == "PA" or "transparency" in image.info
    wide = image.convert("RGBA" if transparent else "RGB")
    red, green, blue = wide.split()[:3]
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return Image.merge("LA", (red, wide.getchannel("A"))) if transparent else red
    return wide


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert `image` to sRGB, and give that profile: relative colorimetric with black point compensation.

    So photo editors do by default. A profile that cannot be used is as good as none.
    """
    try:
        if profile is not None:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted, srgb_profile()
    except (ImageCms.PyCMSError, OSError):
        pass
    return image.convert("RGB"), None


def gray_to_rgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bytes | None]:
    """Convert L or LA with a grayscale profile to RGB or RGBA in sRGB, for formats without grayscale."""
    rgb, converted = to_srgb(image.getchannel("L"), profile)
    if image.mode == "LA":
        rgb.putalpha(image.getchannel("A"))
    return rgb, converted
