"""Inference: enlarges images by a network or by plain interpolation.

- `upscaler`: the public face. `enlarger`: what networks (`tiled`) and interpolations (`interpolation`) have in common.
- `setup`: device, precision, backend and tiles, chosen once. `devices`, `processor`, `memory`: what this machine has.
- `tiling`: how images are cut. `pixels`: from arrays to batches and back. `colours`: what a network must not change.
- `pictures`: Pillow images, arrays and tensors. `backends`: the ways to run a network. `ensemble`: eight runs in one.

Importing this package does not import torch.
"""

from sr_cli.inference.devices import PRECISIONS, WorkerDevice, choose_device, choose_devices, choose_precision, dtype_of
from sr_cli.inference.enlarger import EngineResult, Enlarger, OnRows, OnTiles
from sr_cli.inference.interpolation import interpolate
from sr_cli.inference.pixels import AnyPixels
from sr_cli.inference.processor import Processor, this_processor
from sr_cli.inference.setup import InferenceOptions, Setup, choose_setup
from sr_cli.inference.upscaler import Upscaler
from sr_cli.weights.specs import INTERPOLATIONS
