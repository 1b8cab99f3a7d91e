"""`--engine ray`: a real Ray cluster on this machine, with actors that die."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sr_cli.errors import UsageError, WeightsError
from sr_cli.upscale.batch import run
from sr_cli.upscale.events import UpscaleEvent
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.ray_actors import Pool, choose_pool
from tests.batches import interrupt, noise_photos, pictures, statuses
from tests.processes import ROOT, SRUP

BICUBIC = UpscaleOptions(model="bicubic")
TWO = UpscaleOptions(model="bicubic", engine="ray", devices="cpu:2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of two cores, and its address; in homes of its own, as its actors have its environment."""
    ray = pytest.importorskip("ray")
    home = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(home))
        for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        context = ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": "tests.batches.die_of_deadly_photos"},
        )
        try:
            yield context.address_info["gcs_address"]
        finally:
            ray.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], Path]:
    return lambda count: noise_photos(tmp_path / "in", count)


@pytest.mark.slow
@pytest.mark.needs("ray", "linux")
@pytest.mark.parametrize("count", [40, 200])
def test_a_cluster_does_what_one_process_does(
    count: int, cluster: str, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    """With an actor that is killed in the middle, a photo that is none, and one that kills its actor each time."""
    folder, middle = photos(count), f"{count // 2:03}"
    (folder / f"{middle}.png").rename(folder / f"{middle}-once.png")
    run([folder], tmp_path / "one", BICUBIC, lambda event: None)
    (folder / "007.png").rename(folder / "007-deadly.png")
    (folder / "003.png").write_bytes(b"no picture")
    events: list[UpscaleEvent] = []
    placed: dict[Path, int] = {}

    def note(event: UpscaleEvent) -> None:
        events.append(event)
        if event.kind == "done":
            assert event.result is not None
            placed[event.result.output] = event.result.output.stat().st_ino  # type: ignore[union-attr]

    results = run([folder], tmp_path / "out", TWO, note)
    failed = {result.input.name: result for result in results if result.status == "failed"}
    assert (folder / f"{middle}-once.png.killed").exists() and failed.keys() == {"003.png", "007-deadly.png"}
    assert failed["003.png"].exit_code == 3 and failed["007-deadly.png"].exit_code == 5
    assert "died 2 times while it worked on it" in str(failed["007-deadly.png"].error)
    assert {result.status for result in results if result not in failed.values()} <= {"done", "skipped"}
    expected = pictures(tmp_path / "one")
    assert pictures(tmp_path / "out") == {name: expected[name] for name in expected if name[:3] not in ("003", "007")}
    assert placed == {path: path.stat().st_ino for path in placed}, "an output that was done is not made anew"
    for index in range(count):
        kinds = [event.kind for event in events if event.index == index and event.input != Path()]
        assert len(kinds) == 2 and kinds[0] == "started"
    (folder / "007-deadly.png").rename(folder / "007.png")
    Image.open(folder / "008.png").save(folder / "003.png")
    again = run([folder], tmp_path / "out", BICUBIC, lambda event: None)  # without Ray: the journals of actors count
    assert statuses(again).count("done") == 2 and statuses(again).count("skipped") == count - 2


@pytest.mark.slow
@pytest.mark.needs("ray", "linux")
def test_ctrl_c_ends_the_job_and_leaves_it_resumable(
    cluster: str, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    photos(30)
    command = [*SRUP, "upscale", "in", "-o", "out", "-m", "bicubic", "--engine", "ray", "--devices", "cpu:2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    code, lines, errors = interrupt([*command, "--address", cluster], tmp_path, environment, signal.SIGINT)
    assert code == 130 and "Traceback" not in errors and "to resume" in errors
    last = json.loads(lines.splitlines()[-1])
    assert last["event"] == "summary" and last["ending"] == "interrupted"
    results = run([tmp_path / "in"], tmp_path / "out", BICUBIC, lambda event: None)
    assert set(statuses(results)) == {"done", "skipped"} and len(pictures(tmp_path / "out")) == 30


@pytest.mark.slow
@pytest.mark.needs("ray", "linux")
def test_an_error_of_the_whole_job_is_raised_once(cluster: str, photos: Callable[[int], Path], tmp_path: Path) -> None:
    options = UpscaleOptions(model="nosuch", engine="ray", devices="cpu:1")
    with pytest.raises(WeightsError):
        run([photos(2)], tmp_path / "out", options, lambda event: None)


# Without a cluster


@pytest.mark.parametrize(
    ("devices", "nodes", "expected"),
    [
        (None, [(16, 8), (16, 8)], Pool(16, 1, 0)),
        ("all", [(16, 1), (64, 0)], Pool(1, 1, 0)),
        (None, [(16, 0), (12, 0), (0, 0)], Pool(2, 0, 12)),
        ("cpu:2", [(2, 0)], Pool(2, 0, 1)),
        ("cpu:3", [(16, 0), (16, 0)], Pool(3, 0, 8)),
        ("cpu:2", [(8, 4)], Pool(2, 0, 4)),
    ],
)
def test_actors_fit_into_the_cluster(devices: str | None, nodes: list[tuple[int, int]], expected: Pool) -> None:
    assert choose_pool(devices, nodes) == expected


@pytest.mark.parametrize("devices", ["all", "0,1", "cpu:0", "cpu:3", "cpu"])
def test_actors_that_a_cluster_has_no_room_for(devices: str) -> None:
    with pytest.raises(UsageError, match=r"devices|engine ray"):
        choose_pool(devices, [(2, 0)])


def test_ray_that_is_not_installed_is_named(
    photos: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'srup\[ray\]'"):
        run([photos(2)], tmp_path / "out", TWO, lambda event: None)


@pytest.mark.needs("ray")
@pytest.mark.parametrize(
    ("options", "environment"), [(["--address", "127.0.0.1:9"], {}), ([], {"RAY_ADDRESS": "127.0.0.1:9"})]
)
def test_a_cluster_that_is_not_there_is_one_line_at_once(
    options: list[str], environment: dict[str, str], srup: Any, photos: Callable[[int], Path]
) -> None:
    done = srup("upscale", photos(2), "-o", "out/", "-m", "bicubic", "--engine", "ray", *options, **environment)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "no cluster at 127.0.0.1:9" in line and line.endswith("check --address")


def test_options_that_contradict_ray(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--engine ray"):
        UpscaleOptions(address="auto")
    with pytest.raises(UsageError, match="--device"):
        UpscaleOptions(engine="ray", device="cpu")
    with pytest.raises(UsageError, match="standard input"):
        run(["-"], tmp_path / "x.png", TWO, lambda event: None)
