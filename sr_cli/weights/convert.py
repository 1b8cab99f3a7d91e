"""Converts a PyTorch pickle to safetensors without running code from it.

A `.pth` file is a program for Python's unpickler. PyTorch's restricted unpickler (`weights_only=True`)
builds tensors and plain containers and refuses everything else; there is no fallback to the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_cli import state_dicts
from sr_cli.errors import WeightsError
from sr_cli.state_dicts import PICKLE_LIMIT

if TYPE_CHECKING:
    from torch import Tensor

# What trainers wrap a generator's state dict in; the first that is there is taken.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "net_g", "generator", "model")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Conversion:
    """The result of `convert`."""

    target: Path  #: The safetensors file.
    tensors: int  #: How many tensors it has.
    unwrapped: tuple[str, ...]  #: Names and prefixes that were taken off, outermost first.
    dropped: tuple[str, ...]  #: Everything else in the file, named.
    family: str | None  #: Architecture, if it is one that srup knows without help.


def convert(source: Path, target: Path, *, overwrite: bool = False, size_limit: int = PICKLE_LIMIT) -> Conversion:
    """Write the state dict in a PyTorch file as safetensors.

    Raises WeightsError for a missing, too large or unreadable file, for one that wants to run anything, and
    where there are no tensors; OutputError where the result cannot be written or exists.
    """
    from safetensors.torch import save

    from sr_cli import models
    from sr_cli.storage import atomic_output

    if target.suffix.lower() != ".safetensors":
        raise WeightsError(f"{target}: the output of a conversion must end in .safetensors")
    unwrapped: list[str] = []
    dropped: list[str] = []
    tensors = _tensors(_unwrap(state_dicts.read_pickle(source, size_limit), unwrapped, dropped), unwrapped, dropped)
    if not tensors:
        raise WeightsError(f"{source}: has no tensors; it holds {_shorten(dropped) or 'nothing'}")
    with atomic_output(target, overwrite=overwrite) as file:
        file.write(save(tensors))
    found = models.recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return Conversion(target, len(tensors), tuple(unwrapped), tuple(dropped), found.config.family if found else None)


def _unwrap(value: Any, unwrapped: list[str], dropped: list[str]) -> dict[str, Any]:
    """Find the innermost dictionary that holds the generator's tensors."""
    import torch

    if isinstance(value, torch.Tensor):
        return {"tensor": value}
    if not isinstance(value, dict):
        dropped.append(f"a {type(value).__name__}")
        return {}
    inner = next((name for name in _WRAPPERS if isinstance(value.get(name), dict)), None)
    if inner is None:
        return value
    unwrapped.append(inner)
    dropped.extend(f"{key} ({_describe(other)})" for key, other in value.items() if key != inner)
    return _unwrap(value[inner], unwrapped, dropped)


def _tensors(state: dict[str, Any], unwrapped: list[str], dropped: list[str]) -> dict[str, Tensor]:
    """Copy the tensors of a state dict, each with its own memory, without the prefixes that all their names share."""
    import torch

    tensors = {}
    for key, value in state.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided:
            tensors[key] = value.detach().clone().contiguous()
        else:
            dropped.append(f"{key} ({_describe(value)})")
    while tensors and (prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        unwrapped.append(prefix)
    return tensors


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value)} entries"
    return type(value).__name__


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
