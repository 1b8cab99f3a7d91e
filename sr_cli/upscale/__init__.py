"""The upscale job: photographs in, enlarged photographs out.

`run` is the way in. It plans (`inputs`, `naming`), then reads ahead, enlarges and writes behind (`batch`), keeping
a journal and claims so that a batch can be interrupted, resumed and shared between processes.
"""

from sr_cli.upscale.batch import run
from sr_cli.upscale.events import ImageResult, Report, UpscaleEvent, exit_code
from sr_cli.upscale.options import UpscaleOptions, limits

__all__ = ["ImageResult", "Report", "UpscaleEvent", "UpscaleOptions", "exit_code", "limits", "run"]
