"""The generators: one file per family; `create` builds one from its configuration."""

from __future__ import annotations

from typing import Any

import torch

from sr_cli.errors import WeightsError
from sr_cli.models import esrgan, foreign, mesrgan, msrresnet, rrdbnet, srgan
from sr_cli.models.base import Generator, GeneratorConfig, Recognised, Shapes, count_multiplications, count_parameters

ARCHITECTURES = {
    family.ARCHITECTURE.config.family: family.ARCHITECTURE for family in (srgan, esrgan, mesrgan, rrdbnet, msrresnet)
}
"""The families, by name, in the order in which they are asked whether they recognise a state dict."""

FOREIGN = foreign.ForeignConfig.family
"""Family of the networks that are built from their weights by the optional library spandrel."""

PRESETS: dict[str, GeneratorConfig] = {**srgan.PRESETS, **esrgan.PRESETS, **mesrgan.PRESETS}
"""The networks that have a name; see each family's file."""


def config_from_dict(values: dict[str, Any]) -> GeneratorConfig:
    """Build a configuration from `GeneratorConfig.to_dict`. Raises ValueError for an unknown family or field."""
    fields = dict(values)
    family = fields.pop("family", None)
    configs = {name: architecture.config for name, architecture in ARCHITECTURES.items()}
    configs[FOREIGN] = foreign.ForeignConfig
    if family not in configs:
        raise ValueError(f"unknown model family {family!r}; known: {', '.join(configs)}")
    try:
        return configs[family].from_dict(fields)
    except TypeError as error:
        raise ValueError(f"family {family!r}: {error}") from None


def create(config: GeneratorConfig) -> Generator:
    """Build a generator with undefined weights; load some or call `reset_parameters`."""
    generator: Generator = ARCHITECTURES[config.family].network(config)
    return generator


def create_empty(config: GeneratorConfig) -> Generator:
    """Build a generator whose weights have shapes only, on the meta device, which takes no memory for them.

    `state_dicts.assign` gives it weights, and with them puts it on the CPU.
    """
    with torch.device("meta"):
        return create(config)


def recognise(shapes: Shapes) -> Recognised | None:
    """Find the network that a state dict belongs to, by its names and shapes; None if it is of no family we know.

    A first look only: `state_dicts.check_fit` compares every tensor. Raises WeightsError for a state dict of a known
    family that makes no network of it.
    """
    for name, architecture in ARCHITECTURES.items():
        try:
            found = architecture.recognise(shapes)
        except (ValueError, OverflowError) as error:
            raise WeightsError(f"makes no network of the family {name!r} ({error})") from None
        if found is None:
            continue
        if len(set(found.names.values())) < len(found.names):
            raise WeightsError(f"makes no network of the family {name!r} (two names stand for the same tensor)")
        return found
    return None


__all__ = [
    "ARCHITECTURES",
    "FOREIGN",
    "PRESETS",
    "Generator",
    "GeneratorConfig",
    "Recognised",
    "config_from_dict",
    "count_multiplications",
    "count_parameters",
    "create",
    "create_empty",
    "recognise",
]
