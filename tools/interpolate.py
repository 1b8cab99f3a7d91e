"""Weights between those of a run and of what it was fine-tuned from, as the bundled `mesrgan:gan`.

python tools/interpolate.py RUN/gan.best.safetensors PARENT/pixel.best.safetensors 0.4 OTHER_RUN/gan.best.safetensors

The number is the parent's share (Wang et al. 2018, "ESRGAN", section 3.4). What the first file says of itself is kept;
`tools/bundle.py OTHER_RUN` then bundles the result. For networks without BatchNorm (see docs/fidelity.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def main() -> None:
    tuned, parent, share, target = sys.argv[1:]
    with safe_open(tuned, framework="pt") as file:
        metadata = file.metadata()
    ours, theirs = load_file(tuned), load_file(parent)
    if ours.keys() != theirs.keys() or any(name.endswith("running_mean") for name in ours):
        raise SystemExit("not two states of one network without BatchNorm")
    mixed = {name: ours[name].double().lerp(theirs[name].double(), float(share)).float() for name in ours}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    save_file(mixed, target, metadata=metadata)


if __name__ == "__main__":
    main()
