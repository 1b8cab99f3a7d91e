"""Makes the small photos of tests/data/kinds: python tools/make_test_photos.py [FOLDER].

Pillow, ImageMagick and libvips encode one scene in every kind of file, exiftool writes camera metadata into it. The
files are committed, so that tests that read them need none of these programs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from tests.foreign import EXIFTOOL, MAGICK, VIPS
from tests.test_images_matrix import CASES, HEIGHT, TAGS, WIDE, WIDTH, scene


def run(*command: object, data: bytes | None = None) -> bytes:
    """Run a command that must succeed; return its standard output."""
    return subprocess.run([str(part) for part in command], input=data, capture_output=True, check=True).stdout


def pillow(mode: str = "RGB", **options: Any) -> Callable[[Path], object]:
    """Make a maker: the scene in one of Pillow's modes."""

    def make(path: Path) -> None:
        rgba = Image.fromarray(scene())
        if mode == "LA":
            image = Image.merge("LA", (rgba.convert("RGB").convert("L"), rgba.getchannel("A")))
        elif mode == "I;16":
            image = Image.fromarray(np.asarray(rgba.convert("RGB").convert("L")).astype(np.uint16) * 257)
        elif mode == "RGBA":
            image = rgba
        elif mode == "P":
            image = rgba.convert("RGB").quantize(200)
        else:
            image = rgba.convert("RGB").convert(mode)
        image.save(path, **options)

    return make


def magick(*options: object, kind: str = "rgb", bits: int = 8, prefix: str = "") -> Callable[[Path], object]:
    """Make a maker: raw samples of the scene (kind "gray", "rgb" or "rgba") through ImageMagick."""

    def make(path: Path) -> None:
        samples = scene()[..., : {"gray": 1, "rgb": 3, "rgba": 4}[kind]]
        data = (samples.astype(np.uint16) * 257 + 3).clip(0, 65535).astype(">u2") if bits == 16 else samples
        raw = ["-size", f"{WIDTH}x{HEIGHT}", "-depth", bits, "-endian", "MSB", f"{kind}:-"]
        run(MAGICK, *raw, *options, f"{prefix}{path}", data=data.tobytes())

    return make


def vips(*options: str, kind: str = "ppm") -> Callable[[Path], object]:
    """Make a maker: the scene through libvips; kind "ppm" (8 bits) or "16" (a raw PPM of 16 bits)."""

    def make(path: Path) -> None:
        source = path.with_suffix(".source.ppm")
        samples = scene()[..., :3]
        data = samples.astype(">u2") * 257 if kind == "16" else samples
        top = 65535 if kind == "16" else 255
        source.write_bytes(
            b"P6 %d %d %d\n" % (WIDTH, HEIGHT, top) + data.astype(">u2" if top > 255 else "u1").tobytes()
        )
        run(VIPS, "copy", source, f"{path}{options[0] if options else ''}")
        source.unlink()

    return make


def frames(format: str, count: int = 4, alpha: bool = False, **options: Any) -> Callable[[Path], object]:
    """Make a maker: a square that moves, as an animation or as pages."""

    def make(path: Path) -> None:
        images = []
        for n in range(count):
            frame = scene()
            frame[..., 3] = 0 if alpha else 255
            frame[6:14, 3 + 5 * n : 11 + 5 * n] = (255, 0, 0, 255)
            images.append(Image.fromarray(frame if alpha else frame[..., :3]))
        images[0].save(path, format, save_all=True, append_images=images[1:], **options)

    return make


def with_text(path: Path) -> None:
    """Draw the scene with text of every kind that PNG has."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A title")
    info.add_text("Description", "x" * 2000, zip=True)
    info.add_itxt("Author", "山田")
    Image.fromarray(scene()[..., :3]).save(path, pnginfo=info, dpi=(200, 200), icc_profile=WIDE)


MAKERS: dict[str, Callable[[Path], object]] = {
    "p-rgb.jpg": pillow(quality=92),
    **{f"p-turn{n}.jpg": pillow(quality=92, dpi=(300, 300)) for n in range(2, 9)},
    "p-gray.jpg": pillow("L"),
    "p-ink.jpg": pillow("CMYK"),
    "p-progressive.jpg": pillow(progressive=True, icc_profile=WIDE, dpi=(240, 240)),
    "p-comment.jpg": pillow(comment="A comment"),
    "p-rgb.png": pillow(icc_profile=WIDE),
    "p-rgba.png": pillow("RGBA"),
    "p-gray.png": pillow("L"),
    "p-gray-alpha.png": pillow("LA"),
    "p-bit.png": pillow("1"),
    "p-palette.png": pillow("P"),
    "p-palette-alpha.png": pillow("P", transparency=b"\0\x80" + b"\xff" * 198),
    "p-gray16.png": pillow("I;16"),
    "p-text.png": with_text,
    "p-turn.png": pillow(),
    "p-lossy.webp": pillow(icc_profile=WIDE),
    "p-alpha.webp": pillow("RGBA", lossless=True),
    "p-turn.webp": pillow(),
    "p-raw.tif": pillow(dpi=(150, 150)),
    "p-lzw.tif": pillow(compression="tiff_lzw", icc_profile=WIDE),
    "p-deflate.tif": pillow("RGBA", compression="tiff_adobe_deflate"),
    "p-jpeg.tif": pillow(compression="jpeg"),
    "p-fax.tif": pillow("1", compression="group4"),
    "p-gray16.tif": pillow("I;16"),
    "p-ink.tif": pillow("CMYK"),
    "p-palette.tif": pillow("P"),
    "p-turn.tif": pillow(),
    "p-pages.tif": frames("TIFF", 3),
    "p-rgb.bmp": pillow(),
    "p-gray.bmp": pillow("L"),
    "p-still.gif": pillow("P"),
    "p-moving.gif": frames("GIF", duration=120, loop=0),
    "p-moving-alpha.gif": frames("GIF", alpha=True, duration=120, disposal=2),
    "p-moving.webp": frames("WEBP", duration=120),
    "p-moving.png": frames("PNG", duration=120),
    "p-moving-alpha.png": frames("PNG", alpha=True, duration=120),
    "p-several.mpo": frames("MPO", 2),
    "m-rgb.jpg": magick("-density", "300"),
    "m-gray.jpg": magick("-quality", 90, kind="gray"),
    "m-ink.jpg": magick("-colorspace", "CMYK"),
    "m-progressive.jpg": magick("-interlace", "plane", "-sampling-factor", "4:2:0"),
    "m-rgb16.png": magick(bits=16),
    "m-rgba16.png": magick(kind="rgba", bits=16),
    "m-gray16.png": magick(kind="gray", bits=16),
    "m-interlaced16.png": magick("-interlace", "PNG", bits=16),
    "m-interlaced.png": magick("-interlace", "PNG"),
    "m-gray4.png": magick("-depth", 4, "-define", "png:bit-depth=4", kind="gray"),
    "m-palette.png": magick("-colors", 16, prefix="PNG8:"),
    "m-gamma.png": magick("-set", "gamma", "0.9"),
    "m-rgb16-lzw.tif": magick("-compress", "lzw", bits=16),
    "m-rgb16-zip.tif": magick("-compress", "zip", "-endian", "MSB", bits=16),
    "m-rgba16.tif": magick(kind="rgba", bits=16),
    "m-planes16.tif": magick("-interlace", "plane", bits=16),
    "m-tiles16.tif": magick("-define", "tiff:tile-geometry=16x16", "-compress", "lzw", bits=16),
    "m-white-is-zero.tif": magick("-define", "quantum:polarity=min-is-white", kind="gray"),
    "m-ink.tif": magick("-colorspace", "CMYK"),
    "m-lossless.webp": magick("-define", "webp:lossless=true"),
    "m-alpha.bmp": magick(kind="rgba"),
    "m-old.bmp": magick(prefix="BMP3:"),
    "v-rgb.png": vips(),
    "v-deep.png": vips(kind="16"),
    "v-interlaced.jpg": vips("[Q=90,interlace]"),
    "v-tiles16.tif": vips("[tile,tile-width=16,tile-height=16,compression=deflate]", kind="16"),
    "v-pyramid.tif": vips("[tile,pyramid,tile-width=16,tile-height=16]"),
    "v-lossless.webp": vips("[lossless]"),
}


def main(folder: Path) -> None:
    """Write all files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    assert MAKERS.keys() == {case.name for case in CASES}
    for case in CASES:
        path = folder / case.name
        MAKERS[case.name](path)
        wanted = [tag for group in case.tags for tag in TAGS[group]]
        if case.orientation != 1:
            wanted.append(f"-IFD0:Orientation#={case.orientation}")
        if wanted:
            run(EXIFTOOL, "-q", "-m", "-overwrite_original", "-charset", "iptc=utf8", *wanted, path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/kinds"))
