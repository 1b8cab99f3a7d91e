"""The public face of inference: one class that holds a model and enlarges images with it.

Importing this module does not import torch; building an `Upscaler` for a network does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from sr_cli.errors import OutOfMemory
from sr_cli.inference import memory, pictures, tiling
from sr_cli.inference.backends import Network
from sr_cli.inference.enlarger import EngineResult, Enlarger, OnRows, OnTiles
from sr_cli.inference.interpolation import Interpolation
from sr_cli.inference.pictures import Picture
from sr_cli.inference.pixels import AnyPixels, check_pixels
from sr_cli.inference.setup import InferenceOptions, OptionValues, choose_setup
from sr_cli.weights.specs import INTERPOLATIONS

if TYPE_CHECKING:
    from sr_cli.weights import Blend, LoadedModel


class Upscaler:
    """Enlarges images with one model. Threads may share one.

    `model` is a name (`mesrgan`), a name with its stage (`mesrgan:pixel`), a path to a safetensors file,
    `bicubic` or `lanczos`, or weights already loaded. `fidelity` 0..1 blends the model's GAN stage (0)
    and the stage that `model` stands for (1), see `weights.load_blend`. `wrap_network` may put something around the
    network that is run, a clock for instance. The other arguments are those of `InferenceOptions`: device, precision,
    backend, tile, overlap, ensemble, threads, pixels.

    How images are computed is chosen here, once, and is in `setup`: the same image gives the same pixels, whatever
    was enlarged before. Raises ValueError or UsageError naming an invalid argument, UsageError for an
    unknown device, precision or backend, WeightsError if the weights are not available.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel = "mesrgan",
        *,
        fidelity: float | None = None,
        offline: bool = False,
        download_progress: Callable[[int, int | None], None] | None = None,
        wrap_network: Callable[[Network], Network] | None = None,
        **options: Unpack[OptionValues],
    ) -> None:
        wishes = InferenceOptions(**options)
        self.fidelity, self.ensemble = fidelity, wishes.ensemble
        self.stage: str | None = None
        self.blend: Blend | None = None
        self.weights_sha256: str | None = None
        self._enlarger: Enlarger
        if isinstance(model, str) and model in INTERPOLATIONS and fidelity is None:
            self._enlarger = Interpolation(model)
        else:
            from sr_cli import weights

            if not isinstance(model, str | Path | weights.LoadedModel):
                raise ValueError(f"model must be a name, a path or loaded weights, not {type(model).__name__}")
            loaded = weights.load_blend(model, fidelity, offline=offline, progress=download_progress)
            self.stage, self.weights_sha256, self.blend = loaded.stage, loaded.sha256, loaded.blend
            setup = choose_setup(wishes, loaded)
            from sr_cli.inference.tiled import TiledNetwork

            if setup.device == "cpu":
                memory.keep_freed_memory()
            self._enlarger = TiledNetwork(loaded, setup, ensemble=wishes.ensemble, wrap_network=wrap_network)
        self.name = self._enlarger.name  #: The model's name.
        self.scale = self._enlarger.scale  #: Factor by which it enlarges.
        self.setup = self._enlarger.setup  #: How images are computed, and why so.
        self.device_name = self.setup.device  #: `cpu`, `cuda:0`, ...
        self.precision = self.setup.precision  #: `fp32`, `fp16` or `bf16`.
        self.backend = self.setup.backend  #: A name of `backends.BACKENDS`, or `pillow` for interpolation.
        self.overlap = self.setup.overlap  #: Input pixels that a tile sees beyond its core.

    def upscale(
        self,
        pixels: AnyPixels,
        progress: OnTiles | None = None,
        on_rows: OnRows | None = None,
        out: AnyPixels | None = None,
    ) -> EngineResult:
        """Enlarge one image by `self.scale`.

        `on_rows` is called with rows of the result as soon as they are final; `out`, if given, is the array that the
        result is written into. Raises ValueError for arrays of another shape or type and for values that are not
        finite, OutOfMemory where even the smallest tile does not fit.
        """
        check_pixels(pixels)
        height, width, channels = pixels.shape
        shape = (height * self.scale, width * self.scale, channels)
        if out is not None and (out.shape != shape or out.dtype != pixels.dtype):
            raise ValueError(f"out must be {shape} of {pixels.dtype}, not {out.shape} of {out.dtype}")
        try:
            output = np.empty(shape, pixels.dtype) if out is None else out
            return self._enlarger.enlarge(pixels, output, progress, on_rows)
        except MemoryError:
            raise OutOfMemory(
                f"the output of {shape[1]}x{shape[0]} pixels does not fit into memory; reduce the photo first"
            ) from None

    def __call__(self, picture: Picture, progress: OnTiles | None = None) -> Picture:
        """Enlarge a Pillow image, numpy array or tensor and give it back in the same form; see `pictures.enlarge`.

        `progress` is called with the tiles done and their total, anew for each plane that is enlarged.
        """
        return pictures.enlarge(picture, lambda pixels: self.upscale(pixels, progress).pixels)

    def plan(self, height: int, width: int) -> tiling.Plan:
        """Cut an image of this size into tiles."""
        return self._enlarger.plan(height, width)

    def working_bytes(self, height: int, width: int) -> int:
        """Estimate the memory that an image of this size needs, without input and output."""
        return self._enlarger.working_bytes(height, width)
