"""The pipeline of one data set: reads, upscales and scores at the same time; a failure concerns one image only."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_cli import datasets, images
from sr_cli.errors import OutOfMemory, SrupError
from sr_cli.evaluate import crops
from sr_cli.evaluate.learned import LearnedMetrics
from sr_cli.evaluate.methods import Method
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.results import ImageScores
from sr_cli.evaluate.scores import score
from sr_cli.inference import AnyPixels
from sr_cli.metrics.colour import to_bytes
from sr_cli.storage import Prefetch

_READ_AHEAD = 2


@dataclass(frozen=True)
class Record:
    """All models' scores on one image, and its crop."""

    scores: Mapping[str, ImageScores]  #: By model.
    crop: crops.Crop | None = None  #: For a report.


@dataclass(frozen=True)
class _Input:
    """An image as it was read."""

    hr: NDArray[np.uint8]  #: (4H, 4W, 3).
    lr: AnyPixels  #: Input of the methods, (H, W, 3).


@dataclass(frozen=True)
class _Output:
    """Output of a method for an image."""

    pixels: AnyPixels  #: (4H, 4W, 3), uint8 or float32 in 0..1.
    seconds: float  #: How long it took.


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of one data set: a thread reads images ahead, this one upscales them, others score them."""

    options: EvalOptions
    methods: Sequence[Method]
    found: LearnedMetrics
    dataset: datasets.Dataset

    def run(self, pairs: Sequence[datasets.Pair]) -> Iterator[tuple[datasets.Pair, Record]]:
        """Yield each pair with its results, in order."""
        workers = self._workers()
        positions = {pair.name: position for position, pair in enumerate(self.dataset.pairs)}
        read = (self._read(pair, positions[pair.name]) for pair in pairs)
        with Prefetch(read, _READ_AHEAD) as images_read, ThreadPoolExecutor(workers) as scorer:
            scoring: deque[tuple[datasets.Pair, Future[Record]]] = deque()
            try:
                for pair, image in zip(pairs, images_read, strict=True):
                    outputs = self._upscale(image)
                    scoring.append((pair, scorer.submit(self._score, pair.name, image, outputs)))
                    while scoring and (len(scoring) > workers or scoring[0][1].done()):
                        finished, future = scoring.popleft()
                        yield finished, future.result()
                for finished, future in scoring:
                    yield finished, future.result()
            except BaseException:
                scorer.shutdown(wait=False, cancel_futures=True)
                raise

    def _workers(self) -> int:
        """Return the number of threads that score: few if networks run on the CPU, which they would slow down."""
        cores = os.cpu_count() or 1
        busy = any(m.upscaler.weights_sha256 and m.upscaler.device_name == "cpu" for m in self.methods)
        return max(1, cores // 4) if busy else cores

    def _read(self, pair: datasets.Pair, position: int) -> _Input | SrupError:
        """Read and reduce an image; an error is returned as a value, so that the others are still read."""
        try:
            hr, lr = datasets.load(pair)
        except SrupError as error:
            return error
        return _Input(hr, self.options.low_resolution.make(hr, lr, self.options.convention, position, pair.name))

    def _upscale(self, image: _Input | SrupError) -> dict[str, _Output | SrupError]:
        """Enlarge an image with each method; an error is in its output's place."""
        if isinstance(image, SrupError):
            return {method.name: image for method in self.methods}
        outputs: dict[str, _Output | SrupError] = {}
        for method in self.methods:
            started = time.perf_counter()
            try:
                pixels = method.upscaler.upscale(image.lr).pixels
            except OutOfMemory as error:
                outputs[method.name] = error
                continue
            outputs[method.name] = _Output(pixels, time.perf_counter() - started)
        return outputs

    def _score(self, name: str, image: _Input | SrupError, outputs: Mapping[str, _Output | SrupError]) -> Record:
        """Measure and save the outputs of the methods for an image."""
        scores: dict[str, ImageScores] = {}
        pixels: dict[str, NDArray[np.uint8]] = {}
        for model, output in outputs.items():
            if isinstance(output, SrupError):
                scores[model] = ImageScores(name, {}, error=str(output), exit_code=output.exit_code)
                continue
            assert isinstance(image, _Input)  # else there was no output
            values, reasons = score(output.pixels, image.hr, self.options.convention, self.options.metrics, self.found)
            height, width = output.pixels.shape[:2]
            scores[model] = ImageScores(name, values, reasons, seconds=output.seconds, megapixels=height * width / 1e6)
            pixels[model] = to_bytes(output.pixels)
            if self.options.save_images:
                _save(pixels[model], self.options.save_images / file_name(self.dataset.name) / file_name(model) / name)
        if self.options.for_report and pixels and isinstance(image, _Input):
            return Record(scores, crops.choose(image.hr, pixels))
        return Record(scores)


def file_name(name: str) -> str:
    """Return a model's or data set's name as a folder's, without separators."""
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in name).strip(". ") or "unnamed"


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
    images.write(images.Photo(pixels), target, overwrite=True)
