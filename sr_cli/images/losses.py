"""Names the metadata of a photo that an output format cannot hold."""

from __future__ import annotations

import math

from sr_cli.images import exif, formats, jpeg, png, profiles
from sr_cli.images.formats import OutputFormat
from sr_cli.images.photo import Photo, PhotoSequence, without_metadata


def losses(photo: Photo, output: OutputFormat) -> list[str]:
    """List what of a photo was not read, and what the format cannot hold, for people: one short phrase each."""
    return list(dict.fromkeys([*photo.notes, *_of_pixels(photo, output), *_of_metadata(photo, output)]))


def losses_of_all(sequence: PhotoSequence, output: OutputFormat, *, strip: bool = False) -> list[str]:
    """List what of all pages or frames was not read or cannot be held, each phrase once.

    strip: metadata are not wanted, so their loss is none.
    """
    frames = map(without_metadata, sequence.frames) if strip else sequence.frames
    lost = [phrase for photo in frames for phrase in losses(photo, output)]
    longest = formats.LONGEST_MS.get(output.name, math.inf)
    if sequence.kind == "animation" and max(sequence.durations_ms) > longest:
        lost.append(f"frames are shown for {longest / 1000:g} s at most")
    return list(dict.fromkeys(lost))


def _of_pixels(photo: Photo, output: OutputFormat) -> list[str]:
    lost = []
    if photo.bits == 16 and not output.sixteen_bits:
        lost.append("16 bits per sample become 8")
    if photo.alpha is not None and not output.alpha:
        lost.append("transparency is laid on white")
    if output is formats.GIF:
        lost.append("colours are reduced to 255 per frame")
    if photo.icc_profile is not None and not profiles.fits(photo, output):
        lost.append("the colour profile is dropped: it does not fit these pixels in this format")
    if output is formats.PNG or photo.icc_profile is not None or png.says_srgb(photo):
        return lost
    if profiles.equivalent(photo) is None:
        lost.append("the colour space, which is not sRGB and cannot be given as an ICC profile, is dropped")
    return lost


def _of_metadata(photo: Photo, output: OutputFormat) -> list[str]:
    lost = list(jpeg.metadata(photo).lost) if output is formats.JPEG else []
    if output is formats.GIF and photo.exif:
        lost.append("EXIF is dropped")
    # WebP can say the resolution in EXIF only.
    said_in_exif = output is formats.WEBP and photo.exif is not None and exif.has(photo.exif, exif.X_RESOLUTION)
    if output in (formats.WEBP, formats.GIF):
        lost += ["the printing resolution is dropped"] if photo.dpi and not said_in_exif else []
        lost += ["IPTC is dropped"] if photo.iptc else []
        lost += ["Photoshop's own data are dropped"] if photo.photoshop else []
    if (output is formats.TIFF) != (photo.source_format == "TIFF") and photo.exif:
        # TIFF holds EXIF in its own directories, elsewhere in the file; a maker's offsets do not follow.
        moved = exif.has(photo.exif, exif.MAKER_NOTE)
        lost += ["maker notes are moved, which some programs cannot read"] if moved else []
    if output is formats.TIFF and photo.dpi is None and photo.exif and exif.has(photo.exif, exif.X_RESOLUTION):
        lost.append("the resolution, which has no unit, is dropped")
    if output is not formats.PNG:
        lost += _only_in_png(photo, comments=output in (formats.JPEG, formats.GIF))
    return lost


def _only_in_png(photo: Photo, *, comments: bool) -> list[str]:
    """Say for each kind of chunk whether the format holds it otherwise; comments, for one."""
    lost = []
    if any(key != "Comment" or not comments for key, _ in photo.text):
        lost.append("text is dropped")
    if photo.png_chunks:
        kinds = sorted({kind.decode("latin-1") for kind, _ in photo.png_chunks})
        lost.append(f"PNG chunks without an equivalent are dropped ({', '.join(kinds)})")
    return lost
