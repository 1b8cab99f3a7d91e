"""srup: upscales photographs by 4 with SRGAN, ESRGAN and MESRGAN generators."""

__version__ = "0.1.0"
