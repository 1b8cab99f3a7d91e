"""Interface of the backends: a network that is ready to run, and what makes one.

Importing this module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

    from sr_cli.models import Generator

Forward: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""A function of an fp32 batch (N, 3, H, W), RGB in 0..1, to an fp32 batch (N, 3, scale*H, scale*W)."""


class Network(ABC):
    """A generator that is ready to run in one precision on one device.

    Takes an fp32 batch (N, 3, H, W), RGB in 0..1, on its device, and gives an fp32 batch (N, 3, scale*H, scale*W),
    whatever the precision inside. A result stays as it is when the network runs again.
    """

    @abstractmethod
    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Enlarge the batch."""

    def stream(self, batches: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
        """Yield the results of `count` batches of one shape, in order; it may ask for batches ahead of its results."""
        return map(self, batches)

    def release(self) -> None:  # noqa: B027 - nothing is kept unless a subclass says so
        """Give back the memory that is kept between calls, because memory is short."""


class FunctionNetwork(Network):
    """A network that is a plain function."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return self._forward(batch)


@dataclass(frozen=True)
class Requirement:
    """A package that a backend needs."""

    module: str  #: Module to import.
    remedy: str  #: Advice if it is missing.


@dataclass(frozen=True)
class Backend:
    """A way to run networks: where, how and with what. All are in `registry.BACKENDS`."""

    name: str  #: As `--backend` takes it.
    summary: str  #: Description in a few words.
    devices: tuple[str, ...]  #: Types of devices: `cpu`, `cuda`, `mps`.
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")  #: Precisions that it computes in.
    requirements: tuple[Requirement, ...] = ()  #: Packages that must be installed.
    accepts: Callable[[Generator], bool] = lambda generator: generator.traceable
    """Tells whether it has something for a network: by default, where a recording holds for all sizes."""
    module: str = ""  #: File of this folder whose `prepare` makes a network or a function; by default that of its name.
    recorded: bool = False  #: Whether the function is recorded as a CUDA graph.
    thread_safe: bool = False  #: Whether several threads may run one of its networks at the same time.
    slow_start: bool = False  #: Whether preparing a network, or its first run, takes minutes.
    most_lanes: int = 1  #: Batches that its networks hold in memory at once, at most.

    def missing(self, device: str) -> str | None:
        """Say why it cannot be used on a type of device, with what to do about it; None if it can."""
        if device not in self.devices:
            return f"the backend {self.name} does not run on {device}"
        for requirement in self.requirements:
            if find_spec(requirement.module) is None:
                return f"the backend {self.name} needs {requirement.module}, which is missing; {requirement.remedy}"
        return None

    def lanes(self, threads: int) -> int:
        """Return how many batches its networks hold in memory at once, given that many CPU threads."""
        return min(threads, self.most_lanes)

    def prepare(self, folded: Generator, dtype: torch.dtype) -> Network:
        """Prepare `folded` (from `Generator.fold()`, fp32, on its device) as a network that computes in `dtype`."""
        made = import_module(f"sr_cli.inference.backends.{self.module or self.name}").prepare(folded, dtype)
        if self.recorded:
            from sr_cli.inference.backends.graph import GraphNetwork

            return GraphNetwork(made)
        return made if isinstance(made, Network) else FunctionNetwork(made)
