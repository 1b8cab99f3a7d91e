"""CUDA graphs: a network's kernels recorded once per shape, and launched together instead of one by one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sr_cli.inference.backends.base import Forward, Network

MAX_SHAPES = 3  #: Recordings that are kept; the one that has not been used for longest goes first.
_WARM_UP = 3


@dataclass(frozen=True)
class _Recording:
    """One graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    source: Tensor
    result: Tensor


class GraphNetwork(Network):
    """Records a function as one CUDA graph per shape of its batch.

    All recordings share one pool of memory, since only one runs at a time and its result is copied out at once.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._recordings: OrderedDict[torch.Size, _Recording] = OrderedDict()
        self._pool: Any = None

    def __call__(self, batch: Tensor) -> Tensor:
        with torch.cuda.device(batch.device):  # streams and graphs belong to the current device
            recording = self._recordings.get(batch.shape)
            if recording is None:
                while len(self._recordings) >= MAX_SHAPES:
                    self._recordings.popitem(last=False)
                recording = self._recordings[batch.shape] = self._record(batch)
            self._recordings.move_to_end(batch.shape)
            recording.source.copy_(batch)
            recording.graph.replay()
            return recording.result.clone()

    def release(self) -> None:
        self._recordings.clear()
        self._pool = None

    def _record(self, batch: Tensor) -> _Recording:
        source = batch.clone(memory_format=torch.channels_last)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # cuDNN chooses its algorithms before the recording starts
            for _ in range(_WARM_UP):
                self._forward(source)
        torch.cuda.current_stream().wait_stream(side)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = self._forward(source)
        return _Recording(graph, source, result)
