"""Reads and writes photos with their metadata; writes are atomic."""

from sr_cli.images.alpha import bleed
from sr_cli.images.colour import to_srgb
from sr_cli.images.decode import channels, read, read_all
from sr_cli.images.encode import WriteOptions, on_white, to_8_bits, write, write_all
from sr_cli.images.formats import (
    OUTPUT_FORMATS,
    READABLE_SUFFIXES,
    OutputFormat,
    by_name,
    by_suffix,
    check_several,
    check_size,
    default_suffix,
    for_target,
)
from sr_cli.images.losses import losses, losses_of_all
from sr_cli.images.mark import MARK, is_output
from sr_cli.images.photo import Limits, Photo, PhotoSequence, Pixels, with_pixels, without_metadata
from sr_cli.images.png import PixelType, PngWriter, metadata_chunks
from sr_cli.images.probe import Header, probe
