"""The upscale job: photographs in, enlarged photographs out.

`run` is the way in, and `estimate` the way to ask first. `run` plans (`inputs`, `naming`), then reads ahead, enlarges
and writes behind (`batch`), keeping a journal and claims, so that a batch can be interrupted, resumed, and shared
between processes.
"""

from sr_cli.upscale.batch import run
from sr_cli.upscale.estimate import Estimate, FileEstimate, estimate
from sr_cli.upscale.events import ImageResult, Report, UpscaleEvent, exit_code
from sr_cli.upscale.options import UpscaleOptions, limits

__all__ = [
    "Estimate",
    "FileEstimate",
    "ImageResult",
    "Report",
    "UpscaleEvent",
    "UpscaleOptions",
    "estimate",
    "exit_code",
    "limits",
    "run",
]
