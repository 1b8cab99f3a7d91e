"""`--devices`: several processes share one batch, one queue, one journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sr_cli.errors import UsageError, WeightsError
from sr_cli.inference import choose_devices
from sr_cli.upscale.batch import run
from sr_cli.upscale.events import UpscaleEvent
from sr_cli.upscale.options import UpscaleOptions
from tests.batches import interrupt, noise_photos, pictures, statuses
from tests.processes import ROOT, SRUP

BICUBIC = UpscaleOptions(model="bicubic")
TWO = replace(BICUBIC, devices="cpu:2")
COUNT = 30


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return noise_photos(tmp_path / "in", COUNT, digits=2)


def children() -> list[int]:
    """The workers of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


def test_two_processes_do_what_one_does(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "one", BICUBIC, lambda event: None)
    events: list[UpscaleEvent] = []
    results = run([photos], tmp_path / "two", TWO, events.append)
    assert statuses(results) == ["done"] * COUNT and [result.input.name for result in results] == sorted(
        path.name for path in photos.iterdir()
    )
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    for index in range(COUNT):
        kinds = [event.kind for event in events if event.index == index and event.kind not in ("detail", "summary")]
        assert [kind for kind in kinds if kind != "progress"] == ["started", "done"]
    shares = [event.batch for event in events if event.kind not in ("note", "detail")]
    assert shares == sorted(shares) and shares[-1] == 1
    assert statuses(run([photos], tmp_path / "two", TWO, lambda event: None)) == ["skipped"] * COUNT
    assert statuses(run([photos], tmp_path / "one", TWO, lambda event: None)) == ["skipped"] * COUNT


def test_a_failure_stops_nothing(photos: Path, tmp_path: Path) -> None:
    (photos / "05.png").write_bytes(b"no picture")
    results = run([photos], tmp_path / "out", TWO, lambda event: None)
    assert [result.exit_code for result in results] == [3 if index == 5 else 0 for index in range(COUNT)]


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("count", "kills"), [(COUNT, 2), pytest.param(200, 5, marks=pytest.mark.slow)])
def test_a_worker_that_dies_is_replaced(count: int, kills: int, tmp_path: Path) -> None:
    """Whatever it had is done by another; nothing is lost and nothing twice."""
    photos = noise_photos(tmp_path / "photos", count)
    events: list[UpscaleEvent] = []
    placed: dict[Path, int] = {}
    killed: set[int] = set()

    def kill(event: UpscaleEvent) -> None:
        events.append(event)
        if event.kind != "done":
            return
        assert event.result is not None
        placed[event.result.output] = event.result.output.stat().st_ino  # type: ignore[union-attr]
        if len(placed) > len(killed) * count // (kills + 1) and len(killed) < kills:
            killed.add(children()[0])
            os.kill(children()[0], signal.SIGKILL)

    results = run([photos], tmp_path / "out", TWO, kill)
    assert len(killed) == kills and len(results) == count and set(statuses(results)) <= {"done", "skipped"}
    run([photos], tmp_path / "one", BICUBIC, lambda event: None)
    assert pictures(tmp_path / "out") == pictures(tmp_path / "one")
    assert placed == {path: path.stat().st_ino for path in placed}, "an output that was done is not made anew"
    for index in range(count):
        kinds = [event.kind for event in events if event.index == index and event.input != Path()]
        assert [kind for kind in kinds if kind != "progress"] in (["started", "done"], ["started", "skipped"])


_DEADLY = """
from sr_cli.__main__ import main
from tests.batches import die_of_deadly_photos
die_of_deadly_photos()
if __name__ == "__main__":
    main()
"""


@pytest.mark.needs("linux")
def test_a_photo_that_kills_its_worker_twice_is_reported(photos: Path, tmp_path: Path) -> None:
    (photos / "07.png").rename(photos / "07-deadly.png")
    script = tmp_path / "deadly.py"  # workers import it, too
    script.write_text(_DEADLY)
    command = [
        sys.executable,
        str(script),
        "upscale",
        "in",
        "-o",
        "out",
        "-m",
        "bicubic",
        "--devices",
        "cpu:2",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    results = json.loads(done.stdout)["results"]
    (failed,) = [result for result in results if result["status"] == "failed"]
    assert done.returncode == 1 and failed["exit_code"] == 5 and "07-deadly.png" in failed["error"]
    assert "SIGKILL" in failed["error"] and len(pictures(tmp_path / "out")) == COUNT - 1


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_the_job_and_leaves_it_resumable(
    sent: signal.Signals, code: int, photos: Path, tmp_path: Path
) -> None:
    command = [*SRUP, "upscale", "in", "-o", "out", "-m", "bicubic", "--devices", "cpu:2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    returned, lines, errors = interrupt(command, tmp_path, environment, sent)
    assert returned == code and "Traceback" not in errors
    assert json.loads(lines.splitlines()[-1])["ending"] == "interrupted"
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(pictures(tmp_path / "out")) == COUNT


_INTERRUPTED = """
import signal
from sr_cli.upscale import journal
really, signals = journal.Journals.append, [signal.SIGTERM]
def append(*arguments):
    while signals:
        signal.raise_signal(signals.pop())
    really(*arguments)
journal.Journals.append = append
from sr_cli.__main__ import main
if __name__ == "__main__":
    main()
"""


@pytest.mark.needs("linux")
def test_a_worker_that_waits_for_the_journal_is_answered_in_spite_of_an_interruption(
    photos: Path, tmp_path: Path
) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(_INTERRUPTED)
    command = [sys.executable, str(script), "upscale", "in", "-o", "out", "-m", "bicubic", "--devices", "cpu:2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and "to resume" in done.stderr


def test_an_error_of_the_whole_job_is_raised_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        run([photos], tmp_path / "out", replace(TWO, model="nosuch"), lambda event: None)


@pytest.mark.parametrize("text", ["", "cpu", "cpu:0", "0;1", "gpu", "-1", "cpu:2,0"])
def test_what_are_no_devices(text: str) -> None:
    with pytest.raises(UsageError, match="--devices"):
        choose_devices(text)


@pytest.mark.needs("no cuda")
@pytest.mark.parametrize("text", ["all", "0", "0,1"])
def test_devices_that_are_not_here(text: str) -> None:
    with pytest.raises(UsageError):
        choose_devices(text)


def test_standard_input_needs_one_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standard input"):
        run(["-"], tmp_path / "x.png", TWO, lambda event: None)
    with pytest.raises(UsageError, match="contradict"):
        UpscaleOptions(device="cpu", devices="cpu:2")
