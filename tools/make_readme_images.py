"""Makes the README's images from assets/kitten.jpg: python tools/make_readme_images.py.

`assets/before-after.jpg` shows a part of the photo as a viewer enlarges it and as `srup upscale` does;
`assets/compare.jpg` is the page of `srup compare` in Chromium.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tests import browser

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PHOTO = ASSETS / "kitten.jpg"
CROP = (14, 6, 144, 126)
"""Left, top, right and bottom of the part that is shown, in pixels of the photo."""
CAPTION = 28


def srup(*arguments: object) -> None:
    """Run a command line of ours that must succeed."""
    subprocess.run([sys.executable, "-m", "sr_cli", *map(str, arguments)], check=True)


def before_after(result: Path, target: Path) -> None:
    """Put the same part of the photo and of its enlargement next to each other."""
    part = tuple(4 * side for side in CROP)
    with Image.open(PHOTO) as photo, Image.open(result) as large:
        before = photo.crop(CROP).resize((part[2] - part[0], part[3] - part[1]), Image.Resampling.BICUBIC)
        after = large.crop(part)
    sheet = Image.new("RGB", (2 * after.width + 8, after.height + CAPTION), "white")
    for left, image, words in ((0, before, "photo, enlarged by a viewer"), (after.width + 8, after, "srup upscale")):
        sheet.paste(image, (left, CAPTION))
        ImageDraw.Draw(sheet).text((left + 4, 5), words, font=ImageFont.load_default(17), fill="black")
    sheet.save(target, quality=90)


def main() -> None:
    """Make both images."""
    with tempfile.TemporaryDirectory() as folder:
        large, page = Path(folder, "large.png"), Path(folder, "compare.html")
        srup("upscale", PHOTO, "-o", large)
        before_after(large, ASSETS / "before-after.jpg")
        srup("compare", PHOTO, "-o", page)
        with browser.running() as chromium:
            shown = chromium.open(page, 1100, 760)
            screenshot = Image.open(io.BytesIO(shown.screenshot()))
        screenshot.convert("RGB").save(ASSETS / "compare.jpg", quality=85)


if __name__ == "__main__":
    main()
