"""What srup finds on this machine: versions, devices, backends, caches, weights, and one small upscale as a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np

from sr_cli import hub, inference, storage, weights
from sr_cli.errors import SrupError, WeightsError
from sr_cli.inference import InferenceOptions, Setup, backends, choose_setup, memory, this_processor
from sr_cli.weights import registry
from sr_cli.weights.registry import Verification

REQUIRED = (
    "torch",
    "torchvision",
    "typer",
    "rich",
    "pillow",
    "numpy",
    "scipy",
    "huggingface-hub",
    "safetensors",
    "platformdirs",
    "filelock",
    "fsspec",
    "httpx",
)
LITTLE_FREE = 50 * 10**6  #: Bytes free on a disk below which nothing of ours has room.
TOLERANCE = 4  #: Levels of 255 by which the self-test may differ from fp32 on the CPU: fp16 and bf16 round.


@dataclass(frozen=True)
class Device:
    """Something that networks can run on."""

    name: str  #: As `--device` takes it.
    description: str  #: What it is.
    free_bytes: int  #: Memory that can be taken now.
    total_bytes: int | None  #: Memory that it has; None where that is not known.


@dataclass(frozen=True)
class Place:
    """A folder of ours."""

    what: str  #: What is in it.
    path: Path  #: Where it is; it need not exist.
    size: int  #: Bytes in it.
    free: int  #: Bytes free on its disk.


@dataclass(frozen=True)
class SelfTest:
    """One small upscale, against the same in fp32 on the CPU."""

    ok: bool  #: Whether the two agree.
    model: str  #: What was used.
    seconds: float  #: Time of the upscale.
    detail: str  #: How far they are apart, or what went wrong.


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    versions: dict[str, str]  #: srup, Python, the system, and the packages that are installed.
    missing: dict[str, str]  #: Optional packages that are not installed, and the extra that brings each.
    devices: tuple[Device, ...]  #: What there is to run on; the CPU first.
    choice: Setup | None  #: What `srup upscale` would use, and why; None where torch cannot be imported.
    backends: dict[str, str | None]  #: For the chosen device: why a backend cannot be used, None if it can.
    places: tuple[Place, ...]  #: Caches and the user's own weights.
    weights: tuple[Verification, ...]  #: All weights of the manifests, checked where they are on this machine.
    self_test: SelfTest  #: Whether upscaling works.
    problems: tuple[str, ...]  #: What is wrong, a line each; empty if all is well.

    @property
    def exit_code(self) -> int:
        """0 if all is well, 4 if weights are all that is wrong, else 1."""
        if not self.problems:
            return 0
        broken = [result for result in self.weights if result.error]
        return WeightsError.exit_code if len(broken) == len(self.problems) else 1


def examine() -> Diagnosis:
    """Look at everything; whatever is broken is a finding, not an error."""
    problems: list[str] = []
    installed, missing = _versions()
    problems += [f"the package {name} is not installed" for name in REQUIRED if name not in installed]
    try:
        devices = _devices()
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported: {error}")
        devices = ()
    verified = _weights(problems)
    places = _places(problems)
    label, model = _model(verified) if devices else ("bicubic", None)
    choice = None if model is None else choose_setup(InferenceOptions(), model)
    usable = {}
    if choice is not None:
        kind = choice.device.partition(":")[0]
        usable = {name: backend.missing(kind) for name, backend in backends.BACKENDS.items()}
    devices = devices or (_cpu(),)
    test = _self_test(label, model, choice)
    if not test.ok:
        problems.append(f"self-test: {test.detail}")
    return Diagnosis(installed, missing, devices, choice, usable, places, verified, test, tuple(problems))


def _versions() -> tuple[dict[str, str], dict[str, str]]:
    import platform

    from sr_cli import __version__

    found = {"srup": __version__, "python": platform.python_version(), "system": platform.platform()}
    missing: dict[str, str] = {}
    for name, extra in {**dict.fromkeys(REQUIRED, ""), **_optional()}.items():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if extra:
                missing[name] = f"srup[{extra}]"
    return found, missing


def _optional() -> dict[str, str]:
    """List the optional packages and their extras, by the installed metadata of srup; none for a bare checkout."""
    import re

    try:
        lines = requires("srup") or []
    except PackageNotFoundError:
        lines = []
    found = {}
    for line in lines:
        match = re.match(r"""([\w.-]+)[^;]*;\s*extra\s*==\s*['"](\w+)['"]""", line)
        if match and match[2] != "dev":
            found[match[1]] = match[2]
    return found


def _cpu() -> Device:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        total = None
    return Device("cpu", this_processor().name, memory.free_bytes(), total)


def _devices() -> tuple[Device, ...]:
    """List the devices, the CPU first. Raises ImportError or OSError where torch cannot be imported."""
    import torch

    devices = [_cpu()]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices.append(Device(f"cuda:{index}", torch.cuda.get_device_name(index), free, total))
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "Apple GPU", memory.free_bytes(), None))
    return tuple(devices)


def _places(problems: list[str]) -> tuple[Place, ...]:
    """Return the folders; one that cannot be written to, or whose disk is full, is a problem."""
    contents = [
        ("your manifest and weights", storage.data_folder()),
        ("journals of batches", storage.state_folder()),
        ("data sets and decoded images", storage.cache_folder()),
        ("downloads, shared with other programs of the Hub", hub.cache_folder()),
    ]
    found = []
    for path in dict.fromkeys(path for _, path in contents):  # with SRUP_HOME three are one
        what = "; ".join(what for what, place in contents if place == path)
        existing = _existing(path)
        try:
            free = shutil.disk_usage(existing).free
        except OSError:
            free = 0
        found.append(Place(what, path, _size(path), free))
        if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
            advice = "HF_HOME" if path == hub.cache_folder() else "SRUP_HOME"
            problems.append(f"{path} cannot be written to; set {advice} to a folder that can")
        elif free < LITTLE_FREE:
            problems.append(f"the disk of {path} is full: {storage.format_bytes(free)} are free")
    return tuple(found)


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder; links are not followed, so nothing counts twice."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                status = os.lstat(os.path.join(root, name))
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _existing(path: Path) -> Path:
    return next((parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent)), path)


def _weights(problems: list[str]) -> tuple[Verification, ...]:
    try:
        verified = tuple(registry.verify([]))
    except WeightsError as error:
        problems.append(str(error))
        return ()
    problems += [f"{result.name}:{result.stage}: {result.error}" for result in verified if result.error]
    return verified


def _model(verified: tuple[Verification, ...]) -> tuple[str, weights.LoadedModel]:
    """Load the model for the self-test, and its name: mesrgan, else any that is there, else random weights."""
    good = [f"{result.name}:{result.stage}" for result in verified if result.status == "ok"]
    spec = next((name for name in good if name.startswith("mesrgan:")), good[0] if good else None)
    if spec is None:
        return "mesrgan with random weights", weights.draw("mesrgan")
    return spec, weights.load(spec, offline=True)


def _self_test(label: str, model: weights.LoadedModel | None, choice: Setup | None) -> SelfTest:
    """Upscale a small photo the way `srup upscale` would, and once more in the plainest way."""
    picture = _picture()
    started = time.perf_counter()
    try:
        if model is None or choice is None:
            inference.Upscaler("bicubic").upscale(picture)
            return SelfTest(True, label, time.perf_counter() - started, "no network was tested")
        upscaler = inference.Upscaler(model, backend=choice.backend, tile=24, overlap="full")
        started = time.perf_counter()
        result = upscaler.upscale(picture).pixels
        seconds = time.perf_counter() - started
        plain = inference.Upscaler(model, device="cpu", precision="fp32", backend="eager", tile=0, overlap="full")
        apart = int(np.abs(result.astype(int) - plain.upscale(picture).pixels).max())
        return SelfTest(apart <= TOLERANCE, label, seconds, f"at most {apart} of 255 levels from fp32 on the CPU")
    except (SrupError, RuntimeError, OSError, ImportError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        return SelfTest(False, label, time.perf_counter() - started, detail)


def _picture() -> Any:
    """Draw (24, 32, 3): colours that run into each other, with an edge."""
    rows, columns = np.mgrid[:24, :32]
    picture = np.stack([rows * 9, columns * 7, 255 - rows * 4 - columns * 4], axis=2).astype(np.uint8)
    picture[8:16, 10:22] = 255 - picture[8:16, 10:22]
    return picture
