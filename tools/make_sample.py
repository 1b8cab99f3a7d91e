"""Draws the sample photograph of the README: fine texture, text and edges, all our own.

    python tools/make_sample.py assets/sample.png

A small scene is drawn four times too large and reduced, as a camera's optics would, so that its edges are
antialiased like a photograph's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT, OVERSAMPLING = 240, 160, 4


def _noise(rng: np.random.Generator, height: int, width: int, grain: int) -> np.ndarray:
    """Smooth noise in -1..1 with features of about `grain` pixels."""
    coarse = rng.uniform(-1, 1, (height // grain + 3, width // grain + 3)).astype(np.float32)
    image = Image.fromarray(coarse).resize((width + 2 * grain, height + 2 * grain), Image.Resampling.BICUBIC)
    return np.asarray(image)[:height, :width]


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    clouds = sum(_noise(rng, height, width, grain) / (k + 1) for k, grain in enumerate((260, 120, 60, 30)))
    cloud = np.clip(clouds * 0.7 - 0.1, 0, 1) * (1 - down * 0.6)
    blue = np.stack([90 + 80 * down + 0 * cloud, 140 + 60 * down + 0 * cloud, 205 + 20 * down + 0 * cloud], axis=2)
    return blue + (245 - blue) * cloud[:, :, None]


def _hills(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    for base, amplitude, colour in ((0.52, 0.08, (96, 124, 138)), (0.60, 0.06, (84, 112, 92))):
        line = _noise(rng, 1, width, 170)[0] * amplitude + _noise(rng, 1, width, 23)[0] * amplitude * 0.15
        points = [(x, height * (base + float(line[x]))) for x in range(width)]
        draw.polygon([(0, height), *points, (width, height)], fill=colour)


def _house(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    left, top, right, bottom = (int(v) for v in (0.10 * width, 0.42 * height, 0.52 * width, 0.86 * height))
    brick_height, brick_width = 14, 34
    draw.rectangle((left, top, right, bottom), fill=(188, 178, 166))
    for row, y in enumerate(range(top, bottom, brick_height)):
        for x in range(left - (row % 2) * brick_width // 2, right, brick_width):
            shade = int(rng.integers(-22, 22))
            box = (max(x, left) + 1, y + 1, min(x + brick_width - 3, right), min(y + brick_height - 3, bottom))
            if box[2] > box[0] and box[3] > box[1]:
                draw.rectangle(box, fill=(162 + shade, 84 + shade, 62 + shade // 2))
    roof_top, eaves = int(0.24 * height), 26
    draw.polygon([(left - eaves, top), ((left + right) // 2, roof_top), (right + eaves, top)], fill=(74, 62, 66))
    for k in range(1, 12):
        y = top - k * (top - roof_top) // 12
        half = (right - left + 2 * eaves) * (12 - k) // 24
        middle = (left + right) // 2
        draw.line((middle - half, y, middle + half, y), fill=(106, 92, 94), width=3)
    for x in (0.16, 0.38):
        box = tuple(int(v) for v in (x * width, 0.52 * height, (x + 0.09) * width, 0.68 * height))
        draw.rectangle(box, fill=(236, 230, 214))
        draw.rectangle((box[0] + 6, box[1] + 6, box[2] - 6, box[3] - 6), fill=(58, 78, 98))
        draw.line(((box[0] + box[2]) // 2, box[1], (box[0] + box[2]) // 2, box[3]), fill=(236, 230, 214), width=5)
        draw.line((box[0], (box[1] + box[3]) // 2, box[2], (box[1] + box[3]) // 2), fill=(236, 230, 214), width=5)


def _grass(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    ground = int(0.84 * height)
    draw.rectangle((0, ground, width, height), fill=(74, 104, 50))
    for _ in range(5200):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(ground, height + 30))
        length, lean = float(rng.uniform(14, 44)), float(rng.uniform(-14, 14))
        green = int(rng.integers(80, 190))
        draw.line((x, y, x + lean, y - length), fill=(int(green * 0.62), green, int(green * 0.32)), width=2)


def _tree(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, angle: float, length: float) -> None:
    if length < 9:
        for _ in range(5):
            dx, dy, r = (float(v) for v in rng.uniform((-14, -14, 3), (14, 14, 7)))
            green = int(rng.integers(70, 165))
            fill = (int(green * 0.72), green, int(green * 0.36))
            draw.ellipse((x + dx - r, y + dy - r * 0.7, x + dx + r, y + dy + r * 0.7), fill=fill)
        return
    end_x, end_y = x + length * np.sin(angle), y - length * np.cos(angle)
    draw.line((x, y, end_x, end_y), fill=(70, 52, 40), width=max(2, int(length / 8)))
    for turn in (-0.42, 0.08, 0.46):
        _tree(
            draw, rng, end_x, end_y, angle + turn + float(rng.normal(0, 0.12)), length * float(rng.uniform(0.58, 0.76))
        )


def _sign(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    left, top, right, bottom = (int(v) for v in (0.575 * width, 0.66 * height, 0.765 * width, 0.83 * height))
    draw.rectangle((left + 74, bottom, left + 90, int(0.93 * height)), fill=(92, 80, 70))
    draw.rounded_rectangle((left, top, right, bottom), 10, fill=(250, 247, 236), outline=(40, 44, 52), width=6)
    draw.text((left + 18, top + 10), "srup", font=ImageFont.load_default(54), fill=(26, 32, 44))
    draw.text((left + 20, top + 68), "four times larger", font=ImageFont.load_default(19), fill=(150, 40, 30))


def draw_sample() -> Image.Image:
    """The scene, WIDTH x HEIGHT, RGB."""
    rng = np.random.default_rng(11)
    width, height = WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING
    image = Image.fromarray(np.clip(_sky(rng, height, width), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    _hills(draw, rng, width, height)
    _house(draw, rng, width, height)
    _tree(draw, rng, 0.86 * width, 0.90 * height, 0.0, 0.17 * height)
    _grass(draw, rng, width, height)
    _sign(draw, width, height)
    image = image.filter(ImageFilter.GaussianBlur(1.2))
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    draw_sample().save(Path(sys.argv[1]), optimize=True)
