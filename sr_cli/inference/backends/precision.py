"""fp32 that is fp32: NVIDIA's libraries round its factors to TF32 (10 bits) unless told not to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sr_cli.inference.backends.base import Network

_lock = threading.Lock()
_users = 0
_before = (True, False)


@contextmanager
def full_fp32() -> Iterator[None]:
    """Compute fp32 without TF32, in convolutions (where it is on by default) and products.

    The switches belong to the process: the first thread turns TF32 off and the last restores what was before.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            _allow_tf32(False, False)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _allow_tf32(*_before)


def _allow_tf32(convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


class InFullPrecision(Network):
    """Runs a network in `full_fp32`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, batch: Tensor) -> Tensor:
        with full_fp32():
            return self._network(batch)

    def release(self) -> None:
        self._network.release()
