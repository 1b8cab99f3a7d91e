"""Image quality measures: one per file, pure functions on arrays."""

from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.psnr import psnr, psnr_poster
from sr_cli.metrics.rmse import rmse
from sr_cli.metrics.ssim import ssim, ssim_global

__all__ = ["crop_border", "luma", "psnr", "psnr_poster", "rmse", "ssim", "ssim_global"]
