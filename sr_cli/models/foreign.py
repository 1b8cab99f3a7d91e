"""Other people's architectures, through the optional library spandrel, with our interface.

`pip install 'srup[spandrel]'`. The library recognises an architecture from its state dict; we add what
the engine wants to know, and padding to the sizes that the network needs.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sr_cli.models.base import Generator, GeneratorConfig


@dataclass(frozen=True)
class ForeignConfig(GeneratorConfig):
    """What spandrel says of a network; it is built from its weights, not from this."""

    family: ClassVar[str] = "spandrel"

    architecture: str  #: spandrel's name of it, such as `SwinIR`.
    scale: int  #: Factor between input and output.


class Foreign(Generator):
    """A network of spandrel's; see `Generator` for the contract.

    How far such a network sees is not known; `receptive_radius` is a guess that suits window attention
    and convolutions of usual depth, so tiles can show. Memory is a guess as well.
    """

    def __init__(self, config: ForeignConfig, network: nn.Module, multiple: int, minimum: int, square: bool) -> None:
        super().__init__()
        self.config: ForeignConfig = config
        self.scale = config.scale
        self.alignment = multiple
        self.traceable = False
        self.network = network
        self.minimum = minimum
        self.square = square

    def forward(self, rgb: Tensor) -> Tensor:
        height, width = rgb.shape[-2:]
        sides = [max(side, self.minimum) for side in (height, width)]
        sides = [max(sides)] * 2 if self.square else sides
        bottom, right = (
            side + -side % self.alignment - have for side, have in zip(sides, (height, width), strict=True)
        )
        padded = F.pad(rgb, (0, right, 0, bottom), mode="replicate") if bottom or right else rgb
        output: Tensor = self.network(padded)
        return output[..., : height * self.scale, : width * self.scale]

    @property
    def receptive_radius(self) -> int:
        """A guess; see the class."""
        return 64

    @property
    def peak_values_per_pixel(self) -> int:
        return 16_384

    def fold(self) -> Self:
        """Copy for inference, the layout as it is: not all of these networks bear another."""
        return copy.deepcopy(self).eval().requires_grad_(False)


def available() -> bool:
    """Tell whether the library is installed."""
    return importlib.util.find_spec("spandrel") is not None


LARGEST = 2 << 30
"""Bytes of the largest file that is given to spandrel; networks that enlarge images have at most a quarter of it."""


class _AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to make tensors of more than `elements` values in all, before any is made.

    spandrel builds a network by what it finds in the names and shapes of a file, and compares afterwards.
    """

    def __init__(self, elements: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = elements

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for size in args:
            if isinstance(size, list | tuple) and size and all(isinstance(side, int) for side in size):
                self.left -= 0 if any(isinstance(value, Tensor) for value in args) else math.prod(size)
        if self.left < 0:
            raise MemoryError
        return func(*args, **(kwargs or {}))


def load(tensors: Mapping[str, Tensor]) -> Foreign | None:
    """Let spandrel build the network of a state dict; None where it is missing, does not know it, or fails.

    Networks for anything but enlarging or restoring RGB images are not taken either. A network may have a few
    times the values of its file (masks, positions); one that would have far more is not built.
    """
    if not available() or any(tensor.numel() == 0 for tensor in tensors.values()):
        return None
    spandrel: Any = importlib.import_module("spandrel")
    elements = sum(tensor.numel() for tensor in tensors.values())
    try:
        with _AllocationLimit(4 * elements + (1 << 24)):
            found = spandrel.ModelLoader(device=torch.device("cpu")).load_from_state_dict(dict(tensors))
    except Exception:  # it recognises by a few names, and fails anywhere where the others do not fit
        return None
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        return None
    size = found.size_requirements
    config = ForeignConfig(found.architecture.name, found.scale)
    return Foreign(config, found.model.eval().float(), size.multiple_of, size.minimum, size.square)
