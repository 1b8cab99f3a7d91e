"""Makes the README's picture: the sample enlarged by bicubic interpolation and by the bundled networks.

    python tools/make_comparison.py assets/comparison.png MODEL...

Each panel shows the same part of assets/sample.png, enlarged by 4 and shown at twice that size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_cli.inference import Upscaler

CROP = (118, 84, 218, 142)
"""Left, top, right and bottom of the part that is shown, in pixels of the sample."""
ZOOM = 4
CAPTION = 26


def panel(pixels: np.ndarray, name: str) -> Image.Image:
    """One enlarged part under its caption."""
    left, top, right, bottom = (4 * value for value in CROP)
    part = Image.fromarray(pixels[top:bottom, left:right])
    image = Image.new("RGB", (part.width, part.height + CAPTION), "white")
    image.paste(part, (0, CAPTION))
    ImageDraw.Draw(image).text((4, 4), name, font=ImageFont.load_default(16), fill="black")
    return image


def main() -> None:
    target, *names = sys.argv[1:]
    sample = np.asarray(Image.open(Path("assets/sample.png")).convert("RGB"))
    nearest = sample.repeat(4, axis=0).repeat(4, axis=1)
    panels = [panel(nearest, "input")]
    panels += [panel(Upscaler(name, device="cpu").upscale(sample).pixels, name) for name in names]
    columns = 2
    width, height = panels[0].size
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) - 8, rows * (height + 8) - 8), "white")
    for index, image in enumerate(panels):
        sheet.paste(image, (index % columns * (width + 8), index // columns * (height + 8)))
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main()
