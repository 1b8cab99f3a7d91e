"""Clocks: how long a device takes, and whether something else disturbed it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sr_cli.inference.backends import Network

if TYPE_CHECKING:
    import torch

Key = TypeVar("Key")

GPU_RUNS = 100
FEWEST_RUNS = 3

_SETTLE = 0.03
"""Seconds before each run on a CPU: a run-time's threads keep spinning after a result, and would take their time from
whoever is next (20 to 40 ms of 190, with ONNX Runtime before torch)."""
_WARM_UP_RUNS = 2
_WARM_UP_SECONDS = 1.0  #: Work before a GPU is timed: it raises its clock only under load.
_DISTURBED = 0.2  #: Times are disturbed if the middle 80 % of them spread over more than this part of their median.


@dataclass
class Times:
    """Seconds of each run of one network."""

    latency: list[float] = field(default_factory=list)  #: From the call until the result is there.
    device: list[float] = field(default_factory=list)  #: What a GPU worked, by its own clock; empty on other devices.


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has done all that it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def is_disturbed(times: Sequence[float]) -> bool:
    """Return whether times scatter so much that something else must have used the machine."""
    low, median, high = np.percentile(times, [10, 50, 90])
    return bool(high - low > _DISTURBED * median)


def runs_for(seconds: float, budget: float, device: torch.device) -> int:
    """Choose how many runs of so many seconds to make: on a CPU as many as fit into the budget, at least three."""
    if device.type != "cpu":
        return GPU_RUNS
    return max(FEWEST_RUNS, min(GPU_RUNS, int(budget / seconds)))


def time_in_turns(
    networks: Mapping[Key, Network],
    source: torch.Tensor,
    runs: Callable[[float], int],
    progress: Callable[[float], None],
) -> dict[Key, Times]:
    """Run all networks on a batch in turns, until each has had its runs: what disturbs one disturbs all alike.

    `runs` says how many runs a network gets that takes so many seconds; `progress` takes the share that is done.
    """
    wanted: dict[Key, int] = {}
    for done, (key, network) in enumerate(networks.items()):
        progress(0.2 * done / len(networks))
        wanted[key] = runs(_warm_up(network, source))
    times = {key: Times() for key in networks}
    total = sum(wanted.values())
    for done in range(total):
        progress(0.2 + 0.8 * done / total)
        # Whoever is furthest behind is next: that spreads the runs of all networks evenly over the whole time.
        behind = min(networks, key=lambda key: len(times[key].latency) / wanted[key])
        latency, device = _once(networks[behind], source)
        times[behind].latency.append(latency)
        if device is not None:
            times[behind].device.append(device)
    return times


def _warm_up(network: Network, source: torch.Tensor) -> float:
    """Run at least twice, on a GPU for a second; return the seconds of the fastest run."""
    started = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < _WARM_UP_RUNS or (
        source.device.type != "cpu" and time.perf_counter() - started < _WARM_UP_SECONDS
    ):
        seconds.append(_once(network, source)[0])
    return min(seconds)


def _once(network: Network, source: torch.Tensor) -> tuple[float, float | None]:
    """Run once; return the seconds until the result is there, and those that a GPU worked."""
    import torch

    device = source.device
    if device.type == "cpu":
        time.sleep(_SETTLE)
    started = now(device)
    with torch.inference_mode():
        if device.type != "cuda":
            network(source)
            return now(device) - started, None
        with torch.cuda.device(device):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record()
            network(source)
            after.record()
            latency = now(device) - started
            return latency, before.elapsed_time(after) / 1000


class Clock(Network):
    """A clock around a network: `seconds` is the time in which its caller had nothing to do but to wait.

    For `Upscaler(wrap_network=clock.around)`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network: Network
        self.seconds = 0.0

    def around(self, network: Network) -> Network:
        """Put the clock around a network."""
        self._network = network
        return self

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        started = now(self._device)
        result = self._network(batch)
        self.seconds += now(self._device) - started
        return result

    def stream(self, batches: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
        """See `Network.stream`; what the caller does for the next batch does not count as waiting."""

        def uncounted() -> Iterator[torch.Tensor]:
            started = now(self._device)
            for batch in batches:
                self.seconds -= now(self._device) - started
                yield batch
                started = now(self._device)

        results = self._network.stream(uncounted(), count)
        while True:
            started = now(self._device)
            result = next(results, None)
            self.seconds += now(self._device) - started
            if result is None:
                return
            yield result

    def release(self) -> None:
        self._network.release()
