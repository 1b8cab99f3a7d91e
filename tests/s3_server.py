"""A real S3 server on loopback (moto's), and the environment that sends clients to a server of a test's own."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import s3fs
from moto.server import ThreadedMotoServer

SECRET = "a-very-secret-access-key"


@contextmanager
def clients_of(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send S3 clients of this process and its children to `url`, with a secret of the tests."""
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "somebody-with-access",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an empty server, and send clients to it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset).close()
        with clients_of(f"http://{host}:{port}", monkeypatch):
            yield
    finally:
        server.stop()
