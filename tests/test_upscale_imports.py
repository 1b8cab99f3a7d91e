"""What scales a job up is imported by jobs that use it, and by no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEAVY = ("fsspec", "s3fs", "gcsfs", "ray", "multiprocessing.pool", "torch")
OURS = ("sr_cli.upscale.devices", "sr_cli.upscale.team", "sr_cli.upscale.ray_actors")

_PROBE = """
import sys
from sr_cli.__main__ import run
code = run(sys.argv[1:])
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
sys.exit(code)
"""


def imported(*arguments: object) -> set[str]:
    """Run a command in a process of its own; return the modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_a_local_photo_imports_no_store_no_cluster_and_no_workers(photo: Path, tmp_path: Path) -> None:
    modules = imported("upscale", photo, "-m", "bicubic", "-o", tmp_path / "out.png")
    assert "sr_cli.upscale.worker" in modules and not modules & {*HEAVY, *OURS}


def test_help_imports_none_of_it(tmp_path: Path) -> None:
    modules = imported("upscale", "--help")
    assert not modules & {*HEAVY, *OURS, "sr_cli.upscale.worker", "numpy", "PIL"}


def test_processes_that_interpolate_need_no_torch(photo: Path, tmp_path: Path) -> None:
    modules = imported("upscale", photo, "-m", "bicubic", "-o", tmp_path / "out.png", "--devices", "cpu:1")
    assert "sr_cli.upscale.devices" in modules and not modules & set(HEAVY)
