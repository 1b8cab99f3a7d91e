"""A Hugging Face Hub on a loopback port, with faults on demand.

It speaks the resolve protocol (HEAD and GET with ETag, X-Repo-Commit, X-Linked-Size, X-Linked-Etag,
ranges, a redirect to large-file storage on another host name), what an upload needs (creating a
repository, the LFS batch protocol, commits; what was committed can be downloaded), and what `hf://` needs (whether a
repository is there, listings). It logs every request.
Use the fixture `fake_hub` of conftest.py: it also points huggingface_hub at the server, inside this
process and, through the environment, in child processes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """Something that goes wrong with one of the next requests, for as long as `times` lasts."""

    method: str
    """`HEAD`, `GET` (the transfer of content only), `POST` or `PUT`."""
    status: int | None = None
    """Answer with this status instead."""
    cut_after: int | None = None
    """Close the connection after this many bytes of the body."""
    reset: bool = False
    """Close the connection (with a TCP reset) instead of answering, or, with `cut_after`, instead of a clean end."""
    times: int = 1
    """How many requests it hits."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of the answer."""


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]


class FakeHub:
    """The server; `with FakeHub() as hub:` starts it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        """By `repo/file`, `datasets/repo/file` for data sets; every revision has the same ones."""
        self.sent: dict[str, bytes] = {}
        """Content sent instead of `files`, to lie about it."""
        self.plain: set[str] = set()
        """Files that are in git itself, not in large-file storage: no linked headers, no redirect."""
        self.stored: dict[str, bytes] = {}
        """What was uploaded to large-file storage, by sha256."""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.ranges = True
        """Whether it honours Range."""
        self.extra: Callable[[_Handler], bool] | None = None
        """Called first with each handler; True if it has answered."""
        self._server = _QuietServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = f"http://localhost:{self._server.server_port}"
        """Another host name, as the Hub's storage has: the Hub library treats redirects to it differently."""

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, **settings: Any) -> None:
        """Add a fault for one of the next requests."""
        self.faults.append(Fault(method, **settings))

    def count(self, method: str) -> int:
        """How many requests of a method arrived."""
        return sum(request.method == method for request in self.requests)

    def take_fault(self, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.times > 0:
                fault.times -= 1
                return fault
        return None


_RESOLVE = re.compile(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_REPO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/[^/]+)?")
_TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/[^/]+/?(.*)")
_PATHS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/[^/]+")
_COMMIT = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/commit/[^/]+")


def _repo(match: re.Match[str]) -> str:
    """Return a repository as `FakeHub.files` has it."""
    return ("datasets/" if match[1] == "datasets" else "") + match[2]


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> FakeHub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(method, self.path, dict(self.headers.items())))
        if self.hub.extra is not None and self.hub.extra(self):
            return
        if path.startswith("/lfs/"):
            self._content(path.removeprefix("/lfs/"))
        elif method in ("POST", "PUT"):
            self._upload(method, path)
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(method, f"{match[1]}/{match[3]}", match[2])
        elif match := _REPO.fullmatch(path):
            self._describe(_repo(match))
        elif match := _TREE.fullmatch(path):
            self._list(_repo(match), match[3])
        else:
            self.answer(404)

    def _upload(self, method: str, path: str) -> None:
        """Creating a repository, large-file storage, and commits, as the Hub's API has them."""
        body = self.body()
        fault = self.hub.take_fault(method)
        if fault is not None:
            self._fail(fault)
        elif method == "PUT":
            self.hub.stored[path.removeprefix("/put/")] = body
            self.answer(200)
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self.answer_json({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif path == "/verify":
            wanted = json.loads(body)
            stored = self.hub.stored.get(wanted["oid"], b"")
            self.answer(200 if hashlib.sha256(stored).hexdigest() == wanted["oid"] else 400)
        elif "/preupload/" in path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if path.endswith((".safetensors", ".png")) else "regular" for path in paths]
            files = zip(paths, modes, strict=True)
            self.answer_json({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in files]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = []
            for item in json.loads(body)["objects"]:
                upload = {"href": f"{self.hub.storage}/put/{item['oid']}"}
                verify = {"href": f"{self.hub.endpoint}/verify"}
                objects.append({**item, "actions": {"upload": upload, "verify": verify}})
            self.answer_json({"transfer": "basic", "objects": objects})
        elif match := _PATHS.fullmatch(path):
            entries = self._entries(_repo(match))
            wanted = parse_qs(body.decode())["paths"]
            self.answer_json([entries[name] for name in wanted if name in entries])
        elif match := _COMMIT.fullmatch(path):
            self._commit(_repo(match), [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(404)

    def _commit(self, repo: str, operations: list[dict[str, Any]]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                self.hub.files[f"{repo}/{value['path']}"] = self.hub.stored[value["oid"]]
            elif operation["key"] == "file":
                self.hub.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
                self.hub.plain.add(f"{repo}/{value['path']}")
        url = f"{self.hub.endpoint}/{repo}/commit/{COMMIT}"
        self.answer_json({"commitUrl": url, "commitOid": COMMIT, "commitMessage": operations[0]["value"]["summary"]})

    def _describe(self, repo: str) -> None:
        """Say whether a repository is there."""
        if any(name.startswith(f"{repo}/") for name in list(self.hub.files)):
            self.answer_json({"id": repo.removeprefix("datasets/"), "sha": COMMIT, "siblings": []})
        else:
            self.answer(404, {"X-Error-Code": "RepoNotFound"})

    def _entries(self, repo: str) -> dict[str, dict[str, Any]]:
        """Describe all files and folders of a repository, by path."""
        found: dict[str, dict[str, Any]] = {}
        for full, data in list(self.hub.files.items()):  # other threads may add some meanwhile
            if not full.startswith(f"{repo}/"):
                continue
            name = full.removeprefix(f"{repo}/")
            found[name] = {"type": "file", "path": name, "oid": _blob_id(data), "size": len(data)}
            for match in re.finditer("/", name):
                path = name[: match.start()]
                found[path] = {"type": "directory", "path": path, "oid": COMMIT, "size": 0}
        return found

    def _list(self, repo: str, folder: str) -> None:
        """List what is in a folder of a repository; with `recursive`, in the folders inside it as well."""
        prefix = f"{folder}/" if folder else ""
        found = {name: entry for name, entry in self._entries(repo).items() if name.startswith(prefix)}
        if not found:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive") == ["true"]
        inside = [name for name in sorted(found) if recursive or "/" not in name.removeprefix(prefix)]
        self.answer_json([found[name] for name in inside])

    def _resolve(self, method: str, name: str, revision: str) -> None:
        fault = self.hub.take_fault("HEAD") if method == "HEAD" else None
        if fault is not None:
            self._fail(fault)
            return
        if name not in self.hub.files:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data = self.hub.files[name]
        commit = revision if re.fullmatch(r"[0-9a-f]{40}", revision) else COMMIT
        if name in self.hub.plain:
            etag = _blob_id(data)
            if method == "GET":
                self._content(name, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
            else:
                self.answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, length=len(data))
            return
        self.answer(
            302,
            {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "Location": f"{self.hub.storage}/lfs/{name}",
            },
        )

    def _content(self, name: str, headers: dict[str, str] | None = None) -> None:
        fault = self.hub.take_fault("GET")
        if fault is not None and fault.cut_after is None:
            self._fail(fault)
            return
        data = self.hub.sent.get(name, self.hub.files[name])
        status, headers, start = 200, dict(headers or {}), 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.hub.ranges:
            status, start = 206, int(wanted[1])
            if start >= len(data):
                self.answer(416)
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if fault is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: fault.cut_after])
        self._hang_up(fault.reset)

    def _fail(self, fault: Fault) -> None:
        if fault.status is None:
            self._hang_up(fault.reset)
        else:
            self.answer(fault.status, fault.headers)

    def _hang_up(self, reset: bool) -> None:
        import socket
        import struct

        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close() if reset else self.connection.shutdown(socket.SHUT_RDWR)

    def answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", length: int | None = None
    ) -> None:
        """Send a whole answer; `length` overrides the body's for HEAD."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: Any, status: int = 200) -> None:
        """Send a JSON answer."""
        self.answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def body(self) -> bytes:
        """The request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))
