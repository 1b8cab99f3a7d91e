"""Puts the same part of several models' outputs next to each other: python tools/make_sheet.py SAVED ORIGINALS MODEL...

SAVED is a folder that `srup eval --save-images` has filled for one data set (`SAVED/MODEL/NAME.png`), ORIGINALS the
photos it was made from. A row a photo, a column a model, the original last; nothing is scaled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CAPTION = 22
GAP = 4


def middle(image: Image.Image, side: int) -> Image.Image:
    """Cut out the middle `side` x `side` pixels of an image, in RGB."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.convert("RGB").crop((left, top, left + side, top + side))


def find(folder: Path, stem: str) -> Path:
    """Find the image of `folder` whose name begins with `stem`. Raises SystemExit where there is none."""
    found = sorted(folder.glob(f"{stem}*"))
    if not found:
        raise SystemExit(f"no image {stem}* in {folder}")
    return found[0]


def sheet(rows: list[list[Image.Image]], captions: list[str]) -> Image.Image:
    """Lay out images of one size, captions above the columns."""
    side = rows[0][0].width
    page = Image.new("RGB", ((side + GAP) * len(captions) - GAP, CAPTION + (side + GAP) * len(rows) - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for column, caption in enumerate(captions):
        draw.text(((side + GAP) * column + 2, 3), caption, font=font, fill="black")
        for row, images in enumerate(rows):
            page.paste(images[column], ((side + GAP) * column, CAPTION + (side + GAP) * row))
    return page


def main() -> None:
    """Parse the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved", type=Path)
    parser.add_argument("originals", type=Path)
    parser.add_argument("models", nargs="+", help="folder in SAVED, or FOLDER=CAPTION")
    parser.add_argument("--side", type=int, default=256, help="pixels of a square (default 256)")
    parser.add_argument("--only", nargs="*", help="names of photos that are wanted, without suffix (default all)")
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.jpg"))
    options = parser.parse_args()
    models = [name.partition("=")[::2] for name in options.models]
    rows = []
    for original in sorted(options.originals.iterdir()):
        if options.only and original.stem not in options.only:
            continue
        paths = [find(options.saved / model, original.stem) for model, _ in models]
        rows.append([middle(Image.open(path), options.side) for path in [*paths, original]])
    sheet(rows, [caption or model for model, caption in models] + ["original"]).save(options.output, quality=88)


if __name__ == "__main__":
    main()
