"""Files in object stores and other places that fsspec opens: `s3://bucket/a.jpg`, `gs://`, `hf://`, `memory://`.

Objects are read and written whole: an upload appears complete or not at all, but there are no locks, links or renames.
Every call is tried again after a failure that may pass, with backoff, and ends in one line without credentials.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from sr_cli.errors import InputError, OutputError, SrupError, UsageError

T = TypeVar("T")

RETRIES = 4  #: Further attempts after a failure that may pass.
BACKOFF_S = 1.0  #: Seconds before the first of them; doubled for each further one.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
_MAY_PASS = (408, 425, 429)  #: Of the refusals of HTTP (400 to 499), those that may pass.

EXTRAS = {"s3": "srup[s3]", "s3a": "srup[s3]", "gs": "srup[gcs]", "gcs": "srup[gcs]"}
"""What brings the driver of a protocol."""
_PATIENT = ("gs", "gcs")  #: Their driver itself tries six times, for half a minute.

_seen_buckets: set[str] = set()  #: Buckets that this process found to be there: one question, not one for each output.

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "GOOGLE_TOKEN")


class NamedBytes(io.BytesIO):
    """Content in memory that knows, for messages, where it is from."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


@dataclass(frozen=True)
class RemoteInfo:
    """What a store says of a file."""

    size: int  #: Bytes.
    version: str  #: Changes whenever the content does: an entity tag, or the time of change.


@dataclass(frozen=True)
class RemotePath:
    """A file or folder in a store, by its URL; has the names and `/` of a pathlib path."""

    url: str  #: Without a slash at its end. May hold credentials: `str()` does not show them.
    listed: RemoteInfo | None = field(default=None, compare=False)  #: What a listing said of it.

    def __str__(self) -> str:
        return _without_secrets(self.url)

    @property
    def _protocol(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def _key(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def name(self) -> str:
        return self._key.name

    @property
    def stem(self) -> str:
        return self._key.stem

    @property
    def suffix(self) -> str:
        return self._key.suffix

    @property
    def parent(self) -> RemotePath:
        return RemotePath(f"{self.url.partition('://')[0]}://{self._key.parent}".removesuffix("/."))

    def __truediv__(self, other: str | PurePath) -> RemotePath:
        relative = PurePath(other).as_posix()
        return self if relative == "." else RemotePath(f"{self.url.rstrip('/')}/{relative}")

    def info(self, error: type[SrupError] = InputError) -> RemoteInfo | None:
        """Return what the store says of it now; None if it is not there, or a folder. Raises `error`."""

        def ask(fs: Any, path: str) -> RemoteInfo | None:
            try:
                if "s3" in fs.protocol:
                    return _info(fs.info(path, refresh=True))
                fs.invalidate_cache(path.rpartition("/")[0] or path)  # else an old listing may answer
                return _info(fs.info(path))
            except FileNotFoundError:
                return None

        return self._call(ask, error, "cannot be looked up")

    def check_bucket(self) -> None:
        """Raise OutputError if the bucket that it is in certainly does not exist."""
        bucket = RemotePath(f"{self._protocol}://{self._key.parts[0]}")
        if self._protocol in EXTRAS and bucket.url not in _seen_buckets:

            def ask(fs: Any, path: str) -> bool:
                try:
                    fs.info(path)
                except FileNotFoundError:
                    return False
                except Exception as problem:
                    if not _is_refusal(problem):
                        raise
                return True  # or who may only write is not told

            if not bucket._call(ask, OutputError, "cannot be looked up"):
                raise OutputError(f"{bucket}: there is no such bucket; create it first")
            _seen_buckets.add(bucket.url)

    def is_folder(self, error: type[SrupError] = InputError) -> bool:
        """Return whether there are files below it. Raises `error`."""
        return self._call(lambda fs, path: bool(fs.isdir(path)), error, "cannot be looked up")

    def read(self, limit: int) -> NamedBytes:
        """Return the content as a stream. Raises InputError, for more than `limit` bytes as well."""
        known = self.listed or self.info()
        if known is None:
            raise InputError(f"{self} does not exist; check the name")
        if known.size > limit:
            raise InputError(f"{self}: has more than {limit:,} bytes; raise the limit with --max-input")
        data = self._call(lambda fs, path: bytes(fs.cat_file(path)), InputError, "cannot be read")
        return NamedBytes(data, str(self))

    def files(self, recursive: bool) -> Iterator[RemotePath]:
        """Yield the files below it, sorted by name, hidden ones left out. Raises InputError."""

        def find(fs: Any, path: str) -> dict[str, Any]:
            fs.invalidate_cache()
            found: dict[str, Any] = fs.find(path, maxdepth=None if recursive else 1, detail=True)
            if not found:
                fs.ls(path)  # says why, where `find` has passed over an error
            return {place.removeprefix(path.rstrip("/") + "/"): details for place, details in found.items()}

        for relative, details in sorted(self._call(find, InputError, "cannot be listed").items()):
            if relative and not any(part.startswith(".") for part in relative.split("/")):
                yield RemotePath((self / relative).url, _info(details))

    def below(self, root: RemotePath) -> PurePosixPath:
        """Return the path below `root`, which it must be in."""
        return self._key.relative_to(root._key)

    def upload(self, file: Path) -> None:
        """Write a local file's content, whole, over what is there. Raises OutputError."""
        self._call(lambda fs, path: fs.put_file(str(file), path), OutputError, "cannot be written")

    def write(self, data: bytes) -> None:
        """Write `data`, whole, over what is there. Raises OutputError."""
        self._call(lambda fs, path: fs.pipe_file(path, data), OutputError, "cannot be written")

    def read_folder(self, suffix: str, error: type[SrupError]) -> list[bytes]:
        """Return the content of the files in it with a suffix, by name; none if it is not there. Raises `error`."""

        def cat(fs: Any, path: str) -> list[bytes]:
            fs.invalidate_cache()
            try:
                names = sorted(name for name in fs.ls(path, detail=False) if str(name).endswith(suffix))
            except FileNotFoundError:
                return []
            contents: dict[str, bytes] = fs.cat(names) if names else {}
            return [contents[name] for name in names]

        return self._call(cat, error, "cannot be read")

    def _opened(self) -> tuple[Any, str]:
        """Return the file system and the path in it. Raises UsageError where there is no driver."""
        from fsspec.core import url_to_fs

        protocol = self._protocol
        try:
            fs, path = url_to_fs(self.url, **_options(protocol))
        except ImportError as error:
            extra = EXTRAS.get(protocol)
            advice = f"pip install '{extra}'" if extra else _one_line(error)
            raise UsageError(f"{self}: {protocol}:// needs a package that is not installed: {advice}") from None
        except ValueError as error:
            raise UsageError(f"{self}: cannot be opened: {_one_line(error)}") from None
        return fs, str(path)

    def _call(self, work: Callable[[Any, str], T], error: type[SrupError], what: str) -> T:
        """Do `work` with the file system and the path in it, as `_attempt` does."""
        fs, path = self._opened()
        return self._attempt(lambda: work(fs, path), error, what)

    def _attempt(self, work: Callable[[], T], error: type[SrupError], what: str) -> T:
        """Do `work`, again after failures that may pass. Raises `error`, one line."""
        attempts = 1 if self._protocol in _PATIENT else RETRIES + 1
        for attempt in range(1, attempts + 1):
            try:
                return work()
            except FileNotFoundError:
                raise error(f"{self} {what}: there is no such bucket or file; check the name") from None
            except Exception as problem:
                detail = _one_line(problem)
                if _is_refusal(problem):
                    raise error(f"{self} {what}: access is refused ({detail}); check the credentials") from None
                if _stays(problem):
                    raise error(f"{self} {what}: {detail}") from None
                if attempt == attempts:
                    count = "several" if attempts == 1 else attempts
                    raise error(f"{self} {what} in {count} attempts: {detail}") from None
            time.sleep(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        raise AssertionError


Place: TypeAlias = Path | RemotePath  #: Where a photo is: on this machine, or in a store.


def readable(place: Place, limit: int) -> Path | NamedBytes:
    """Return what a reader of files takes: the path, or the content of an object. Raises InputError, as `read` does."""
    return place if isinstance(place, Path) else place.read(limit)


def is_url(name: str) -> bool:
    """Return whether `name` is a URL and no path of this machine."""
    return _URL.match(name) is not None


def place(name: str) -> Place:
    """Return what `name` stands for; `file://` URLs are paths of this machine. Raises UsageError."""
    if not is_url(name):
        return Path(name)
    if name.lower().startswith("file://"):
        return Path(unquote(urlsplit(name).path))
    found = RemotePath(name.rstrip("/"))
    if not found.url.partition("://")[2]:
        raise UsageError(f"{name}: names no bucket or folder")
    return found


@functools.cache
def _options(protocol: str) -> dict[str, Any]:
    """Return what a driver is given: our timeouts, unless fsspec's configuration has some. Keep it from printing.

    Raises ImportError where the driver is not installed.
    """
    from fsspec.config import conf

    if protocol in ("s3", "s3a") and "config_kwargs" not in conf.get("s3", {}):
        timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
        return {"config_kwargs": {**timeouts, "retries": {"total_max_attempts": 1}}}  # the other attempts are ours
    if protocol in ("gs", "gcs"):
        # Experimental there: asks by gRPC what kind of bucket it is, for a minute where nobody answers.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # else tracebacks go to standard error
        if "requests_timeout" not in conf.get("gs", {}):
            from aiohttp import ClientTimeout

            return {"requests_timeout": ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)}
    if protocol == "hf":
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return {}


def _status(problem: Exception) -> int:
    """Return the status of an answer by HTTP that an exception is about; 0 if there is none."""
    response = getattr(problem, "response", None)
    status = str(getattr(response, "status_code", None) or getattr(problem, "code", None))
    return int(status) if status.isdecimal() else 0


def _is_refusal(problem: Exception) -> bool:
    """Return whether a store has refused access."""
    refused = isinstance(problem, PermissionError) or _status(problem) in (401, 403)
    return refused or str(problem).startswith("Forbidden: ")  # gcsfs


def _stays(problem: Exception) -> bool:
    """Return whether another attempt would fail as well."""
    refused = 400 <= (status := _status(problem)) < 500 and status not in _MAY_PASS
    ours = isinstance(problem, SrupError | TypeError | NotImplementedError)
    return refused or ours or "Credentials" in type(problem).__name__


def _info(details: dict[str, Any]) -> RemoteInfo | None:
    """Return what matters of fsspec's description; None for a folder."""
    if details.get("type") == "directory":
        return None
    keys = ("ETag", "etag", "blob_id", "LastModified", "last_modified", "mtime", "updated", "created")
    version = next((str(details[key]) for key in keys if details.get(key)), "")
    return RemoteInfo(int(details.get("size") or 0), version.strip('"'))


def _one_line(error: BaseException) -> str:
    text = " ".join(_without_secrets(str(error)).split()).partition(" For more information check")[0][:200]
    return text or type(error).__name__


def _without_secrets(text: str) -> str:
    """Take out user names and passwords in URLs, their queries (signed URLs), and secrets of the environment."""
    text = re.sub(r"(://)[^/@\s]*@", r"\1***@", text)
    text = re.sub(r"(\w://[^\s?]*)\?[^\s'\"]*", r"\1?...", text)
    for name in _SECRETS:
        if len(secret := os.environ.get(name, "")) >= 8:
            text = text.replace(secret, "***")
    return text
