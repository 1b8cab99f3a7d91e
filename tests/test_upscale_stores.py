"""Inputs and outputs in object stores: a real S3 server on loopback (moto's), and fsspec's memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from sr_cli.errors import InputError, OutputError, SrupError, UsageError
from sr_cli.storage import RemotePath, place, remote
from sr_cli.upscale.batch import run
from sr_cli.upscale.estimate import estimate
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.options import UpscaleOptions
from tests import s3_server
from tests.batches import photos_in_two_folders, pictures_below, statuses
from tests.s3_server import SECRET

BICUBIC = UpscaleOptions(model="bicubic", recursive=True)
pytestmark = pytest.mark.usefixtures("fresh_stores")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photos_in_two_folders(tmp_path / "in", 6)


@pytest.fixture
def memory(photos: Path) -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    fs.put(str(photos), "/in", recursive=True)
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def do(source: Any, target: Any, **changes: Any) -> list[ImageResult]:
    return run([source], target, replace(BICUBIC, **changes), lambda event: None)


def local(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    do(photos, tmp_path / "local")
    return pictures_below(tmp_path / "local")


def stored(fs: Any, folder: str) -> dict[str, bytes]:
    return {name.split("/out/")[-1]: fs.cat_file(name) for name in fs.find(folder) if name.endswith(".png")}


# Paths


def test_names_of_a_remote_path() -> None:
    path = place("s3://bucket/a/b.tar.png")
    assert isinstance(path, RemotePath)
    assert (path.name, path.stem, path.suffix, str(path.parent)) == ("b.tar.png", "b.tar", ".png", "s3://bucket/a")
    assert str(path.parent.parent) == "s3://bucket" and str(path.parent / Path("x/y.png")) == "s3://bucket/a/x/y.png"
    assert str(path.below(place("s3://bucket"))) == "a/b.tar.png"  # type: ignore[arg-type]
    assert place("file:///tmp/a%20b.png") == Path("/tmp/a b.png") and place("C:\\x.png") == Path("C:\\x.png")


def test_no_credentials_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    path = RemotePath(f"ftp://me:{SECRET}@host/a.png?X-Amz-Signature=abc")
    assert str(path) == "ftp://***@host/a.png?..."

    def refuse() -> None:
        raise OSError(f"no answer from https://me:pass@host/a?token=1 with {SECRET}\nsecond line")

    with pytest.raises(OutputError) as error:
        path._attempt(refuse, OutputError, "cannot be written")
    assert SECRET not in str(error.value) and "token" not in str(error.value) and "\n" not in str(error.value)
    assert "in 5 attempts" in str(error.value)


def test_failures_that_may_pass_are_tried_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    really, failures = memory.cat_file, 3

    def flaky(self: Any, *arguments: Any, **named: Any) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ConnectionResetError("reset by peer")
        return really(*arguments, **named)

    monkeypatch.setattr(type(memory), "cat_file", flaky)
    assert statuses(do("memory://in/a/0.png", "memory://out/")) == ["done"]


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    loaded = sys.modules["fsspec.registry"]._registry  # private: fsspec forgets a driver in no other way
    monkeypatch.delitem(loaded, "gs", raising=False)  # where another test has loaded it
    with pytest.raises(UsageError, match=r"pip install 'srup\[gcs\]'"):
        do("gs://bucket/", "memory://out/")
    (result,) = do("nosuch://bucket/a.png", "memory://out/")
    assert result.exit_code == 2 and "nosuch" in str(result.error)


# Batches


def test_a_store_gives_what_a_folder_gives(memory: Any, photos: Path, tmp_path: Path) -> None:
    results = do("memory://in", "memory://out")
    assert statuses(results) == ["done"] * 6
    assert {str(result.output) for result in results} == {
        f"memory://out/{'ab'[i % 2]}/{i}_bicubic_x4.png" for i in range(6)
    }
    expected = local(photos, tmp_path)
    assert stored(memory, "/out") == expected
    assert statuses(do("memory://in", "memory://out")) == ["skipped"] * 6
    memory.pipe_file("/in/a/0.png", (photos / "b/1.png").read_bytes())  # another content
    again = do("memory://in", "memory://out")
    assert statuses(again) == ["failed", *["skipped"] * 5] and again[0].exit_code == 6
    assert statuses(do("memory://in", tmp_path / "here")) == ["done"] * 6
    assert statuses(do(photos, "memory://there/")) == ["done"] * 6
    assert {name.removeprefix("/there/"): memory.cat_file(name) for name in memory.find("/there", maxdepth=3)
            if name.endswith(".png")} == expected  # fmt: skip


def test_outputs_beside_the_inputs_are_no_inputs(memory: Any) -> None:
    assert statuses(do("memory://in", None)) == ["done"] * 6
    assert statuses(do("memory://in", None)) == ["skipped"] * 6
    assert len([name for name in memory.find("/in") if name.endswith(".png")]) == 12


def test_shards_of_a_store(memory: Any, photos: Path, tmp_path: Path) -> None:
    results = [result for i in (1, 2, 3) for result in do("memory://in", "memory://out", shard=f"{i}/3")]
    assert statuses(results) == ["done"] * 6 and stored(memory, "/out") == local(photos, tmp_path)
    assert statuses([r for i in (1, 2) for r in do("memory://in", "memory://out", shard=f"{i}/2")]) == ["skipped"] * 6


def test_a_dry_run_of_a_store_writes_nothing(memory: Any) -> None:
    found = estimate(["memory://in"], "memory://out", BICUBIC)
    assert [file.status for file in found.files] == ["planned"] * 6 and not memory.exists("/out")


def test_what_is_wrong_with_one_object_stops_nothing(memory: Any) -> None:
    memory.pipe_file("/in/a/bad.png", b"no picture")
    results = do("memory://in", "memory://out")
    assert sorted(statuses(results)) == ["done"] * 6 + ["failed"]
    (bad,) = [result for result in results if result.status == "failed"]
    assert bad.exit_code == 3 and "memory://in/a/bad.png" in str(bad.error)
    assert [r.exit_code for r in do("memory://nowhere/", "memory://out")] == [3]
    assert [r.exit_code for r in do("memory://in/a/missing.png", "memory://out/x.png")] == [3]


# A real S3 server


@pytest.fixture
def s3(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server.running(monkeypatch):
        fs = s3fs.S3FileSystem()
        for bucket in ("in", "out"):
            fs.mkdir(f"bucket-{bucket}")
        fs.put(f"{photos}/", "bucket-in/", recursive=True)
        fs.invalidate_cache()
        yield fs


def outcome(source: Any, target: Any) -> tuple[int, str]:
    """The exit code and message of one photo."""
    try:
        (result,) = do(source, target)
    except SrupError as error:
        return error.exit_code, str(error)
    return result.exit_code, str(result.error)


def test_faults_of_a_store_are_one_line_each(
    s3: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = str(photos / "a/0.png")
    cases = [
        ("s3://no-such-bucket/a.png", tmp_path / "x.png", 3, "exist"),
        ("s3://no-such-bucket/", tmp_path / "out", 3, "no such bucket"),
        (one, "s3://no-such-bucket/x.png", 6, "no such bucket"),
    ]
    for source, target, code, says in cases:
        found, message = outcome(source, target)
        assert found == code and says in message and "\n" not in message
    ways: list[tuple[Any, Any, int]] = [
        ("s3://bucket-in/a/0.png", tmp_path / "x.png", 3),
        (one, "s3://bucket-out/x.png", 6),
    ]
    faults = [
        (PermissionError("The AWS Access Key Id you provided does not exist in our records."), "check the credentials"),
        (OSError(16, "Please reduce your request rate (503)"), "in 5 attempts"),
        (ConnectionResetError(104, "Connection reset by peer"), "in 5 attempts"),
    ]
    for fault, says in faults:

        async def fail(self: Any, *arguments: Any, fault: Exception = fault, **named: Any) -> Any:
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(type(s3), "_call_s3", fail)
            for source, target, code in ways:
                found, message = outcome(source, target)
                assert found == code and says in message and "\n" not in message and SECRET not in message


def test_a_store_that_does_not_answer(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "RETRIES", 1)
    type(s3).clear_instance_cache()
    with pytest.raises(InputError, match="in 2 attempts") as error:
        RemotePath("s3://bucket-in/a/0.png").info()
    assert "\n" not in str(error.value) and SECRET not in str(error.value)


def test_an_object_that_is_an_output_is_not_enlarged_again(memory: Any) -> None:
    """Known by its own mark, in another folder and without a journal, as a local file is."""
    do("memory://in", "memory://out")
    (one, *others) = (name for name in memory.find("/out") if name.endswith(".png"))
    memory.pipe_file("/copies/new.png", memory.cat_file("/in/a/0.png"))
    for number, name in enumerate((one, *others)):
        memory.pipe_file(f"/copies/{number}.png", memory.cat_file(name))
    found = estimate(["memory://copies"], "memory://twice", BICUBIC)
    assert sorted(file.status for file in found.files) == ["planned", *["skipped"] * 6]
    results = do("memory://copies", "memory://twice")
    assert sorted(statuses(results)) == ["done", *["skipped"] * 6]
    assert {result.note for result in results if result.status == "skipped"} == {
        "it is an output of srup; to enlarge it again, name it alone"
    }
    assert statuses(do("memory://copies/0.png", "memory://twice/again.png")) == ["done"]
