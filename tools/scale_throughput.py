"""Measures how several workers and a slow network change the time of a batch of small photos.

python tools/scale_throughput.py [--files 200] [--model bicubic] [--rounds 3] [--delay 0,20,100]

In turns: one process, two processes (`--devices cpu:2`), two actors of a Ray cluster that runs already, and two of one
that the command starts. Then from bucket to bucket on a loopback S3 server (moto's) behind a proxy that delays all it
passes on, so that an answer comes so many milliseconds later; one process and two. Each line has medians in seconds: of
the whole command, and until the first photo begins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import s3fs
from batch_throughput import make_pictures
from moto.server import ThreadedMotoServer

TWO = ("--devices", "cpu:2")
OBJECT_STORE_BYTES = 100_000_000
KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something", "AWS_DEFAULT_REGION": "us-east-1"}


def main() -> None:
    """Time all forms of the command in turns, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--model", default="bicubic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", default="0,20,100", help="of an answer by the S3 server, in ms; empty: no server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "in")
        make_pictures(inputs, given.files)
        local(inputs, given.model, given.rounds)
        if given.delay:
            store(inputs, given.model, given.rounds, [int(delay) for delay in given.delay.split(",")])


def local(inputs: Path, model: str, rounds: int) -> None:
    """Time the command on a folder."""
    with cluster() as address:
        forms = {
            "one process": (),
            "--devices cpu:2": TWO,
            "two actors of a running Ray": (*TWO, "--engine", "ray", "--address", address),
        }
        report(inputs, model, rounds, forms)
    report(inputs, model, rounds, {"two actors, Ray started": (*TWO, "--engine", "ray")})


def store(inputs: Path, model: str, rounds: int, delays: list[int]) -> None:
    """Time the command from bucket to bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(KEYS)
    fs = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}")
    for bucket in ("bucket-in", "bucket-out"):
        fs.mkdir(bucket)
    fs.put(f"{inputs}/", "bucket-in/", recursive=True)
    for delay in delays:
        with slow(host, port, delay / 1000) as address, environment(AWS_ENDPOINT_URL=address):
            forms = {f"S3, {delay} ms, one process": (), f"S3, {delay} ms, --devices cpu:2": TWO}
            report("s3://bucket-in/", model, rounds, forms, f"s3://bucket-out/{delay}-")
    server.stop()


def report(
    inputs: Path | str, model: str, rounds: int, forms: dict[str, tuple[str, ...]], outputs: str | None = None
) -> None:
    """Run each form of the command `rounds` times, in turns, and print the medians of its seconds."""
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for turn in range(rounds):
        for number, (form, options) in enumerate(forms.items()):
            with tempfile.TemporaryDirectory() as folder:
                target = f"{outputs or folder + '/'}{turn}-{number}/"
                command = ["upscale", str(inputs), "-m", model, "-o", target, "--json-lines", *options]
                times[form].append(timed(command))
    for form, seconds in times.items():
        whole, first = (round(statistics.median(values), 2) for values in zip(*seconds, strict=True))
        print(json.dumps({"what": form, "seconds": whole, "first_photo": first}), flush=True)


def timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds of a command, and those until its first photo begins."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sr_cli", *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = None
    for line in process.stdout:
        first = first or (time.perf_counter() - started if json.loads(line)["event"] == "started" else None)
    if process.wait() != 0 or first is None:
        raise SystemExit(f"srup ended with {process.returncode}")
    return time.perf_counter() - started, first


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set variables of the environment for a while."""
    os.environ.update(variables)
    yield
    for name in variables:
        del os.environ[name]


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Run a Ray cluster of two cores with a small object store; give its address."""
    import ray

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    context = ray.init(
        num_cpus=2,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()


@contextlib.contextmanager
def slow(host: str, port: int, delay: float) -> Iterator[str]:
    """Run a proxy in a thread: what it is sent arrives half of `delay` seconds later, and so does the answer."""
    loop = asyncio.new_event_loop()

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            loop.call_later(delay / 2, target.write, data)
        loop.call_later(delay / 2, target.close)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, port)
        await asyncio.gather(pass_on(reader, to_server), pass_on(from_server, writer))

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)


if __name__ == "__main__":
    main()
