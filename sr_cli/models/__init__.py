"""The generators: one file per family; `create` builds one from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sr_cli.models import esrgan, foreign, mesrgan, msrresnet, rrdbnet, srgan
from sr_cli.models.base import Generator, GeneratorConfig, count_multiplications, count_parameters

_FAMILIES: dict[str, tuple[type[GeneratorConfig], type[Any]]] = {
    "srgan": (srgan.SrganConfig, srgan.Srgan),
    "esrgan": (esrgan.EsrganConfig, esrgan.Esrgan),
    "mesrgan": (mesrgan.MesrganConfig, mesrgan.Mesrgan),
    "rrdbnet": (rrdbnet.RrdbnetConfig, rrdbnet.Rrdbnet),
    "msrresnet": (msrresnet.MsrresnetConfig, msrresnet.Msrresnet),
}

FOREIGN = foreign.ForeignConfig.family
"""Family of the networks that are built from their weights by the optional library spandrel."""

PRESETS: dict[str, GeneratorConfig] = {**srgan.PRESETS, **esrgan.PRESETS, **mesrgan.PRESETS}
"""The networks that have a name; see each family's file."""


def config_from_dict(values: dict[str, Any]) -> GeneratorConfig:
    """The inverse of `GeneratorConfig.to_dict`. Raises ValueError for an unknown family or field."""
    fields = dict(values)
    family = fields.pop("family", None)
    configs = {name: config for name, (config, _) in _FAMILIES.items()} | {FOREIGN: foreign.ForeignConfig}
    if family not in configs:
        raise ValueError(f"unknown model family {family!r}; known: {', '.join(configs)}")
    try:
        return configs[family].from_dict(fields)
    except TypeError as error:
        raise ValueError(f"family {family!r}: {error}") from None


def create(config: GeneratorConfig) -> Generator:
    """A generator with undefined weights; load some or call `reset_parameters`."""
    model = _FAMILIES[config.family][1](config)
    assert isinstance(model, Generator)
    return model


def recognise(tensors: Mapping[str, Tensor]) -> tuple[GeneratorConfig, dict[str, Tensor]] | None:
    """The configuration that a state dict belongs to, read from its names and shapes, and the state
    dict under our own names; None if it is of no family we know.

    A first look only: whether every tensor fits is left to strict loading.
    """
    for family in (srgan.recognise, esrgan.recognise, mesrgan.recognise, rrdbnet.recognise, msrresnet.recognise):
        if found := family(tensors):
            return found
    return None


__all__ = [
    "FOREIGN",
    "PRESETS",
    "Generator",
    "GeneratorConfig",
    "config_from_dict",
    "count_multiplications",
    "count_parameters",
    "create",
    "recognise",
]
