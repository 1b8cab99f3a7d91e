"""State dicts: read from files that may be damaged or hostile, and loaded strictly into networks.

A safetensors file begins with a header that names each tensor and its shape. The header is read and compared with the
network first, and the values only where it fits: no file can make us allocate more than it holds itself. A PyTorch
file is a program for Python's unpickler; PyTorch's restricted unpickler (`weights_only=True`) builds tensors and
plain containers and refuses everything else.

Importing this module does not import torch.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec

from sr_cli.errors import WeightsError, reason_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]

MAX_HEADER = 1 << 20
"""Bytes of the longest header that is read: room for 10,000 tensors; the networks that upscale have up to 3,000."""

PICKLE_LIMIT = 2 << 30  #: Bytes of the largest PyTorch file that is opened, packed and unpacked.

_LENGTH = 8  # bytes that give the header's length, little-endian, at the start of a file
_LARGEST_ITEM = 8  # bytes of the widest type of number in the format


class _TensorInfo(msgspec.Struct, frozen=True):
    """What a header says of a tensor (the format of the safetensors library)."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says before its values."""

    shapes: Mapping[str, Shape]  #: Shape of each tensor, by name.
    metadata: Mapping[str, str]  #: Free text of whoever wrote the file.
    file_size: int  #: Bytes that the whole file must have.


class StateFile:
    """A safetensors file whose header is read. Its values are read on demand, from the same opening.

    Raises WeightsError where the header is not one.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        self._file = file
        self._start = file.read(_LENGTH)
        length = int.from_bytes(self._start, "little")
        if len(self._start) < _LENGTH or length > MAX_HEADER:
            raise self._damaged("it does not begin with a header of at most 1 MB")
        self._start += file.read(length)
        if len(self._start) < _LENGTH + length:
            raise self._damaged("its header is cut off")
        self.header = self._parse(self._start[_LENGTH:])

    def read(self) -> bytes:
        """Read the whole file, if it is as long as its header says. Raises WeightsError."""
        wanted = self.header.file_size - len(self._start)
        rest = self._file.read(wanted + 1)
        if len(rest) != wanted:
            what = "it is cut off" if len(rest) < wanted else "it has more bytes than its header says"
            raise self._damaged(what)
        return self._start + rest

    def tensors(self) -> dict[str, Tensor]:
        """Read all tensors as they are stored. Raises WeightsError where the file is damaged."""
        return parse(self.read(), self.where)

    def _parse(self, text: bytes) -> Header:
        try:
            entries = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            metadata = msgspec.json.decode(entries.pop("__metadata__", b"{}"), type=dict[str, str])
            infos = {name: msgspec.json.decode(raw, type=_TensorInfo) for name, raw in entries.items()}
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise self._damaged(one_line(error)) from None
        values = max((info.data_offsets[1] for info in infos.values()), default=0)
        if values > _LARGEST_ITEM * sum(math.prod(info.shape) for info in infos.values()):
            raise self._damaged("its header has bytes that belong to no tensor")
        shapes = {name: info.shape for name, info in infos.items()}
        return Header(shapes, metadata, len(self._start) + values)

    def _damaged(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.where} is not a readable safetensors file ({reason})")


@contextmanager
def opened(path: Path) -> Iterator[StateFile]:
    """Open a safetensors file. Raises WeightsError where it is missing, unreadable or none."""
    try:
        # Not blocking: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            yield StateFile(file, str(path))
    except FileNotFoundError:
        raise WeightsError(f"no weights file {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {reason_of(error)}") from None


def from_bytes(data: bytes, where: str) -> StateFile:
    """Open a file that is in memory, as `opened` does; `where` names it in errors."""
    return StateFile(io.BytesIO(data), where)


def parse(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse the tensors of a whole safetensors file. Raises WeightsError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{where} is not a readable safetensors file ({one_line(error)})") from None


def read_pickle(path: Path, size_limit: int = PICKLE_LIMIT) -> Any:
    """Read a PyTorch file by the restricted unpickler: nothing of it is run.

    Raises WeightsError for a missing, too large or unreadable file, and for one that asks for more than tensors.
    """
    import pickle

    import torch

    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
    except FileNotFoundError:
        raise WeightsError(f"no file {path}") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"cannot read {path}: {reason_of(error)}") from None
    if size > size_limit:
        raise WeightsError(f"{path} is too large: {size / 1e6:.0f} MB, the limit is {size_limit / 1e6:.0f} MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it asks for {wanted[1]}" if wanted else "it holds more than tensors"
        raise WeightsError(f"{path} is refused: {what}; nothing of it was run") from None
    except Exception as error:  # a damaged file can fail anywhere in torch's reader
        raise WeightsError(f"{path} is not a readable PyTorch file ({one_line(error)})") from None


def check_fit(network: nn.Module, shapes: Mapping[str, Shape], where: str, what: str) -> None:
    """Compare the names and shapes of a state dict with a network's; the network may be on the meta device.

    `where` is the state dict and `what` the network in the error's text. Raises WeightsError naming what is missing,
    unexpected and of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    problems = []
    if missing := expected.keys() - shapes.keys():
        problems.append(f"missing {some(missing)}")
    if unexpected := shapes.keys() - expected.keys():
        problems.append(f"unexpected {some(unexpected)}")
    if wrong := [name for name in expected.keys() & shapes.keys() if expected[name] != shapes[name]]:
        first = min(wrong)
        problems.append(f"of other shape {some(wrong)} ({first} is {shapes[first]} instead of {expected[first]})")
    if problems:
        raise WeightsError(f"{where} does not fit {what}: {'; '.join(problems)}")


def assign(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make a state dict that fits (see `check_fit`) the network's own, in the network's types, without a copy.

    A network that was built on the meta device is then on the CPU.
    """
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.to(types[name]) for name, tensor in tensors.items()}, assign=True)


def some(names: Iterable[str], limit: int = 4) -> str:
    """List the first of some names in a line, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(map(_shown, ordered[:limit])) + more


def _shown(name: str) -> str:
    plain = name if name.isprintable() else ascii(name)
    return plain if len(plain) <= 80 else f"{plain[:77]}..."


def one_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).split("\n")[0] or type(error).__name__)[:200]
