"""Fixtures for all tests: no network, and a home and cache of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.needs import FIXTURES, NEEDS, SHARED, there


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="KIND,KIND",
        help="kinds of needs (interop, browser, gpu, reference, system) that must be there: a missing one is an error",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by what it needs, and leave out those whose needs are not there."""
    required = set(filter(None, config.getoption("--require").split(",")))
    kept, left_out, lacking = [], [], set()
    for item in items:
        needs = {name for mark in item.iter_markers("needs") for name in mark.args}
        needs |= {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
        for kind in {NEEDS[name].kind for name in needs}:
            item.add_marker(kind)
        if not needs:
            item.add_marker("cli" if item.path.name.startswith("test_cli") else "unit")
        missing = {name for name in needs if not there(name)}
        lacking |= {name for name in missing if NEEDS[name].kind in required}
        (left_out if missing else kept).append(item)
    if lacking:
        raise pytest.UsageError("; ".join(f"{name} is missing: {NEEDS[name].remedy}" for name in sorted(lacking)))
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own home and caches, and the Hub client is offline unless the test says otherwise."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for kind in ("CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    monkeypatch.delenv("SRUP_HOME", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs, test sets and reference values that is not part of the repository."""
    return SHARED


@pytest.fixture
def srup(tmp_path: Path):
    """Run the command line in a process of its own; give its exit code, standard output and error."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sr_cli", *map(str, arguments)],
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **environment},
        )

    return run


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A loopback Hub that huggingface_hub uses, in this process and in child processes, with an empty cache."""
    from huggingface_hub import constants

    with FakeHub() as server:
        for name, value in (("HF_ENDPOINT", server.endpoint), ("HF_HUB_OFFLINE", "0"), ("HF_HUB_DISABLE_XET", "1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        yield server


@pytest.fixture
def srup_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """As `srup`, but in this process: seconds faster where torch is loaded already."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        from sr_cli.__main__ import run as run_command

        monkeypatch.chdir(tmp_path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        code = run_command([*map(str, arguments)])
        return subprocess.CompletedProcess(list(arguments), code, *capfd.readouterr())

    return run
