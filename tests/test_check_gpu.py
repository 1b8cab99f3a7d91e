"""The tool that is the first thing to run on a GPU, in its short form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check_gpu

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--device", "cpu", "--backend", "eager"),
        pytest.param(("--device", "cpu"), marks=pytest.mark.slow),  # converts nine networks
        pytest.param(("--device", "cuda"), marks=pytest.mark.needs("cuda")),
    ],
)
def test_all_paths_agree_with_fp32_on_the_cpu(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "tools/check_gpu.py", *arguments, "--short", "--json", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "out").read_text())
    for name in check_gpu.MODELS:
        for what in ("fp32 eager, batch 1", "8 bits", "grey", "16 bits", "float"):
            assert any(check["what"].startswith(name) and what in check["what"] for check in report["checks"])
        assert any(timing["what"] == f"{name} fp32 eager" for timing in report["timings"])
    assert all(check["passed"] for check in report["checks"])
    assert all(timing["arithmetic"] > 0 and timing["milliseconds"] > 0 for timing in report["timings"])


def test_what_is_too_far_or_no_number_fails() -> None:
    assert check_gpu.Check("", 0.1, 0.1).passed
    assert not check_gpu.Check("", 0.11, 0.1).passed
    assert not check_gpu.Check("", float("nan"), 0.1).passed
