"""What goes wrong while a batch runs: kills, full and read-only disks, no memory, a cut journal.

After each: every output that is there is complete and correct, the next run finishes the rest, and nothing else
was touched. SRUP_KILLS sets how many kills the slow form makes (1,000 by default).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_upscale_batch import upscale

from sr_cli import images, inference
from sr_cli.errors import OutOfMemory
from sr_cli.storage import is_temporary, remove_leftovers
from tests.networks import SMALL, with_weights
from tests.processes import SRUP, Forked, die_at_file_event, die_at_output

FILES = 10
PRECIOUS = "not one of ours"


@dataclass
class Batch:
    """A folder of photographs, where their outputs go, and what these must be."""

    inputs: Path
    outputs: Path
    arguments: list[str]
    expected: dict[str, bytes]
    moments: int
    """How long a whole run takes after its start."""

    def __post_init__(self) -> None:
        self.originals = _snapshot(self.inputs)

    def reset(self) -> None:
        """Nothing done yet, and a bystander in the output folder."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        self.outputs.mkdir()
        (self.outputs / "precious.txt").write_text(PRECIOUS)

    def check(self, *, whole: bool = False) -> None:
        """What is there is right; with `whole`, nothing is missing either."""
        assert _snapshot(self.inputs) == self.originals
        assert (self.outputs / "precious.txt").read_text() == PRECIOUS
        found = {path.name: path for path in self.outputs.iterdir()} if self.outputs.exists() else {}
        for name, path in found.items():
            if name in self.expected:
                assert path.read_bytes() == self.expected[name], f"{name} is not what it should be"
            else:
                assert name == "precious.txt" or is_temporary(path), f"{name} does not belong here"
                assert path.suffix not in images.READABLE_SUFFIXES
        if whole:
            assert set(self.expected) <= set(found)

    def done(self) -> set[tuple[str, int]]:
        """Names and inodes of the outputs there are: one that is made again has another inode."""
        return {(name, (self.outputs / name).stat().st_ino) for name in self.expected if (self.outputs / name).exists()}


def _snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    inputs, outputs = tmp_path / "photos", tmp_path / "large"
    inputs.mkdir()
    generator = np.random.default_rng(0)
    for index, suffix in zip(range(FILES), ("png", "jpg", "webp", "tif", "png") * 2, strict=True):
        side = 40 + 17 * index
        pixels = generator.integers(0, 256, (side, side // 2, 3), np.uint8)
        Image.fromarray(pixels).save(inputs / f"{index}.{suffix}", quality=90)
    arguments = ["upscale", str(inputs), "-o", str(outputs), "-m", "bicubic", "-q"]
    code, moments = _run(arguments)
    assert code == 0 and moments > FILES
    expected = {path.name: path.read_bytes() for path in outputs.iterdir()}
    assert len(expected) == FILES
    made = Batch(inputs, outputs, arguments, expected, moments)
    made.reset()
    return made


def _run(arguments: list[str], moment: int | None = None, sent: int = 0) -> tuple[int, int]:
    """Run `srup`, which sends itself `sent` at its n-th file event; give its exit code and how many events it had."""
    with tempfile.NamedTemporaryFile() as count:
        with Forked(*arguments, prepare=partial(die_at_file_event, moment, sent, Path(count.name))) as process:
            code = process.wait()
        return code, int(count.read())


def _kill_again_and_again(batch: Batch, kills: int, seed: int) -> int:
    """Kills runs at random file events, each resuming the last one; gives how many were really hit."""
    chance = random.Random(seed)
    hit = 0
    for _ in range(kills):
        sent = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        before = batch.done()
        code, _ = _run(batch.arguments, chance.randint(1, batch.moments), sent)
        killed = code in (-sent, 130, 143)
        hit += killed
        batch.check()
        assert before <= batch.done(), "an output was made again or lost"
        assert killed or code == 0, f"exit code {code}"
        if len(batch.done()) == FILES or chance.random() < 0.2:
            finished = batch.done()
            assert _run(batch.arguments)[0] == 0, "the next run did not finish the rest"
            batch.check(whole=True)
            assert finished <= batch.done(), "an output was made again"
            batch.reset()
    return hit


def test_kills(batch: Batch) -> None:
    assert _kill_again_and_again(batch, 6, seed=0) > 3


@pytest.mark.long
def test_a_thousand_kills(batch: Batch) -> None:
    kills = int(os.environ.get("SRUP_KILLS", "1000"))
    hit = _kill_again_and_again(batch, kills, seed=1)
    print(f"{hit} of {kills} kills hit a running batch of {batch.moments} file events")
    assert hit > kills / 4


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_polite_signals_leave_no_unfinished_file(sent: signal.Signals, batch: Batch) -> None:
    for part in (3, 2):
        batch.reset()
        code, _ = _run(batch.arguments, batch.moments // part, sent)
        assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
        assert not [path for path in batch.outputs.iterdir() if is_temporary(path)]


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_with_a_network(kills: int, batch: Batch, tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    save_file(dict(with_weights(SMALL["mesrgan"]).state_dict()), weights)
    arguments = [part if part != "bicubic" else str(weights) for part in batch.arguments]
    shutil.rmtree(batch.outputs)
    assert _run(arguments)[0] == 0
    made = {path.name: path.read_bytes() for path in batch.outputs.iterdir()}
    whole = Batch(batch.inputs, batch.outputs, arguments, made, 0)
    chance = random.Random(2)
    whole.reset()
    for _ in range(kills):
        sent, finished = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), chance.randint(1, 2)
        with Forked(*arguments, prepare=partial(die_at_output, finished, sent)) as process:
            assert process.wait() in (-sent, 130, 143, 0)
        whole.check()
    assert _run(arguments)[0] == 0
    whole.check(whole=True)


def test_a_cut_journal(batch: Batch, tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(2):
        batch.reset()
        _run(batch.arguments, chance.randint(batch.moments // 3, batch.moments - 1), signal.SIGKILL)
        for journal in (tmp_path / "state/srup/journal").iterdir():
            os.truncate(journal, chance.randint(0, journal.stat().st_size))
        before = batch.done()
        code, _ = _run(batch.arguments)
        batch.check(whole=True)  # the rest is done; what the journal forgot is reported and left as it is
        assert before <= batch.done()
        assert code in (0, 1, 6)
        assert _run([*batch.arguments, "--skip-existing"])[0] == 0


# Disks


def _unshare() -> list[str] | None:
    for command in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        with contextlib.suppress(OSError):
            trial = [*command, "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
            if subprocess.run(trial, capture_output=True).returncode == 0:
                return command
    return None


@pytest.fixture
def in_namespace() -> Callable[[str], str]:
    """Run a shell script that may mount file systems, seen by nobody else."""
    namespace = _unshare()
    assert namespace is not None

    def run(script: str) -> str:
        result = subprocess.run(
            [*namespace, "sh", "-eu", "-c", script],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "SRUP": " ".join(SRUP)},
        )
        assert result.returncode == 0, result.stderr + result.stdout
        return result.stdout

    return run


def _numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split("=") for line in text.splitlines() if "=" in line)}


def test_a_full_disk(batch: Batch, in_namespace: Callable[[str], str]) -> None:
    """The disk holds some of the outputs; with more room the rest follows."""
    size = sum(len(data) for data in batch.expected.values())
    shutil.rmtree(batch.outputs)
    batch.outputs.mkdir()
    seen = batch.outputs.with_name("seen")
    script = f"""
        mount -t tmpfs -o size={size * 6 // 10 // 1024}k tmpfs '{batch.outputs}'
        echo '{PRECIOUS}' > '{batch.outputs}/precious.txt'
        code=0; $SRUP {" ".join(batch.arguments)} || code=$?; echo first=$code
        cp -a '{batch.outputs}' '{seen}'
        mount -o remount,size={size * 2 // 1024 + 64}k '{batch.outputs}'
        code=0; $SRUP {" ".join(batch.arguments)} || code=$?; echo second=$code
        cp -a '{batch.outputs}/.' '{seen}-later'
    """
    codes = _numbers(in_namespace(script))
    assert codes == {"first": 1, "second": 0}
    _check_copy(batch, seen, whole=False)
    _check_copy(batch, seen.with_name("seen-later"), whole=True)


def test_a_disk_that_becomes_read_only(batch: Batch, in_namespace: Callable[[str], str]) -> None:
    shutil.rmtree(batch.outputs)
    batch.outputs.mkdir()
    seen = batch.outputs.with_name("seen")
    script = f"""
        mount -t tmpfs tmpfs '{batch.outputs}'
        echo '{PRECIOUS}' > '{batch.outputs}/precious.txt'
        $SRUP {" ".join(batch.arguments)} & job=$!
        while ! ls '{batch.outputs}' | grep -q bicubic; do :; done
        until mount -o remount,ro '{batch.outputs}' 2>/dev/null; do kill -0 $job || break; done
        code=0; wait $job || code=$?; echo first=$code
        cp -a '{batch.outputs}' '{seen}'
        mount -o remount,rw '{batch.outputs}'
        code=0; $SRUP {" ".join(batch.arguments)} || code=$?; echo second=$code
        cp -a '{batch.outputs}/.' '{seen}-later'
    """
    codes = _numbers(in_namespace(script))
    assert codes["first"] in (0, 1) and codes["second"] == 0
    _check_copy(batch, seen, whole=codes["first"] == 0, frozen=True)
    later = seen.with_name("seen-later")
    _check_copy(batch, later, whole=True, frozen=True)
    # What the disk kept is left to later runs: it is not a minute old.
    assert {path.name for path in later.iterdir() if is_temporary(path)} <= {path.name for path in seen.iterdir()}


def _check_copy(batch: Batch, copy: Path, *, whole: bool, frozen: bool = False) -> None:
    copied = Batch(batch.inputs, copy, batch.arguments, batch.expected, batch.moments)
    (copy / "precious.txt").write_text((copy / "precious.txt").read_text().strip())
    copied.check(whole=whole)
    if not frozen:  # a disk that became read-only keeps the temporary file of that moment
        assert not [path for path in copy.iterdir() if is_temporary(path)]
    assert 0 < len(copied.done()) <= FILES


@pytest.mark.needs("/dev/full")
def test_a_full_standard_output(srup: Callable[..., subprocess.CompletedProcess[str]], batch: Batch) -> None:
    photo = next(batch.inputs.iterdir())
    command = [*SRUP, "upscale", str(photo), "-m", "bicubic", "-o", "-"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 6
    assert result.stderr.count("\n") == 1, result.stderr


# Memory


def test_out_of_memory_in_the_engine(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    original = inference.Upscaler.upscale

    def limited(self: inference.Upscaler, pixels: inference.Pixels, *rest: object) -> inference.EngineResult:
        if len(pixels) > 180:
            raise OutOfMemory("out of memory on cpu even with tiles of 16 pixels; close other programs")
        return original(self, pixels, *rest)

    monkeypatch.setattr(inference.Upscaler, "upscale", limited)
    results = upscale(batch.inputs, to=batch.outputs)
    assert {result.status for result in results} == {"done", "failed"}
    assert {result.exit_code for result in results if result.status == "failed"} == {5}
    batch.check()
    monkeypatch.setattr(inference.Upscaler, "upscale", original)
    assert {result.status for result in upscale(batch.inputs, to=batch.outputs)} == {"done", "skipped"}
    batch.check(whole=True)


def test_out_of_memory_in_the_network(tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tiles of each picture do not fit: smaller ones do, and nobody notices."""
    weights = tmp_path / "small.safetensors"
    model = with_weights(SMALL["mesrgan"])
    save_file(dict(model.state_dict()), weights)
    wish = {"model": str(weights), "overlap": "full", "tile": 64}
    expected = {
        r.output.name: images.read(r.output).pixels for r in upscale(batch.inputs, to=tmp_path / "calm", **wish)
    }
    forward = type(model).forward

    def limited(self: torch.nn.Module, rgb: torch.Tensor) -> torch.Tensor:
        if rgb.shape[-1] * rgb.shape[-2] > 100 * 100:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return forward(self, rgb)

    monkeypatch.setattr(type(model), "forward", limited)
    results = upscale(batch.inputs, to=batch.outputs, **wish)
    assert {result.status for result in results} == {"done"}
    for result in results:
        difference = images.read(result.output).pixels.astype(int) - expected[result.output.name]
        assert np.abs(difference).max() <= (1 if result.output.suffix in (".png", ".tif") else 16)


def test_out_of_memory_for_real(tmp_path: Path, srup: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Under a limit of the system itself: one line, exit code 5, nothing left behind."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4000, 3500), (9, 99, 199)).save(tmp_path / "in/large.png")
    command = f"ulimit -v 900000; exec {' '.join(SRUP)} upscale {tmp_path}/in/large.png -m bicubic"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
    assert result.returncode == 5, result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "in") == ["large.png"]


# Leftovers


def test_leftovers_go_and_living_files_stay(tmp_path: Path) -> None:
    dead, young, ours = (tmp_path / f".srup-{pid}-0123.part" for pid in (1, 2, os.getpid()))
    for path in (dead, young, ours, tmp_path / "photo.part", tmp_path / ".srup-1.png"):
        path.write_text("unfinished")
    held = tmp_path / ".srup-3-0123.part"
    script = (
        "import sys\nfrom pathlib import Path\nfrom sr_cli.storage import atomic\n"
        "file = open(sys.argv[1], 'xb')\natomic.hold(file.fileno())\nprint(flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, held]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(tmp_path)
        assert young.exists(), "too young to be sure"
        remove_leftovers(tmp_path, older_than_s=0)
        left = {path.name for path in tmp_path.iterdir()}
        process.kill()
    assert left == {ours.name, held.name, "photo.part", ".srup-1.png"}
    remove_leftovers(tmp_path, older_than_s=0)
    assert not held.exists()
