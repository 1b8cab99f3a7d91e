"""Makes the networks' input from a high-resolution image: by the protocol, or with the damage that photos have."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr_cli.datasets import degradation
from sr_cli.evaluate.protocols import Protocol
from sr_cli.inference import AnyPixels
from sr_cli.metrics.colour import to_bytes


@dataclass(frozen=True)
class LowResolution:
    """Degradation of the networks' inputs, in addition to the protocol's reduction by 4."""

    degrade: str = "none"
    """`none`, or `photo`: blur, noise and JPEG at random, as `srup train` draws them, in place of the reduction."""
    jpeg: tuple[int, ...] = ()
    """Qualities at which inputs are saved as JPEG (4:2:0), by turns in the order of a set's images; empty: not."""
    seed: int = 0  #: Of `degrade`. An image's draw depends on this and its name, not on the others in its set.

    @property
    def changed(self) -> bool:
        """Whether anything is done."""
        return self.degrade != "none" or bool(self.jpeg)

    @property
    def description(self) -> str:
        """The degradation in words, for tables and reports; empty if there is none."""
        parts = []
        if self.degrade == "photo":
            parts.append(f"LR degraded as photos are (seed {self.seed})")
        if self.jpeg:
            turns = " by turns" if len(self.jpeg) > 1 else ""
            parts.append(f"{'LR ' if not parts else ''}saved as JPEG {', '.join(map(str, self.jpeg))}{turns}")
        return " and ".join(parts)

    def make(
        self, hr: NDArray[np.uint8], shipped: NDArray[np.uint8] | None, protocol: Protocol, position: int, name: str
    ) -> AnyPixels:
        """Return the input (H, W, 3) for `hr` (4H, 4W, 3).

        `shipped` is the set's own LR file, `position` the image's place in its set, from 0.
        """
        if self.degrade == "photo":
            seed = [self.seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))]
            lr: AnyPixels = degradation.whole_photo(hr, np.random.default_rng(seed))
        else:
            lr = protocol.reduce(hr) if shipped is None else shipped
        if self.jpeg:
            lr = degradation.jpeg(to_bytes(lr), self.jpeg[position % len(self.jpeg)], "4:2:0")
        return lr
