"""Other people's programs and files that tests compare with, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def imagemagick(*names: str) -> str | None:
    """The first of these commands that is ImageMagick's: other programs are called `convert` as well."""
    for name in names:
        path = shutil.which(name)
        if path and b"ImageMagick" in subprocess.run([path, "-version"], capture_output=True).stdout:
            return path
    return None


def icc_profile(space: bytes) -> bytes | None:
    """A colour profile of this machine for `b"CMYK"` or `b"GRAY"`; None where there is none."""
    for folder in ("/usr/share/color/icc", "/usr/share/ghostscript", "/usr/share/libgs"):
        for path in sorted(Path(folder).rglob("*.icc")):
            if (data := path.read_bytes())[16:20] == space:
                return data
    return None


FFMPEG = shutil.which("ffmpeg")
MAGICK = imagemagick("convert-im6", "magick", "convert")
IDENTIFY = imagemagick("identify-im6", "identify")
EXIFTOOL, VIPS = shutil.which("exiftool"), shutil.which("vips")
