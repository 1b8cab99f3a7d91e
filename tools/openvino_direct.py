"""Our engine on OpenVINO against OpenVINO called directly: the same network, the same tiles, in turns.

python tools/openvino_direct.py [--model mesrgan] [--rounds 7]

A picture that is exactly a grid of tiles goes through `engine.Upscaler`, with all that it does (padding, conversion
to floats, cropping, placing, rounding); its tiles' windows go through OpenVINO's own compiled model in a plain loop,
floats in, floats out, nothing else. The engine's "tile" column leaves out what a photograph takes beside its tiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import openvino

from sr_cli import engine, memory, weights
from sr_cli.backends.openvino import convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mesrgan")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--grid", type=int, default=4, help="tiles a side")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    memory.keep_freed_memory()

    side = given.tile * given.grid
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    model = weights.load(given.model)
    upscaler = engine.Upscaler(model, device="cpu", precision="fp32", backend="openvino", tile=given.tile)
    plan = upscaler.plan(side, side)
    direct = openvino.Core().compile_model(
        convert(model.generator.fold()), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    window = np.random.default_rng(1).random((1, 3, *plan.window), dtype=np.float32)
    network, inside = upscaler.network, [0.0]
    assert network is not None

    def timed(batch):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        result = network(batch)
        inside[0] += time.perf_counter() - started
        return result

    def ours() -> float:
        started = time.perf_counter()
        upscaler.upscale(picture)
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        for _ in plan.tiles:
            direct(window)
        return time.perf_counter() - started

    ours(), theirs()
    upscaler.network = timed
    engines, networks, directs = [], [], []
    for _ in range(given.rounds):
        inside[0] = 0.0
        engines.append(ours())
        networks.append(inside[0])
        directs.append(theirs())
    tiles = len(plan.tiles)
    milliseconds = [1000 * statistics.median(times) / tiles for times in (engines, networks, directs)]
    names = ("engine_ms_per_tile", "network_in_engine_ms_per_tile", "direct_ms_per_tile")
    report = {"model": given.model, "window": plan.window, "tiles": tiles, "rounds": given.rounds}
    report |= {name: round(value, 1) for name, value in zip(names, milliseconds, strict=True)}
    report["engine_over_direct"] = round(statistics.median(engines) / statistics.median(directs), 3)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
