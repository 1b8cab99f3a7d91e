"""The mean over the eight flips and rotations of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_cli.inference.backends import Network


class Ensemble(Network):
    """The mean of a network's results for the eight flips and rotations of its input, in fp32."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, batch: Tensor) -> Tensor:
        total: Tensor | None = None
        for turn in range(4):
            for flipped in (False, True):
                turned = torch.rot90(batch.flip(3) if flipped else batch, turn, (2, 3))
                result = self._network(turned.contiguous(memory_format=torch.channels_last)).float()
                upright = torch.rot90(result, -turn, (2, 3))
                upright = upright.flip(3) if flipped else upright
                total = upright.clone() if total is None else total.add_(upright)
        assert total is not None
        return total.div_(8)

    def release(self) -> None:
        self._network.release()
