"""Files from the Hugging Face Hub: pinned, resumed, retried and verified.

The Hub library gives the addresses, the login and the cache's place; the transfer is ours, because
the library's own neither survives a reset connection, nor resumes what an earlier process left, nor
looks at a checksum. Its xet protocol is not used: plain HTTP serves every file. Other programs find
the files in the shared cache, and theirs are found here.

Each process writes to a file of its own. It takes over what another one left by renaming it, which only one can do:
nothing depends on locks, which some network file systems grant to everybody. The lock only saves a second download.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from sr_cli.errors import SrupError, WeightsError, reason_of
from sr_cli.storage import format_bytes, locked, sha256_of_bytes, sha256_of_file

if TYPE_CHECKING:
    import httpx

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes there are so far and, where known, the bytes in all."""

RETRIES = 5  #: Failures in a row, without a byte gained, after which a download is given up.
BACKOFF = 1.0  #: Seconds before the first retry; doubled for each further one, up to 16 times.

_CHUNK = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_STALE_S = 600.0  #: Seconds without a change after which a part belongs to nobody: far beyond any pause of a transfer.
_REDIRECTS = 5


@dataclass(frozen=True)
class Source:
    """A file on the Hub."""

    repo: str  #: `user/name`.
    revision: str  #: Full commit; `resolve` also takes a branch or tag.
    file: str  #: Path in the repository.
    repo_type: str = "model"  #: `model` or `dataset`.

    def __str__(self) -> str:
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{kind}{self.repo}/{self.file}"


@dataclass(frozen=True)
class Remote:
    """What the Hub says of a file before sending it."""

    url: str  #: Where its bytes are; may be signed and short-lived.
    commit: str  #: Commit that the revision stands for.
    sha256: str | None  #: Checksum, known for files in large-file storage.
    size: int | None  #: Bytes.


class _Transient(Exception):
    """A failure that another attempt may not have."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def cached(source: Source) -> Path | None:
    """Return the file in the cache, not verified, or None."""
    path = _target(source)
    return path if os.path.isfile(path) else None


def discard(path: Path) -> None:
    """Remove a cached file and what it links to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob != path and blob.parent.name == "blobs":
        blob.unlink(missing_ok=True)


def download(
    source: Source,
    *,
    sha256: str | None = None,
    size: int | None = None,
    offline: bool = False,
    progress: OnBytes | None = None,
    error: type[SrupError] = WeightsError,
) -> Path:
    """Give a file of the Hub in the cache, downloaded if it is not there; its path.

    The content is verified against
    `sha256`, or against the checksum that the Hub states where that is None; a cached file is verified
    against `sha256` too, and fetched anew if it is damaged. With `offline`, or HF_HUB_OFFLINE set, the
    network is not touched. An interrupted download is resumed, by a later process as well; reset
    connections, 5xx and cut transfers are retried with backoff. `progress` is called with the bytes
    so far and in all. A login (`hf auth login`, HF_TOKEN) is used where there is one.

    Raises `error` with one line: not in the cache and offline, no network, no such file (404), no
    access (401, 403), unexpected content (which is deleted), a cache that
    cannot be written, a full disk.
    """
    target = _target(source)
    with _cache_errors(source, error):
        if target.is_file():
            if sha256 is None or sha256_of_file(target) == sha256:
                return target
            discard(target)
        if offline or is_offline():
            raise error(f"{source} is not in the cache, and offline mode forbids downloading it; run once without it")
        key = sha256 or sha256_of_bytes(f"{source.revision}/{source.file}".encode())
        part = _Part(_repo_folder(source) / "blobs", key)
        _store(_Download(source, part.path, sha256, size, progress, error), part, target)
        return target


def resolve(source: Source, *, error: type[SrupError] = WeightsError) -> Remote:
    """Ask the Hub for the commit, checksum and size of a file, whose revision may be a branch. Raises `error`."""
    if is_offline():
        raise error(f"{source} cannot be looked up: HF_HUB_OFFLINE is set")
    failures = 0
    while True:
        try:
            with _http_errors(source, error, first=True):
                return _head(source, error)
        except _Transient as problem:
            failures = _wait(source, failures, problem, error)


def _target(source: Source) -> Path:
    """Return the place that the Hub library's cache has for a file of a commit."""
    return _repo_folder(source) / "snapshots" / source.revision / source.file


def cache_folder() -> Path:
    """Return the Hub library's cache (`HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _repo_folder(source: Source) -> Path:
    return cache_folder() / "--".join([f"{source.repo_type}s", *source.repo.split("/")])


@dataclass(frozen=True)
class _Download:
    """One file on its way into `partial`, over as many attempts as it takes."""

    source: Source
    partial: Path  #: Where its bytes go.
    sha256: str | None
    size: int | None
    progress: OnBytes | None
    error: type[SrupError]

    def run(self) -> None:
        """Fill `partial` with the whole, verified file, or raise `error`."""
        resumed = self.done > 0
        failures, reached = 0, False
        while True:
            before = self.done
            try:
                with _http_errors(self.source, self.error, first=not reached):
                    remote = _head(self.source, self.error)
                    reached = True
                    self.check_announcement(remote)
                    self.transfer(remote)
            except _Transient as problem:
                failures = _wait(self.source, 0 if self.done > before else failures, problem, self.error)
                continue
            expected = self.sha256 or remote.sha256
            if expected is None or sha256_of_file(self.partial) == expected:
                return
            self.partial.unlink()
            if not resumed:
                raise self.error(
                    f"{self.source}: what the Hub sent is not the expected file (sha256 {expected}); nothing was kept"
                )
            resumed = False  # the part that an earlier process left may have been bad: once more from the start

    @property
    def done(self) -> int:
        """Bytes there are."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def check_announcement(self, remote: Remote) -> None:
        """Refuse a file that cannot be the expected one before any of it is downloaded."""
        if self.sha256 and remote.sha256 and remote.sha256 != self.sha256:
            raise self.error(
                f"{self.source}: the Hub offers another file (sha256 {remote.sha256}) than the pinned {self.sha256}"
            )
        if self.size is not None and remote.size is not None and remote.size != self.size:
            raise self.error(
                f"{self.source}: the Hub offers another file ({remote.size} bytes) than the pinned one of {self.size}"
            )

    def transfer(self, remote: Remote) -> None:
        """Append to `partial` what is missing. Raises _Transient when the connection ends early."""
        done = self.done
        if remote.size is not None and done > remote.size:
            self.partial.unlink()
            done = 0
        if done and done == remote.size:
            return
        self.check_space(None if remote.size is None else remote.size - done)
        headers = _headers(remote.url)
        if done:
            headers["Range"] = f"bytes={done}-"
        with _client() as client, client.stream("GET", remote.url, headers=headers, follow_redirects=True) as response:
            if response.status_code == 416:
                self.partial.unlink(missing_ok=True)
                raise _Transient("the server cannot resume")
            if response.status_code >= 400:
                raise _answer(self.source, response.status_code, response.headers, self.error)
            if response.status_code != 206:
                done = 0  # the server sends the whole file
            done = self.append(response.iter_bytes(_CHUNK), done, remote.size)
        if remote.size is not None and done < remote.size:
            raise _Transient(f"the connection ended after {done} of {remote.size} bytes")
        if remote.size is not None and done > remote.size:
            self.partial.unlink()
            raise self.error(f"{self.source}: the server sent more than the {remote.size} bytes it announced")

    def append(self, chunks: Iterator[bytes], done: int, size: int | None) -> int:
        """Append what follows the first `done` bytes; return the number of bytes then."""
        with self.partial.open("r+b" if done else "wb") as file:
            file.seek(done)
            for chunk in chunks:
                file.write(chunk)
                done += len(chunk)
                if self.progress is not None:
                    self.progress(done, size)
        return done

    def check_space(self, needed: int | None) -> None:
        """Refuse to fill the disk."""
        free = shutil.disk_usage(self.partial.parent).free
        if needed is not None and needed > free:
            raise self.error(
                f"the disk of the cache {self.partial.parent} is too full: {format_bytes(needed)} are needed, "
                f"{format_bytes(free)} are free; make room or set HF_HOME to another place"
            )


class _Part:
    """The file that this process downloads into, and what earlier ones left of the same download."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.path = folder / f"{key}.{os.urandom(6).hex()}.srup.part"  #: Ours alone.
        self.left = folder / f"{key}.srup.incomplete"  #: What a process leaves that gives up.

    def take_over(self) -> None:
        """Resume what an earlier process left, one that gave up or was killed."""
        for earlier in (self.left, *self._stale()):
            with contextlib.suppress(OSError):  # it is not there, or another process was faster
                earlier.rename(self.path)
                return

    def leave(self) -> None:
        """Leave what there is to a later process."""
        with contextlib.suppress(OSError):
            self.path.replace(self.left)

    def _stale(self) -> Iterator[Path]:
        for path in self.folder.glob(f"{self.key}.*.srup.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    yield path


def _store(download: _Download, part: _Part, target: Path) -> None:
    """Run a download and move the verified file to its place."""
    for folder in (part.folder, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks
            held.enter_context(
                locked(part.folder.parent.parent / ".locks" / part.folder.parent.name / f"{part.key}.lock")
            )
        if target.is_file():  # another process was faster
            return
        part.take_over()
        try:
            download.run()
            part.path.replace(target)
        except BaseException as problem:
            if isinstance(problem, OSError) and problem.errno in _DISK_FULL:
                part.path.unlink(missing_ok=True)
            part.leave()
            raise


def _wait(source: Source, failures: int, problem: _Transient, error: type[SrupError]) -> int:
    """Sleep before the next attempt and count it, or give up."""
    if failures >= RETRIES:
        raise error(f"{source} could not be downloaded in {failures + 1} attempts ({problem}); run it again to resume")
    time.sleep(max(problem.wait, BACKOFF * 2 ** min(failures, 4) * random.uniform(0.75, 1.25)))
    return failures + 1


def _client() -> httpx.Client:
    import httpx
    from huggingface_hub import constants

    return httpx.Client(timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _headers(url: str) -> dict[str, str]:
    """Return the headers for a request to `url`: the login goes to the Hub and nowhere else."""
    from huggingface_hub import constants, get_token

    headers = {"User-Agent": "srup", "Accept-Encoding": "identity"}
    to_the_hub = urlsplit(url).netloc == urlsplit(constants.ENDPOINT).netloc
    if to_the_hub and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _head(source: Source, error: type[SrupError]) -> Remote:
    """Ask the Hub for a file's address, checksum and size. Raises `error` and _Transient."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(source.repo, source.file, repo_type=source.repo_type, revision=source.revision)
    with _client() as client:
        for _ in range(_REDIRECTS):
            response = client.head(url, headers=_headers(url))
            location = response.headers.get("Location", "")
            if not (response.is_redirect and location.startswith("/")):  # within the Hub: a repository was renamed
                break
            url = urljoin(url, location)
    if response.status_code >= 400:
        raise _answer(source, response.status_code, response.headers, error)
    headers = response.headers
    commit, etag = headers.get("X-Repo-Commit"), headers.get("X-Linked-Etag") or headers.get("ETag") or ""
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    if not commit or not etag:
        raise error(f"the server that answers for {source} is not a Hub; check HF_ENDPOINT and your proxy")
    etag = etag.removeprefix("W/").strip('"')
    return Remote(
        url=urljoin(url, location) if response.is_redirect else url,
        commit=commit,
        sha256=etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None,
        size=int(size) if size.isdecimal() else None,
    )


@contextmanager
def _http_errors(source: Source, error: type[SrupError], first: bool) -> Iterator[None]:
    """Turn the HTTP library's errors into ours; `first` while the Hub has not answered yet."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as problem:
        name = type(problem).__name__
        if not first:
            raise _Transient(name) from None
        raise error(f"cannot reach the Hub for {source} ({name}); check the network, proxy or HF_ENDPOINT") from None
    except (httpx.HTTPError, httpx.StreamError) as problem:
        raise _Transient(type(problem).__name__) from None
    except httpx.InvalidURL as problem:
        raise error(f"{source} cannot be asked for: {problem}; check HF_ENDPOINT") from None


def _answer(source: Source, status: int, headers: Mapping[str, str], error: type[SrupError]) -> Exception:
    """Judge an HTTP status from 400: another attempt, or an error."""
    if status in _TRANSIENT:
        after = headers.get("Retry-After", "")
        return _Transient(f"HTTP {status}", min(float(after), 60.0) if after.isdigit() else 0.0)
    if status in (401, 403):
        return error(
            f"the Hub refuses {source} (HTTP {status}): it is private, gated, or does not exist; "
            "check the name, or log in with `hf auth login` or HF_TOKEN"
        )
    if status == 404:
        return error(f"the Hub has no {source} at revision {source.revision} (HTTP 404)")
    return error(f"the Hub refuses {source} (HTTP {status})")


@contextmanager
def _cache_errors(source: Source, error: type[SrupError]) -> Iterator[None]:
    """Turn failures to write the cache into ours."""
    try:
        yield
    except OSError as problem:
        cache = _repo_folder(source)
        if problem.errno in _DISK_FULL:
            raise error(
                f"the disk of the cache {cache} is full and {source} was not kept; make room or set HF_HOME elsewhere"
            ) from None
        raise error(
            f"cannot write {source} into the cache {cache} ({reason_of(problem)}); "
            "set HF_HOME to a folder that can be written"
        ) from None
