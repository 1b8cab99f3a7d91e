"""Fixtures for all tests: no network, and a home and cache of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported: several test processes share the cores, and idle threads of one would slow the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fake_hub import FakeHub
from tests.needs import FIXTURES, NEEDS, SHARED, there
from tests.processes import ROOT, SRUP

hypothesis.settings.register_profile("srup", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("srup")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="KIND,KIND",
        help="kinds of needs (interop, browser, gpu, reference, system) that must be there: a missing one is an error",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start where something that `--require` asks for is missing, and let SIGINT reach child processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under `nohup pytest &`; children inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    required = set(filter(None, config.getoption("--require").split(",")))
    if unknown := required - {need.kind for need in NEEDS.values()}:
        raise pytest.UsageError(f"--require: no kind of needs is called {', '.join(sorted(unknown))}")
    lacking = sorted(name for name, need in NEEDS.items() if need.kind in required and not there(name))
    if lacking:
        raise pytest.UsageError("; ".join(f"{name} is missing: {NEEDS[name].remedy}" for name in lacking))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests: one a core up to four, as each takes a gigabyte; none for one file."""
    if len(config.args) == 1 and not Path(config.args[0]).is_dir():
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by what it needs, and leave out those whose needs are not there."""
    kept, left_out = [], []
    for item in items:
        needs = {name for mark in item.iter_markers("needs") for name in mark.args}
        needs |= {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
        for kind in {NEEDS[name].kind for name in needs}:
            item.add_marker(kind)
        if not needs:
            item.add_marker("cli" if item.path.name.startswith("test_cli") else "unit")
        (kept if all(map(there, needs)) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture
def fresh_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores be asked again without a pause, and by a process that has seen no bucket yet."""
    from sr_cli.storage import remote

    monkeypatch.setattr(remote, "BACKOFF_S", 0.001)
    monkeypatch.setattr(remote, "_seen_buckets", set())


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
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # new processes find the package and the tests


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs, test sets and reference values that is not part of the repository."""
    return SHARED


@pytest.fixture
def srup(tmp_path: Path):
    """Run the command line in a process of its own; give its exit code, standard output and error."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SRUP, *map(str, arguments)],
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **environment},
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
