"""Small networks with weights, for tests that need one and not a good one."""

from __future__ import annotations

import torch

from sr_cli import models
from sr_cli.models.esrgan import EsrganConfig
from sr_cli.models.mesrgan import MesrganConfig
from sr_cli.models.srgan import SrganConfig

SMALL = {
    "srgan": SrganConfig(blocks=2, features=16),
    "esrgan": EsrganConfig(blocks=2, features=16, growth=8),
    "mesrgan": MesrganConfig(blocks=2, features=16, growth=8),
    "mesrgan-single": MesrganConfig(blocks=2, features=16, growth=8, upsampler="single"),
    "mesrgan-poster": MesrganConfig(blocks=2, features=16, growth=8, expansion=2, upsampler="full"),
}
TINY = {"srgan": SrganConfig(blocks=1, features=8), "mesrgan": MesrganConfig(blocks=1, features=8, growth=4)}
"""Presets to train in a test: a step takes milliseconds."""


def with_weights(config: models.GeneratorConfig) -> models.Generator:
    """Return a network as after training: BatchNorm's statistics and weights are not the neutral ones."""
    model = models.create(config)
    model.reset_parameters(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def with_biases(model: models.Generator) -> models.Generator:
    """Return a network with random biases as well: fresh ones are zero and would hide what becomes of them."""
    random = torch.Generator().manual_seed(0)
    model.reset_parameters(random)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.1, generator=random)
    return model.eval()


def use_tiny_presets() -> None:
    """Let `srup train -m mesrgan` and `-m srgan` train tiny networks, in a process that does nothing else."""
    models.PRESETS.update(TINY)
