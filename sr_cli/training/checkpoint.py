"""Checkpoints: one safetensors file per state, written to a temporary file and renamed when complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sr_cli import storage
from sr_cli.errors import InputError, OutputError, reason_of


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason_of(error)}; earlier checkpoints are unchanged") from error


def save_state(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and a JSON-able `info` as one safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    storage.write_file(path, save(plain, metadata={"srup": json.dumps(info)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what `save_state` wrote. Raises InputError when it is missing or damaged.

    The file is opened once: a run may replace it by its next checkpoint at any moment (safetensors' own `safe_open`
    opens it by name a second time for the tensors, and would mix two checkpoints).
    """
    try:
        data = path.read_bytes()
        tensors = load(data)  # checks the header
        size = int.from_bytes(data[:8], "little")
        return tensors, json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["srup"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"cannot read the checkpoint {path}: {reason_of(error)}") from None


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors named `prefix.*`, without the prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give an optimiser's state as named tensors; its learning rate is set anew at every step."""
    return {
        f"{index}.{name}": value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave.

    Files hold plain layouts. A moment must be in memory as its parameter is (channels-last, say):
    fused optimisers walk through both side by side.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
