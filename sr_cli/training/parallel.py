"""One run over several processes, started by torchrun: the few things that differ from one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """Return this process's number; 0 writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started (it sets WORLD_SIZE); does nothing in a process alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wrap(model: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Wrap `model` so that its gradients are averaged over all processes.

    Buffers are not broadcast: BatchNorm's statistics do not enter a training step, and process 0's are
    the ones that are saved.
    """
    if world() == 1:
        return model
    assert isinstance(model, nn.Module)
    ids = [device.index] if device.type == "cuda" else None
    wrapped: Callable[[Tensor], Tensor] = nn.parallel.DistributedDataParallel(
        model, device_ids=ids, broadcast_buffers=False
    )
    return wrapped


def from_first(value: Any) -> Any:
    """Return process 0's value, in every process. A meeting point."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def first_then_others(work: Callable[[], T], go_on: Callable[[T], bool] = lambda _: True) -> T:
    """Do the same in every process, first in process 0: it makes files that the others then find.

    Where `go_on` says no to its result, the others take that instead of working.
    """
    if world() == 1:
        return work()
    result = work() if rank() == 0 else None
    done = from_first(go_on(result) if rank() == 0 else None)  # type: ignore[arg-type]
    if not done:
        return from_first(result)
    if rank() != 0:
        result = work()
    from_first(None)
    return result  # type: ignore[return-value]


AGREE_EVERY = 10  #: Steps between two times that several processes ask each other whether to stop.


def agree(should_stop: Callable[[], bool], step: int) -> bool:
    """Agree in all processes whether to stop after `step`."""
    return (world() == 1 or step % AGREE_EVERY == 0) and bool(from_first(should_stop()))
