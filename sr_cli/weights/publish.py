"""Uploads a model's weights, model card and manifest entry to a repository on the Hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from msgspec import structs

from sr_cli.errors import UsageError, WeightsError
from sr_cli.hub import is_offline
from sr_cli.weights import manifest
from sr_cli.weights.loading import fetch
from sr_cli.weights.manifest import ModelEntry
from sr_cli.weights.registry import CARD

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Published:
    """What `publish` uploaded."""

    repo: str  #: `user/name`.
    commit: str  #: The commit that holds it.
    url: str  #: Page of the commit.
    files: tuple[str, ...]  #: Paths in the repository.


def publish(name: str, repo: str, *, private: bool = False, message: str | None = None) -> Published:
    """Upload all stages of a model in one commit, creating the repository if it is not there.

    The login is the Hub library's (`hf auth login` or HF_TOKEN). Raises UsageError for a malformed
    repository, WeightsError for a model that is not available, no login, no access, no network.
    """
    if not _REPO.fullmatch(repo):
        raise UsageError(f"--repo must be USER/REPO, not {repo!r}")
    entry = manifest.read_manifest().model(name)
    if not entry.stages:
        raise WeightsError(f"{name} has no weights to publish")
    if is_offline():
        raise WeightsError("publishing needs the network, and HF_HUB_OFFLINE is set")
    files = {f"{name}-{stage.name}.safetensors": fetch(entry, stage)[1] for stage in entry.stages.values()}
    public = _as_published(entry)
    files["README.md"] = model_card(public, repo).encode()
    files[CARD] = manifest.dump({name: public}).encode()
    commit, url = _upload(repo, files, private, message or f"Upload {name}")
    return Published(repo, commit, url, tuple(files))


def _as_published(entry: ModelEntry) -> ModelEntry:
    """Change the entry to what the repository's own manifest has: every stage a file next to it."""
    stages = {
        name: structs.replace(stage, file=f"{entry.name}-{name}.safetensors", hub=None)
        for name, stage in entry.stages.items()
    }
    return structs.replace(entry, stages=stages)


def model_card(entry: ModelEntry, repo: str) -> str:
    """Write the repository's README in the Hub's form: metadata, then text."""
    from sr_cli import pages

    licences = {stage.licence.lower() for stage in entry.stages.values()}
    licence = licences.pop() if len(licences) == 1 else "other"
    known = re.fullmatch(r"[a-z0-9.-]+", licence) and licence != "unknown"
    training = {stage.name: structs.asdict(stage.training) for stage in entry.stages.values() if stage.training}
    return pages.render("card.md", entry=entry, repo=repo, licence=licence if known else "other", training=training)


def _upload(repo: str, files: dict[str, bytes], private: bool, message: str) -> tuple[str, str]:
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    api = HfApi()
    if not api.token and not get_token():
        raise WeightsError("publishing needs a login: run `hf auth login` or set HF_TOKEN")
    http_error: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()]
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(repo, operations, commit_message=message)
    except Exception as error:
        reason = _reason(error, http_error)
        if reason is None:
            raise
        raise WeightsError(f"cannot publish to {repo}: {reason}") from None
    return done.oid, done.commit_url


def _reason(error: BaseException | None, http_error: type[Exception]) -> str | None:
    """Say why an upload failed, without addresses or headers that could hold a secret."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return f"the Hub refuses the login (HTTP {status}); check the repository's owner and the token's rights"
        if status is not None:
            return f"the Hub answers HTTP {status}"
        if isinstance(error, http_error):
            return f"the connection failed ({type(error).__name__})"
        if isinstance(error, json.JSONDecodeError):
            return "the answer is not JSON, as a proxy's may be; check HF_ENDPOINT and the token's rights"
        error = error.__cause__ or error.__context__
    return None
