"""Freed activations stay mapped, so that a network's next tile does not pay for page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sr_cli.inference import memory

_FAULTS = """
import resource, torch
from sr_cli.inference import memory
if {keep}: assert memory.keep_freed_memory()
def touch():
    for _ in range(5): torch.ones(2**21)  # 8 MiB each
for _ in range(3): touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.needs("linux")
def test_freed_memory_is_reused_without_page_faults() -> None:
    code = _FAULTS.format(keep=True)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2**21 * 4 // 4096  # less than the pages of one of the fifteen blocks


def test_free_memory_is_a_plausible_number() -> None:
    assert 2**20 < memory.free_bytes() < 2**50


def test_free_memory_is_guessed_low_where_the_system_has_no_figure_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_line(file: str, field: str) -> int:
        raise ValueError(f"/proc/{file} has no {field}")

    monkeypatch.setattr(memory, "_proc_bytes", without_the_line)
    assert memory.free_bytes() <= 4 * 2**30
