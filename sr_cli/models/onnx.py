"""Generators in the ONNX format."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from contextlib import redirect_stdout
from typing import Any

import torch

from sr_cli.models.base import Generator

OPSET = 18


def to_onnx(generator: Generator) -> bytes:
    """Convert the generator, folded, to an ONNX model of any batch and image size.

    Its input `rgb` is float32 (N, 3, H, W) in 0..1, its output `enlarged` (N, 3, scale*H, scale*W), not
    clamped; the model's metadata say so, and its scale. Needs the packages of the extra `srup[onnx]`: raises
    ImportError without them.
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
    model = program.model_proto
    _describe(model, generator)
    return model.SerializeToString()


def _describe(model: Any, generator: Generator) -> None:
    """Write what a program needs to know into a model's metadata, and into the text of its input and output."""
    scale = generator.scale
    rgb = "float32 (N, 3, height, width): red, green, blue as sRGB stores them, divided to 0..1"
    enlarged = f"float32 (N, 3, {scale} * height, {scale} * width): the same, {scale} times larger; clamp it to 0..1"
    model.producer_name = "srup"
    model.doc_string = f"Enlarges photos by {scale}; network of the family {generator.config.family}."
    model.graph.input[0].doc_string, model.graph.output[0].doc_string = rgb, enlarged
    facts = {
        "scale": str(scale),
        "family": generator.config.family,
        "config": json.dumps(generator.config.to_dict()),
        "input": rgb,
        "output": enlarged,
        "clamp": "0..1",
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
