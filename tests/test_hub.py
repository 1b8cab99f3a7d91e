"""Downloads from a loopback Hub: success, every fault, and what is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sr_cli import hub
from sr_cli.errors import InputError, WeightsError
from tests.fake_hub import COMMIT, FakeHub

REPO, FILE = "someone/things", "folder/weights.safetensors"
SOURCE = hub.Source(REPO, COMMIT, FILE)
DATA = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake_hub.files[f"{REPO}/{FILE}"] = DATA
    monkeypatch.setattr(hub, "BACKOFF", 0.001)
    monkeypatch.setattr(hub, "_CHUNK", 1 << 16)
    return fake_hub


def fetch(**options: object) -> Path:
    settings = {"sha256": SHA256, "size": len(DATA), **options}
    return hub.download(SOURCE, **settings)  # type: ignore[arg-type]


def leftovers(tmp_path: Path) -> list[str]:
    """Files in the cache, locks apart."""
    return [path.name for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_downloads_once_and_reports_progress(server: FakeHub, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    requests = len(server.requests)
    assert fetch() == path == hub.cached(SOURCE)
    assert len(server.requests) == requests
    assert leftovers(tmp_path) == ["weights.safetensors"]


def test_processes_that_want_the_same_file_share_one_download(server: FakeHub) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = [future.result() for future in [pool.submit(fetch) for _ in range(4)]]
    assert {path.read_bytes() for path in paths} == {DATA}
    assert sum("/lfs/" in request.path for request in server.requests) == 1


def test_the_hub_library_finds_the_file_in_its_cache(server: FakeHub) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    path = fetch()
    assert hf_hub_download(REPO, FILE, revision=COMMIT, local_files_only=True) == str(path)
    assert scan_cache_dir().size_on_disk == len(DATA)


def test_a_file_that_the_hub_library_fetched_is_used(server: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    theirs = hf_hub_download(REPO, FILE, revision=COMMIT)
    requests = len(server.requests)
    assert str(fetch()) == theirs
    assert len(server.requests) == requests


def test_data_sets_and_files_outside_large_file_storage(server: FakeHub) -> None:
    server.files["datasets/someone/pictures/list.csv"] = b"a,b\n"
    server.plain.add("datasets/someone/pictures/list.csv")
    path = hub.download(hub.Source("someone/pictures", COMMIT, "list.csv", "dataset"))
    assert path.read_bytes() == b"a,b\n"
    assert "datasets--someone--pictures" in str(path)


def test_resolve_pins_a_branch(server: FakeHub) -> None:
    remote = hub.resolve(hub.Source(REPO, "main", FILE))
    assert (remote.commit, remote.sha256, remote.size) == (COMMIT, SHA256, len(DATA))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_error_is_retried(server: FakeHub, method: str, status: int) -> None:
    server.fault(method, status=status, times=2)
    assert fetch().read_bytes() == DATA
    assert server.count(method) >= 3


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("reset", [True, False])
def test_a_dropped_connection_is_retried(server: FakeHub, method: str, reset: bool) -> None:
    server.fault(method, reset=reset, times=2)
    assert fetch().read_bytes() == DATA


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_transfer_is_resumed(server: FakeHub, reset: bool) -> None:
    for _ in range(hub.RETRIES + 3):  # more cuts than retries: progress resets the count
        server.fault("GET", cut_after=300_000, reset=reset)
    assert fetch().read_bytes() == DATA
    ranges = [r.headers["Range"] for r in server.requests if "Range" in r.headers]
    assert len(ranges) == hub.RETRIES + 3
    assert len(set(ranges)) > hub.RETRIES


def test_a_cut_transfer_is_restarted_where_ranges_are_not_served(server: FakeHub) -> None:
    server.ranges = False
    server.fault("GET", cut_after=1_000_000)
    assert fetch().read_bytes() == DATA


def test_a_later_process_resumes(server: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "RETRIES", 0)
    server.fault("GET", cut_after=2_000_000)
    with pytest.raises(WeightsError, match=r"could not be downloaded in 1 attempts .* run it again to resume"):
        fetch()
    fetch()
    assert int(server.requests[-1].headers["Range"].removeprefix("bytes=").removesuffix("-")) > 1_000_000


def test_a_bad_part_of_an_earlier_process_is_fetched_anew(server: FakeHub) -> None:
    partial = fetch().parents[3] / "blobs" / f"{SHA256}.srup.incomplete"
    hub.discard(hub.cached(SOURCE) or Path())
    partial.write_bytes(bytes(1_000_000))
    assert fetch().read_bytes() == DATA
    partial.write_bytes(bytes(len(DATA) + 5))
    hub.discard(hub.cached(SOURCE) or Path())
    assert fetch().read_bytes() == DATA


def test_gives_up_after_the_retries(server: FakeHub) -> None:
    server.fault("HEAD", status=503, times=1000)
    with pytest.raises(
        WeightsError, match=r"things/folder/weights\.safetensors could not be .* 6 attempts \(HTTP 503\)"
    ):
        fetch()
    assert server.count("HEAD") == hub.RETRIES + 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HTTP 401.*log in"), (403, "HTTP 403.*log in"), (404, "has no .* at revision"), (410, "HTTP 410")],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_refusal_is_final(server: FakeHub, tmp_path: Path, method: str, status: int, message: str) -> None:
    server.fault(method, status=status, times=1000)
    with pytest.raises(WeightsError, match=message) as error:
        fetch()
    assert "\n" not in str(error.value)
    assert server.count(method) == 1
    assert leftovers(tmp_path) == []


def test_wrong_content_of_the_right_size_leaves_nothing(server: FakeHub, tmp_path: Path) -> None:
    server.sent[f"{REPO}/{FILE}"] = bytes([DATA[0] ^ 1]) + DATA[1:]
    with pytest.raises(WeightsError, match="is not the expected file"):
        fetch()
    assert leftovers(tmp_path) == []
    # Without a pinned checksum, the one that the Hub states is held against it.
    with pytest.raises(WeightsError, match="is not the expected file"):
        fetch(sha256=None)
    assert leftovers(tmp_path) == []


def test_another_file_than_the_pinned_is_refused_before_the_download(server: FakeHub, tmp_path: Path) -> None:
    server.files[f"{REPO}/{FILE}"] = DATA[1:]
    with pytest.raises(WeightsError, match="offers another file"):
        fetch()
    with pytest.raises(WeightsError, match=r"offers another file \(2999999 bytes\)"):
        fetch(sha256=None)
    assert server.count("GET") == 0
    assert leftovers(tmp_path) == []


def test_a_damaged_cached_file_is_fetched_anew(server: FakeHub) -> None:
    fetch().write_bytes(DATA[:-1] + b"x")
    with pytest.raises(WeightsError, match="not in the cache"):
        fetch(offline=True)
    assert fetch().read_bytes() == DATA


def test_offline_never_asks_the_network(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="not in the cache, and offline mode"):
        fetch(offline=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="not in the cache, and offline mode"):
        fetch()
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        hub.resolve(hub.Source(REPO, "main", FILE))
    assert server.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    path = fetch()
    requests = len(server.requests)
    assert fetch(offline=True) == path
    assert len(server.requests) == requests


def test_no_network_is_one_clear_line_at_once(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(WeightsError, match=r"cannot reach the Hub for someone/things.*check the network") as error:
        fetch()
    assert "\n" not in str(error.value)


def test_a_server_that_is_no_hub(server: FakeHub) -> None:
    server.extra = lambda handler: handler.answer(200) or True
    with pytest.raises(WeightsError, match=r"is not a Hub|offers another file"):
        fetch()


def test_the_callers_error_class_is_used(server: FakeHub) -> None:
    with pytest.raises(InputError, match="offline"):
        fetch(offline=True, error=InputError)


def test_the_login_goes_to_the_hub_and_not_to_its_storage(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with FakeHub() as storage:
        storage.files[f"{REPO}/{FILE}"] = DATA

        def elsewhere(handler) -> bool:
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(DATA)), "X-Linked-Etag": f'"{SHA256}"'}
            handler.answer(302, {**headers, "Location": f"{storage.endpoint}/lfs/{REPO}/{FILE}"})
            return True

        server.extra = elsewhere
        assert fetch().read_bytes() == DATA
        assert server.requests[0].headers["Authorization"] == "Bearer hf_secret"
        assert not any("authorization" in {key.lower() for key in r.headers} for r in storage.requests)


def test_the_disk_is_not_filled_up(server: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10))
    with pytest.raises(WeightsError, match=r"too full: 3\.0 MB are needed, 10 B are free"):
        fetch()
    assert server.count("GET") == 0
    assert leftovers(tmp_path) == []


_IN_NAMESPACE = """
set -e
mount -t tmpfs -o size={size} tmpfs {cache}
{prepare}
exec {python} -c '{code}'
"""


def in_mount_namespace(
    server: FakeHub, cache: Path, size: str, prepare: str, code: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python code where `cache` is a small file system of its own."""
    cache.mkdir(exist_ok=True)
    script = _IN_NAMESPACE.format(size=size, cache=cache, prepare=prepare, python=sys.executable, code=code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HF_HOME": str(cache)}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


_FETCH = f"""
from pathlib import Path
from sr_cli import hub
from sr_cli.errors import WeightsError
hub.BACKOFF = 0.001
EXTRA
try:
    hub.download(hub.Source("{REPO}", "{COMMIT}", "{FILE}"), sha256="{SHA256}", size={len(DATA)})
except WeightsError as error:
    print(error)
import os
print(sorted(p.name for p in Path(os.environ["HF_HOME"]).rglob("*") if p.is_file() and p.suffix != ".lock"))
"""


@pytest.mark.needs("mounts")
def test_a_cache_that_cannot_be_written(server: FakeHub, tmp_path: Path) -> None:
    code = _FETCH.replace("EXTRA", "")
    result = in_mount_namespace(server, tmp_path / "ro", "16m", f"mount -o remount,ro {tmp_path / 'ro'}", code)
    message, files = result.stdout.splitlines()
    assert "cannot write someone/things" in message
    assert "Read-only file system" in message
    assert "set HF_HOME" in message
    assert files == "[]"


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("checked", [True, False])
def test_a_full_disk(server: FakeHub, tmp_path: Path, checked: bool) -> None:
    """Seen beforehand, or met while writing because another program was faster."""
    blind = "import shutil; shutil.disk_usage = lambda p: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)"
    code = _FETCH.replace("EXTRA", "" if checked else blind)
    result = in_mount_namespace(server, tmp_path / "small", "2m", ":", code)
    message, files = result.stdout.splitlines()
    assert ("too full: 3.0 MB are needed" if checked else "is full and someone/things") in message
    assert files == "[]"


def test_where_locks_are_granted_to_all_nobody_writes_into_another_ones_file(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on some network file systems."""
    monkeypatch.setattr(hub, "locked", contextlib.nullcontext)
    server.fault("GET", cut_after=500_000)
    server.fault("GET", cut_after=900_000)
    with ThreadPoolExecutor(4) as pool:
        paths = [future.result() for future in [pool.submit(fetch) for _ in range(4)]]
    assert {path.read_bytes() for path in paths} == {DATA}
    assert leftovers(tmp_path) == ["weights.safetensors"]


def test_what_a_killed_process_left_is_taken_over_when_it_is_surely_dead(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = fetch().parents[3] / "blobs"
    hub.discard(hub.cached(SOURCE) or Path())
    killed = blobs / f"{SHA256}.0123456789ab.srup.part"
    killed.write_bytes(DATA[:2_000_000])
    fetch()
    assert "Range" not in server.requests[-1].headers and killed.exists(), "it may be alive"
    hub.discard(hub.cached(SOURCE) or Path())
    os.utime(killed, (1, 1))
    assert fetch().read_bytes() == DATA
    assert server.requests[-1].headers["Range"] == "bytes=2000000-" and not killed.exists()
