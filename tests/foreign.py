"""Other people's programs that tests compare with, where they are installed."""

from __future__ import annotations

import shutil
import subprocess


def imagemagick(*names: str) -> str | None:
    """The first of these commands that is ImageMagick's: other programs are called `convert` as well."""
    for name in names:
        path = shutil.which(name)
        if path and b"ImageMagick" in subprocess.run([path, "-version"], capture_output=True).stdout:
            return path
    return None


FFMPEG = shutil.which("ffmpeg")
MAGICK = imagemagick("convert-im6", "magick", "convert")
IDENTIFY = imagemagick("identify-im6", "identify")
EXIFTOOL, VIPS = shutil.which("exiftool"), shutil.which("vips")
