"""Compares our engine on OpenVINO with OpenVINO called directly: the same network, the same tiles, in turns.

python tools/openvino_direct.py [--model mesrgan] [--tile 256] [--rounds 5]

An image that is exactly a grid of tiles goes through `inference.Upscaler`, with all that it does (padding, conversion
to floats, keeping colours, placing, rounding); its tiles' windows go through OpenVINO's own compiled model, floats in,
floats out, nothing else: one after the other, and by its queue for throughput, which computes several at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import openvino
import torch

from sr_cli import inference, weights
from sr_cli.bench.timing import Clock
from sr_cli.inference import memory
from sr_cli.inference.backends.openvino import convert


def main() -> None:
    """Time the ways in turns and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mesrgan")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--grid", type=int, default=4, help="tiles a side")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    memory.keep_freed_memory()

    side = given.tile * given.grid
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    model = weights.load(given.model)
    clocked = Clock(torch.device("cpu"))
    upscaler = inference.Upscaler(
        model, device="cpu", precision="fp32", backend="openvino", tile=given.tile, wrap_network=clocked.around
    )
    plan = upscaler.plan(side, side)
    converted = convert(model.generator.fold())
    window = np.random.default_rng(1).random((1, 3, *plan.window), dtype=np.float32)
    single = compiled(converted, "LATENCY")
    queue = openvino.AsyncInferQueue(compiled(converted, "THROUGHPUT"))

    def one_by_one() -> None:
        for _ in plan.tiles:
            single(window)

    def queued() -> None:
        for _ in plan.tiles:
            queue.start_async(window)
        queue.wait_all()

    works: dict[str, Callable[[], object]] = {
        "engine": lambda: upscaler.upscale(picture),
        "direct": one_by_one,
        "direct_queue": queued,
    }
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in (*works, "engine_waiting")}
    for _ in range(given.rounds):
        clocked.seconds = 0.0
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
        seconds["engine_waiting"].append(clocked.seconds)
    report = {"model": given.model, "window": plan.window, "tiles": len(plan.tiles), "rounds": given.rounds}
    report["queue_length"] = len(queue)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    report["ms_per_tile"] = {name: round(1000 * value / len(plan.tiles), 1) for name, value in medians.items()}
    for name in ("direct", "direct_queue"):
        report[f"engine_over_{name}"] = round(medians["engine"] / medians[name], 3)
    print(json.dumps(report, indent=2))


def compiled(model: openvino.Model, hint: str) -> openvino.CompiledModel:
    """Compile as OpenVINO's documentation has it, for one result soon or for many in the end."""
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint})


if __name__ == "__main__":
    main()
