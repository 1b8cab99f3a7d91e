"""The way of one data set: read, upscale and score at the same time; every image's failure stays its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_cli import datasets, images, inference
from sr_cli.errors import OutOfMemory, SrupError
from sr_cli.evaluate import crops
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.results import ImageScores
from sr_cli.evaluate.scores import Perception, Pixels, score, to_bytes

_READ_AHEAD = 2


@dataclass(frozen=True)
class Contestant:
    """A model that takes part."""

    name: str
    """What reports call it."""
    upscaler: inference.Upscaler
    """The model, ready."""
    milliseconds: float | None = None
    """Median time to upscale 128x128 pixels, where it was measured."""


@dataclass(frozen=True)
class Record:
    """All models' scores on one image, and its crop."""

    scores: Mapping[str, ImageScores]
    """By model."""
    crop: crops.Crop | None = None
    """For a report."""


class Pipeline:
    """One data set's way: images are read ahead by a thread, upscaled in this one, and scored by others."""

    def __init__(
        self, options: EvalOptions, contestants: Sequence[Contestant], found: Perception, dataset: datasets.Dataset
    ) -> None:
        self.options = options
        self.protocol = options.convention
        self.contestants = contestants
        self.found = found
        self.dataset = dataset

    def run(self, pairs: Sequence[datasets.Pair]) -> Iterator[tuple[datasets.Pair, Record]]:
        workers = self._workers()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(workers) as scorer:
            reading: deque[Future[tuple[NDArray[np.uint8], Pixels]]] = deque()
            scoring: deque[tuple[datasets.Pair, Future[Record]]] = deque()
            ahead = iter(pairs)
            try:
                for pair in pairs:
                    while len(reading) <= _READ_AHEAD and (following := next(ahead, None)):
                        reading.append(reader.submit(self._read, following))
                    scoring.append((pair, self._upscale(pair, reading.popleft(), scorer)))
                    while scoring and (len(scoring) > workers or scoring[0][1].done()):
                        finished, future = scoring.popleft()
                        yield finished, future.result()
                for finished, future in scoring:
                    yield finished, future.result()
            except BaseException:
                reader.shutdown(wait=False, cancel_futures=True)
                scorer.shutdown(wait=False, cancel_futures=True)
                raise

    def _workers(self) -> int:
        """Threads that score. Beside networks on the CPU there are few: these wait for the slowest of their own."""
        cores = os.cpu_count() or 1
        busy = any(c.upscaler.weights_sha256 and c.upscaler.device_name == "cpu" for c in self.contestants)
        return max(1, cores // 4) if busy else cores

    def _read(self, pair: datasets.Pair) -> tuple[NDArray[np.uint8], Pixels]:
        hr, lr = datasets.load(pair)
        return hr, self.protocol.reduce(hr) if lr is None else lr

    def _upscale(
        self,
        pair: datasets.Pair,
        image: Future[tuple[NDArray[np.uint8], Pixels]],
        scorer: ThreadPoolExecutor,
    ) -> Future[Record]:
        try:
            hr, lr = image.result()
        except SrupError as error:
            failed = _failed(pair.name, error)
            return scorer.submit(lambda: Record({contestant.name: failed for contestant in self.contestants}))
        outputs: dict[str, Pixels | ImageScores] = {}
        for contestant in self.contestants:
            try:
                outputs[contestant.name] = contestant.upscaler.upscale(lr).pixels
            except OutOfMemory as error:
                outputs[contestant.name] = _failed(pair.name, error)
        return scorer.submit(self._score, pair.name, hr, outputs)

    def _score(self, name: str, hr: NDArray[np.uint8], outputs: Mapping[str, Pixels | ImageScores]) -> Record:
        scores: dict[str, ImageScores] = {}
        pixels: dict[str, NDArray[np.uint8]] = {}
        for model, output in outputs.items():
            if isinstance(output, ImageScores):
                scores[model] = output
                continue
            scores[model] = ImageScores(name, *score(output, hr, self.protocol, self.options.metrics, self.found))
            pixels[model] = to_bytes(output)
            if self.options.save_images:
                _save(pixels[model], self.options.save_images / file_name(self.dataset.name) / file_name(model) / name)
        crop = crops.choose(hr, pixels) if self.options.for_report and pixels else None
        return Record(scores, crop)


def _failed(name: str, error: SrupError) -> ImageScores:
    return ImageScores(name, {}, error=str(error), exit_code=error.exit_code)


def file_name(name: str) -> str:
    """A model's or data set's name as a folder's: without separators."""
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in name).strip(". ") or "unnamed"


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
    images.write(images.Photo(pixels), target, overwrite=True)
