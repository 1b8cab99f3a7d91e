"""Two hundred photos from bucket to bucket on a real S3 server (moto's), with kills; and a server that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import s3fs

from sr_cli.errors import SrupError
from sr_cli.storage import remote
from sr_cli.upscale.batch import run
from sr_cli.upscale.options import UpscaleOptions
from tests import s3_server
from tests.batches import noise_photos, photos_in_two_folders, pictures_below
from tests.processes import Forked
from tests.s3_server import SECRET

BICUBIC = UpscaleOptions(model="bicubic")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with s3_server.running(monkeypatch):
        yield


def fill(folder: Path) -> Any:
    fs = s3fs.S3FileSystem()
    for bucket in ("bucket-in", "bucket-out"):
        fs.mkdir(bucket)
    fs.put(f"{folder}/", "bucket-in/", recursive=True)
    return fs


@pytest.mark.parametrize(
    ("count", "devices"),
    [
        (24, None),
        pytest.param(200, None, marks=pytest.mark.long),
        pytest.param(200, "cpu:2", marks=pytest.mark.long),
    ],
)
def test_from_bucket_to_bucket_with_three_kills(count: int, devices: str | None, server: None, tmp_path: Path) -> None:
    """Each output is there once, written once, and byte for byte that of a local run."""
    fs = fill(photos_in_two_folders(tmp_path / "photos", count))
    command = ["upscale", "s3://bucket-in/", "-r", "-m", "bicubic", "-o", "s3://bucket-out/"]
    command += [] if devices is None else ["--devices", devices]
    written: dict[str, str] = {}

    def note_outputs() -> None:
        """An output that was there before a kill must be the same object after it."""
        fs.invalidate_cache()
        for name, info in fs.find("bucket-out", detail=True).items():
            if name.endswith(".png"):
                assert written.setdefault(name, str(info["LastModified"])) == str(info["LastModified"])

    for _ in range(3):
        with Forked(*command, "--json-lines", cwd=tmp_path) as process:
            for _ in range(count // 5):
                process.event(lambda event: event["event"] == "done")
        note_outputs()
    assert count // 5 * 3 <= len(written) < count
    with Forked(*command, "--json", cwd=tmp_path) as process:
        last = process.stdout.read()
        assert process.wait() == 0, process.stderr()
        assert SECRET not in last + process.stderr()
    statuses = [result["status"] for result in json.loads(last)["results"]]
    assert len(statuses) == count and statuses.count("skipped") >= len(written) - 8
    note_outputs()
    run([tmp_path / "photos"], tmp_path / "local", replace(BICUBIC, recursive=True), lambda event: None)
    expected = pictures_below(tmp_path / "local")
    assert {name.removeprefix("bucket-out/"): fs.cat_file(name) for name in written} == expected


class Misbehaving:
    """A loopback server that answers every request in one way: with a status, or by cutting the connection."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    request = connection.recv(65536)
                    self.requests += 1
                    if self._answer is not None:
                        head, separator, body = self._answer.partition(b"\r\n\r\n")
                        connection.sendall(head + separator + (b"" if request.startswith(b"HEAD") else body))
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.close()


def _response(status: str, code: str, message: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = (f"HTTP/1.1 {status}", "Content-Type: application/xml", f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_response("503 Slow Down", "SlowDown", "Please reduce your request rate."), "attempts"),
        (_response("403 Forbidden", "InvalidAccessKeyId", "The key does not exist."), "check the credentials"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: x\r\n\r\nhalf", "attempts"),
        (None, "attempts"),
    ],
    ids=["503", "credentials", "cut in the middle", "cut at once"],
)
@pytest.mark.parametrize("place", ["input", "folder", "output"])
@pytest.mark.usefixtures("fresh_stores")
def test_a_server_that_misbehaves_is_one_line(
    answer: bytes | None, says: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo,) = noise_photos(tmp_path / "photos", 1).iterdir()
    bad = Misbehaving(answer)
    monkeypatch.setattr(remote, "RETRIES", 1)
    source, target = {
        "input": ("s3://b/a.png", tmp_path / "x.png"),
        "folder": ("s3://b/", tmp_path / "out"),
        "output": (photo, "s3://b/x.png"),
    }[place]
    try:
        with s3_server.clients_of(bad.url, monkeypatch):
            (result,) = run([source], target, BICUBIC, lambda event: None)
        code, message = result.exit_code, str(result.error)
    except SrupError as error:
        code, message = error.exit_code, str(error)
    finally:
        bad.close()
    assert bad.requests and code == (6 if place == "output" else 3), message
    assert says in message and "\n" not in message and SECRET not in message
