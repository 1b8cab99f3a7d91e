"""Files that appear whole or not at all, places, locks, journals."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_cli import storage
from sr_cli.errors import OutputError
from sr_cli.storage import Claims, JsonLines

ROOT = Path(__file__).resolve().parents[1]


# Places


def _old_cache(tmp_path: Path) -> Path:
    old = tmp_path / "cache/srup"
    (old / "weights").mkdir(parents=True)
    (old / "weights/mine-pixel.safetensors").write_bytes(b"trained for days")
    (old / "manifest.json").write_text("{}")
    (old / "journal").mkdir()
    (old / "journal/0.jsonl").write_text("")
    return old


def test_what_the_user_added_leaves_the_cache_once(tmp_path: Path) -> None:
    old = _old_cache(tmp_path)
    assert storage.data_folder() == tmp_path / "data/srup"
    assert (tmp_path / "data/srup/weights/mine-pixel.safetensors").read_bytes() == b"trained for days"
    assert (tmp_path / "data/srup/manifest.json").exists()
    assert storage.state_folder() == tmp_path / "state/srup"
    assert (tmp_path / "state/srup/journal/0.jsonl").exists()
    assert not [path for path in old.rglob("*") if path.is_file()]
    (old / "manifest.json").write_text("an older version ran once more")
    storage.data_folder()
    assert (tmp_path / "data/srup/manifest.json").read_text() == "{}"


def test_what_cannot_be_moved_is_used_where_it_is(tmp_path: Path) -> None:
    old = _old_cache(tmp_path)
    (tmp_path / "data").write_text("not a folder")
    assert storage.data_folder() == old
    assert (old / "manifest.json").exists() and (old / "weights/mine-pixel.safetensors").exists()


def test_a_move_to_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _old_cache(tmp_path)

    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    folder = storage.data_folder()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"manifest.json", "mine-pixel.safetensors"}
    assert not (tmp_path / "cache/srup/manifest.json").exists()


def test_srup_home_is_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRUP_HOME", str(tmp_path / "mine"))
    assert {storage.data_folder(), storage.state_folder(), storage.cache_folder()} == {tmp_path / "mine"}


def test_without_a_home_places_are_private_and_absolute(tmp_path: Path) -> None:
    """As in a container whose user has no entry: no HOME, no name."""
    script = (
        "import pwd, os, tempfile\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from sr_cli import storage\n"
        "for place in (storage.data_folder(), storage.state_folder(), storage.cache_folder()):\n"
        "    assert place.is_absolute() and place.is_relative_to(tempfile.tempdir), place\n"
        "    assert '~' not in str(place)\n"
        "print(place)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()).parent.stat().st_mode & 0o777) == 0o700


# Atomic writing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/folder/a.bin"
    storage.write_file(target, b"one")
    storage.write_file(target, b"two")
    assert target.read_bytes() == b"two"
    with pytest.raises(TypeError), storage.atomic_output(target, overwrite=True) as file:
        file.writelines([b"three", "not bytes"])  # type: ignore[list-item]
    assert target.read_bytes() == b"two" and [path.name for path in target.parent.iterdir()] == ["a.bin"]


def _refusing(code: int) -> object:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_nicety_that_fails_costs_no_file(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, _refusing(code))
    with storage.atomic_output(tmp_path / "a.bin") as file:
        file.write(b"finished")
    assert (tmp_path / "a.bin").read_bytes() == b"finished"
    with pytest.raises(OutputError, match="already exists"), storage.atomic_output(tmp_path / "a.bin"):
        pass


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_content_that_does_not_reach_the_disk_is_an_error(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _refusing(code))
    with pytest.raises(OutputError), storage.atomic_output(tmp_path / "a.bin") as file:
        file.write(b"lost")
    assert not list(tmp_path.iterdir())


def test_a_name_that_was_claimed_and_not_filled_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refusing(errno.EPERM))
    monkeypatch.setattr(Path, "replace", _refusing(errno.EIO))
    with pytest.raises(OutputError), storage.atomic_output(tmp_path / "a.bin") as file:
        file.write(b"finished")
    assert not list(tmp_path.iterdir())


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    storage.check_name(tmp_path / ("x" * 200))
    storage.check_name(tmp_path / "not there/x.png")
    for name in ("x" * 256, "not there/" + "x" * 256, "x" * 256 + "/a.png", "d/" * 2048 + "a.png"):
        with pytest.raises(OutputError, match="too long"):
            storage.check_name(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="too long"):
        storage.write_file(tmp_path / ("x" * 256), b"")


def test_characters_that_a_disk_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses a colon, as FAT does."""
    storage.check_name(tmp_path / "a:b.png")
    really = os.open

    def fat(path: object, *arguments: int) -> int:
        if ":" in str(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fat)
    storage.check_name(tmp_path / "a?b.png")
    for name in ("a:b.png", "not there/a:b.png", "a:b/c.png"):
        with pytest.raises(OutputError, match="does not take"):
            storage.check_name(tmp_path / name)
    assert not list(tmp_path.iterdir())


# Journals


def test_json_lines_are_read_on_and_pass_over_what_makes_no_sense(tmp_path: Path) -> None:
    writer, reader = JsonLines(tmp_path / "in/a.jsonl"), JsonLines(tmp_path / "in/a.jsonl")
    assert reader.new() == []
    writer.append({"a": 1})
    writer.append({"b": 2}, durable=True)
    assert reader.new() == [{"a": 1}, {"b": 2}] and reader.new() == []
    with writer.path.open("ab") as file:
        file.write(b"nonsense\n[1]\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"cut": ')
    assert reader.new() == []
    writer.append({"c": 3})
    assert reader.new() == [{"c": 3}]
    assert JsonLines(writer.path).new() == [{"a": 1}, {"b": 2}, {"c": 3}]


# Locks


def _in_another_process(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_claim_keeps_other_processes_away_and_leaves_nothing(tmp_path: Path) -> None:
    ask = (
        "import sys\nfrom pathlib import Path\nfrom sr_cli.storage import Claims\n"
        "print(Claims().take(Path(sys.argv[1])))"
    )
    claims = Claims()
    assert claims.take(tmp_path / "a.png") and claims.take(tmp_path / "b.png")
    assert _in_another_process(ask, tmp_path / "a.png") == "False"
    assert _in_another_process(ask, tmp_path / "c.png") == "True"
    claims.release(tmp_path / "a.png")
    assert _in_another_process(ask, tmp_path / "a.png") == "True"
    claims.close()
    left = {path.name for path in (tmp_path / "state/srup/claims").iterdir()}
    claims = Claims()
    assert claims.take(tmp_path / "d.png")
    claims.close()
    assert {path.name for path in (tmp_path / "state/srup/claims").iterdir()} == left


def test_without_a_place_for_locks_every_claim_is_granted(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")
    claims = Claims()
    assert claims.take(tmp_path / "a.png")
    claims.release(tmp_path / "a.png")


def test_a_lock_waits_or_says_so(tmp_path: Path) -> None:
    ask = (
        "import sys\nfrom pathlib import Path\nfrom sr_cli.storage import locked\n"
        "try:\n    with locked(Path(sys.argv[1]), timeout_s=0): print('mine')\nexcept TimeoutError: print('theirs')"
    )
    with storage.locked(tmp_path / "in/a.lock"):
        assert _in_another_process(ask, tmp_path / "in/a.lock") == "theirs"
    assert _in_another_process(ask, tmp_path / "in/a.lock") == "mine"


# Small things


@given(st.binary())
def test_checksums_are_those_of_the_standard(data: bytes) -> None:
    assert storage.sha256_of_bytes(data) == hashlib.new("sha256", data).hexdigest()


def test_checksum_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert storage.sha256_of_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")


def test_amounts_of_bytes() -> None:
    shown = [storage.format_bytes(count) for count in (0, 999, 1000, 99_950, 999_499, 999_500, 3_530_603_713)]
    assert shown == ["0 B", "999 B", "1.0 kB", "100 kB", "999 kB", "1.0 MB", "3.5 GB"]
