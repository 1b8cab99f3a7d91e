"""Measures the rate of `srup upscale FOLDER` on small files against that of one `Upscaler`, and its memory.

python tools/batch_throughput.py [--files 500] [--model mesrgan] [--rounds 3]

In turns: the whole command as its own process, start-up, reading and writing included; and the same photos, already
in memory, through one `Upscaler`, already loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sr_cli import Upscaler


def main() -> None:
    """Time both and print rates and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--model", default="mesrgan")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_pictures(Path(folder, "in"), given.files)
        pictures = [np.asarray(Image.open(path)) for path in inputs]
        upscaler = Upscaler(given.model, device="cpu")
        upscaler.upscale(pictures[0])
        command, engine, growth, peak = [], [], [], 0
        for turn in range(given.rounds):
            started = time.perf_counter()
            for picture in pictures:
                upscaler.upscale(picture)
            engine.append(time.perf_counter() - started)
            seconds, memory = timed_command(Path(folder, "in"), Path(folder, f"out{turn}"), given.model)
            command.append(seconds)
            growth.append(memory[-1] - memory[len(memory) // 4])
            peak = max(peak, *memory)
    rates = {"command": statistics.median(command), "engine": statistics.median(engine)}
    report = {
        "files": given.files,
        "seconds": {name: round(value, 2) for name, value in rates.items()},
        "share_of_the_engines_rate": round(rates["engine"] / rates["command"], 3),
        "peak_MiB": peak // 1024,
        "growth_after_a_quarter_MiB": max(growth) // 1024,
    }
    print(json.dumps(report, indent=2))


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Make JPEGs of 96x72 to 160x120 pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for index in range(count):
        width = 96 + 16 * (index % 5)
        noise = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        paths.append(folder / f"{index:04}.jpg")
        noise.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def timed_command(inputs: Path, outputs: Path, model: str) -> tuple[float, list[int]]:
    """Time a command; return its seconds, and its resident memory in KiB, ten times a second."""
    arguments = ["upscale", str(inputs), "-m", model, "-o", str(outputs), "--device", "cpu", "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sr_cli", *arguments])
    status = Path(f"/proc/{process.pid}/status")
    memory: list[int] = []

    def watch() -> None:
        while process.poll() is None:
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                memory.append(int(fields.get("VmRSS", "0").split()[0]))
            except OSError:
                return
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"srup ended with {process.returncode}")
    seconds = time.perf_counter() - started
    watcher.join()
    return seconds, [value for value in memory if value]


if __name__ == "__main__":
    main()
