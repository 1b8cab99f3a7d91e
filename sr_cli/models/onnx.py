"""Generators in the ONNX format."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from contextlib import redirect_stdout

import torch

from sr_cli.models.base import Generator

OPSET = 18


def to_onnx(generator: Generator) -> bytes:
    """The generator, folded, as an ONNX model of any batch and picture size.

    Its input `rgb` is float32 (N, 3, H, W) in 0..1, its output `enlarged` (N, 3, scale*H, scale*W), not
    clamped. Needs the packages of the extra `srup[onnx]`: raises ImportError without them.
    """
    module = copy.deepcopy(generator).fold().to(memory_format=torch.contiguous_format)
    size = {0: torch.export.Dim("count"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                (torch.zeros(2, 3, 24, 32),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["rgb"],
                output_names=["enlarged"],
                dynamic_shapes=(size,),
                verbose=False,
            )
        finally:
            logger.setLevel(level)
    assert program is not None
    return program.model_proto.SerializeToString()
