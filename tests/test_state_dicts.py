"""Weights files that are damaged or hostile: refused at once, with little memory, in one line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from sr_cli import models, state_dicts, weights
from sr_cli.errors import WeightsError
from sr_cli.models.msrresnet import MsrresnetConfig
from sr_cli.models.rrdbnet import RrdbnetConfig
from tests.networks import SMALL

FAMILIES = {
    **SMALL,
    "rrdbnet": RrdbnetConfig(2, 8, 4),
    "msrresnet": MsrresnetConfig(2, 8),
}

ROOT = Path(__file__).resolve().parents[1]
CASES = ("many", "scalar", "zero", "huge")
Load = Callable[[Path], str | None]


def state(family: str) -> dict[str, torch.Tensor]:
    generator = models.create(FAMILIES[family])
    generator.reset_parameters(torch.Generator().manual_seed(0))
    return generator.state_dict()


def file_of(header: dict[str, Any], values: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A file with these tensors and, where they are empty, no values."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return file_of(header, bytes(end))


_BOUNDED = """
import json, os, resource, sys
import spandrel  # its import is not what is measured
from sr_cli import weights
from sr_cli.errors import WeightsError

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
for line in sys.stdin:
    try:
        weights.load(json.loads(line))
        answer = None
    except WeightsError as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""
"""Loads the files whose names it is given with 256 MiB more than it has, and answers with the errors."""


@pytest.fixture(scope="module")
def bounded() -> Iterator[Callable[[Path], str | None]]:
    """Load a file in a process that may allocate 256 MiB; give the error, or None.

    One process serves all tests of this file. A limit in the tests' own process would starve the threads that native
    libraries have there.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _BOUNDED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def load(path: Path) -> str | None:
            print(json.dumps(str(path)), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, f"the process that loads files ended with {process.wait()}"
            return json.loads(answer)

        yield load
        process.stdin.close()


def one_line(message: str | None) -> str:
    """Return the refusal of a file, which must be one."""
    assert message is not None, "the file was loaded"
    assert "\n" not in message
    assert len(message) < 1500
    return message


def refuse(path: Path) -> str:
    """Load a file in this process; return why it is refused."""
    with pytest.raises(WeightsError) as error:
        weights.load(path)
    return one_line(str(error.value))


@pytest.mark.parametrize("case", CASES)
def test_files_that_took_gigabytes_or_failed_inside(shared: Path, bounded: Load, case: str) -> None:
    one_line(bounded(shared / "cases" / f"{case}.safetensors"))


HOSTILE: dict[str, dict[str, tuple[int, ...]]] = {
    "wide esrgan": {"head.weight": (200_000, 3, 1, 1), "trunk.0.layers.0.weight": (2, 2, 1, 1)},
    "esrgan of many blocks": {"head.weight": (512, 3, 1, 1), "trunk.0.layers.0.weight": (512, 1, 1, 1)}
    | {f"trunk.{i}.x": (1,) for i in range(4_000)},
    "mesrgan of many blocks": {
        "head.weight": (512, 3, 1, 1),
        "trunk.0.layers.0.expand.weight": (512, 1, 1, 1),
        "trunk.0.layers.0.project.weight": (512, 1, 1, 1),
    }
    | {f"trunk.{i}.x": () for i in range(4_000)},
    "srgan of many blocks": {"head.weight": (512, 3, 1, 1), "trunk.0.norm1.weight": (1,)}
    | {f"trunk.{i}.x": () for i in range(4_000)},
    "rrdbnet of many groups": {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 1, 1, 1)}
    | {f"body.{i}.rdb1.conv2.bias": () for i in range(4_000)},
    "rrdbnet of the original names": {
        "model.1.sub.0.RDB1.conv1.0.weight": (32, 1, 1, 1),
        "model.0.weight": (8, 3, 3, 3),
    }
    | {"model.99999999999.weight": ()},
    "a number that no integer has": {
        "conv_first.weight": (64, 3, 3, 3),
        "body.0.rdb1.conv1.weight": (32, 1, 1, 1),
        f"body.{'9' * 5000}.rdb1.conv1.weight": (),
    },
    "msrresnet": {"conv_first.weight": (9, 3, 3, 3), "upconv1.weight": (), "body.0.conv1.weight": ()},
    "two names of one tensor": {"conv_first.weight": (64, 3, 3, 3), "head.weight": (64, 3, 3, 3)}
    | {"body.0.rdb1.conv1.weight": (32, 64, 3, 3)},
    "an expansion of none": {"head.weight": (8, 3, 9, 9), "trunk.0.layers.0.expand.weight": (1, 8, 1, 1)}
    | {"trunk.0.layers.0.project.weight": (4, 8, 1, 1)},
    "empty": {},
    "names of control characters": {"\x1b[31m\n" * 100: (1,)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_shapes_are_compared_before_anything_is_allocated(tmp_path: Path, bounded: Load, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(of_shapes(HOSTILE[name]))
    message = one_line(bounded(tmp_path / "x.safetensors"))
    assert "\x1b" not in message


def test_spandrel_is_not_made_to_allocate_either(tmp_path: Path, bounded: Load) -> None:
    # 0.8 MB of bias that ask for a convolution of 200,000 x 200,000 x 9 values (160 GB in fp16).
    shapes = {"body.0.weight": (200_000, 1, 1, 1), "body.1.weight": (1,), "body.2.weight": (48, 1, 1, 1)}
    (tmp_path / "x.safetensors").write_bytes(of_shapes(shapes))
    assert "not an architecture that srup knows" in one_line(bounded(tmp_path / "x.safetensors"))


def test_a_model_for_something_else_is_refused_by_its_header(tmp_path: Path) -> None:
    """A language model of 20 GB, say: nothing of its values is read."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of({"wte": {"dtype": "F32", "shape": [5 << 30], "data_offsets": [0, 20 << 30]}}))
    os.truncate(path, path.stat().st_size + (20 << 30))
    assert "not an architecture" in refuse(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begin with a header"),
        (b"\xff" * 8, "begin with a header"),
        ((1 << 20).to_bytes(8, "little") + b"{}", "cut off"),
        (file_of({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "int"),
        (file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99]}}, bytes(99)), "belong to no tensor"),
        (b"\x10\0\0\0\0\0\0\0" + b"[" * 16, "not a readable"),
        (b"\0\0\1\0\0\0\0\0" + b'{"a":' + b"[" * 65531, "not a readable"),
        (save({"a": torch.zeros(3)})[:-1], "cut off"),
    ],
)
def test_damaged_headers(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert message in refuse(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"])
def test_files_cut_off_or_too_long(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.safetensors").write_bytes(change(save(state("mesrgan"))))
    assert "than its header says" in (message := refuse(tmp_path / "x.safetensors")) or "cut off" in message


@pytest.mark.needs("posix")
def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    refuse(tmp_path / "x.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_have_as_many_tensors_as_recognition_assumes(family: str) -> None:
    """One tensor more or less does not change the number of blocks, half of them does."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state(family).items()}
    prefix = "body." if family == "msrresnet" else "trunk."
    second = sorted(name for name in shapes if name.startswith(f"{prefix}1."))
    assert models.recognise(shapes | {f"{prefix}1.x": ()}).config.blocks == 2  # type: ignore[union-attr]
    for gone, blocks in ((second[1:], 2), (second[:1], 1)):
        left = {name: shape for name, shape in shapes.items() if name not in second or name in gone}
        del left[next(name for name in left if name.startswith(f"{prefix}0.") and name.endswith("bias"))]
        found = models.recognise(left)
        assert found is not None
        assert found.config.blocks == blocks  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_built_without_memory_computes_as_one_that_was_copied_into(tmp_path: Path, family: str) -> None:
    tensors = state(family)
    save_file({name: value.half() if value.is_floating_point() else value for name, value in tensors.items()},
              tmp_path / "x.safetensors")  # fmt: skip
    loaded = weights.load(tmp_path / "x.safetensors").generator
    expected = models.create(FAMILIES[family]).eval()
    expected.load_state_dict({name: value.half() for name, value in tensors.items()})
    everything = [*loaded.parameters(), *loaded.buffers()]
    assert {(value.device.type, value.dtype) for value in everything if value.is_floating_point()} == {
        ("cpu", torch.float32)
    }
    rgb = torch.rand(1, 3, 12, 10)
    with torch.inference_mode():
        assert torch.equal(loaded(rgb), expected(rgb))
    loaded.train().requires_grad_(True)
    loaded(rgb).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """A header changed in one of the ways that files are damaged or made up."""
    length = int.from_bytes(data[:8], "little")
    text, values = data[8 : 8 + length], data[8 + length :]
    kind = rng.randrange(6)
    if kind == 0:  # a few bytes of the header
        changed = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return data[:8] + bytes(changed) + values
    if kind == 1:  # the length
        return rng.choice([rng.randrange(1 << 64), rng.randrange(2 * length)]).to_bytes(8, "little") + text + values
    header = json.loads(text)
    name = rng.choice([key for key in header if key != "__metadata__"])
    extreme = rng.choice([0, 1, -1, 3, 1 << 20, 1 << 31, 1 << 63, 1 << 64, 2.5, None, "x", [1], True])
    if kind == 2:  # a side of a shape
        shape = header[name]["shape"]
        header[name]["shape"] = rng.choice([[], shape[:-1], [*shape, extreme], [extreme] * max(1, len(shape)), extreme])
    elif kind == 3:  # a tensor's place
        header[name][rng.choice(["data_offsets", "dtype", "shape"])] = rng.choice([extreme, [extreme, extreme], "F8"])
    elif kind == 4:  # names
        entry = header.pop(name)
        header[name.replace("0", str(rng.choice([9, 10**9, 10**30])))] = entry
        header.update({f"{name[: rng.randrange(len(name))]}{i}.weight": entry for i in range(rng.choice([1, 300]))})
    else:  # a share of the tensors, each empty
        for key in rng.sample(sorted(header), rng.randrange(len(header))):
            if key != "__metadata__":
                sides = [0 if i == 1 else rng.choice([1, 1 << 10, 1 << 20]) for i in range(4)]
                header[key] = {"dtype": "F32", "shape": sides, "data_offsets": [0, 0]}
    return file_of(header, values)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_headers_are_read_or_refused(tmp_path: Path, bounded: Load, count: int) -> None:
    sources = [save(state(family), metadata={"srup": "{}"}) for family in FAMILIES]
    path = tmp_path / "x.safetensors"
    refused = 0
    for number in range(count):
        path.write_bytes(_mutated(sources[number % len(sources)], random.Random(number)))
        message = bounded(path)
        assert message is None or "\n" not in message
        refused += message is not None
    assert refused > 0.8 * count


def test_missing_and_unexpected_tensors_are_named() -> None:
    network = models.create_empty(FAMILIES["mesrgan"])
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    del shapes["head.bias"]
    shapes |= {"x": (1,), "trunk_conv.bias": (9,)}
    expected = (
        r"here does not fit it: missing head\.bias; unexpected x; of other shape trunk_conv\.bias \(.*\(9,\).*\(16,\)"
    )
    with pytest.raises(WeightsError, match=expected):
        state_dicts.check_fit(network, shapes, "here", "it")
