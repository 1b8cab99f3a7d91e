"""Measures the parts of `srup upscale PHOTO`: start-up, decoding, network, the rest of the engine, encoding.

Usage: python tools/profile_photo.py PHOTO OUTPUT [--model mesrgan] [--precision fp32] [--backend auto] [--tile auto]
Without a PHOTO that exists, one of 12 megapixels is made from noise of all scales and saved there as JPEG.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

BORN = time.time()
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def main() -> None:
    """Time each part of upscaling a photo and print its share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="mesrgan")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--tile", default="auto")
    given = parser.parse_args()
    if not given.photo.exists():
        make_photo(given.photo)

    laps = {"interpreter": BORN - started_at()}
    clock = Laps()

    from sr_cli import images, inference
    from sr_cli.bench.timing import Clock

    tile = "auto" if given.tile == "auto" else int(given.tile)
    clocked = Clock(inference.choose_device("auto"))
    upscaler = inference.Upscaler(
        given.model, precision=given.precision, backend=given.backend, tile=tile, wrap_network=clocked.around
    )
    laps["torch, weights and network"] = clock.lap()
    photo = images.read(given.photo)
    laps["decode"] = clock.lap()
    height, width = photo.pixels.shape[:2]
    plan = upscaler.plan(height, width)
    result = upscaler.upscale(photo.pixels)
    whole = clock.lap()
    laps["network"], laps["rest of the engine"] = clocked.seconds, whole - clocked.seconds
    images.write(images.with_pixels(photo, result.pixels, None), given.output, overwrite=True)
    laps["encode"] = clock.lap()

    core = plan.tiles[0].height * plan.tiles[0].width
    report = {
        "photo": f"{width}x{height}",
        "model": given.model,
        "backend": upscaler.backend,
        "precision": upscaler.precision,
        "tiles": result.tiles,
        "window": plan.window,
        "seconds": {name: round(value, 2) for name, value in laps.items()},
        "engine_over_network": round(whole / clocked.seconds - 1, 4),
        "overlap_of_windows": round(1 - core / (plan.window[0] * plan.window[1]), 4),
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))


class Laps:
    """Time between laps."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the lap before."""
        now = time.perf_counter()
        self.last, passed = now, now - self.last
        return passed


def started_at() -> float:
    """Return when this process was started, as a time of day; now where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def make_photo(path: Path, width: int = 4000, height: int = 3000) -> None:
    """Make a JPEG with detail of all scales, as photos have."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for scale in (1, 2, 4, 8, 16, 64, 256):
        noise = random.integers(0, 256, (-(-height // scale), -(-width // scale), 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer, np.float32) * (0.1 if scale == 1 else 0.15)
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(path, quality=92)


if __name__ == "__main__":
    main()
