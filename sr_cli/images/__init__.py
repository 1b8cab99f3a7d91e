"""Pictures in and out: what a photo carries besides its pixels survives, and no file is harmed."""

from sr_cli.images.alpha import alpha_as_rgb, bleed, for_network
from sr_cli.images.atomic import atomic_output, is_temporary
from sr_cli.images.decode import channels, read
from sr_cli.images.encode import write
from sr_cli.images.formats import (
    OUTPUT_FORMATS,
    READABLE_SUFFIXES,
    OutputFormat,
    by_name,
    by_suffix,
    check_size,
    for_target,
)
from sr_cli.images.photo import Limits, Photo, Pixels, with_pixels, without_metadata

__all__ = [
    "OUTPUT_FORMATS",
    "READABLE_SUFFIXES",
    "Limits",
    "OutputFormat",
    "Photo",
    "Pixels",
    "alpha_as_rgb",
    "atomic_output",
    "bleed",
    "by_name",
    "by_suffix",
    "channels",
    "check_size",
    "for_network",
    "for_target",
    "is_temporary",
    "read",
    "with_pixels",
    "without_metadata",
    "write",
]
