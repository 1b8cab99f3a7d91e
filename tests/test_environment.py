"""What the program takes for granted about its surroundings: a home, standard streams, an encoding. It must not."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import ROOT, SRUP

_COMMANDS = """
import json, sys
from pathlib import Path
{before}
from sr_cli import doctor
from sr_cli.__main__ import prepare_streams, run
from sr_cli.storage import provide_home
doctor._self_test = lambda *_: doctor.SelfTest(True, "none", 0.0, "left out here")
prepare_streams()
provide_home()
codes = [run(arguments) for arguments in [
    ["upscale", {photo!r}, "-m", "bicubic", "-o", "plain.png"],
    ["upscale", {photo!r}, "-m", "bicubic", "-o", "lines.png", "--json-lines"],
    ["models", "list"],
    ["models", "list", "--json"],
    *([["doctor"], ["doctor", "--json"]] if {doctor} else []),
]]
Path("codes").write_text(json.dumps(codes))
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    path = tmp_path / "фото.png"  # a name that cp1252 does not have
    Image.fromarray(pixels).save(path)
    return path


def commands(
    photo: Path, tmp_path: Path, before: str = "", *, doctor: bool = True, **process: Any
) -> tuple[list[int], subprocess.CompletedProcess[bytes]]:
    """Run upscale and models list, and doctor, which imports torch, in one new process; give their exit codes."""
    script = _COMMANDS.format(photo=photo.name, before=before, doctor=doctor)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=300, **process)
    expected = np.asarray(Image.open(photo).resize((32, 24), Image.Resampling.BICUBIC))
    for name in ("plain.png", "lines.png"):
        apart = np.abs(np.asarray(Image.open(tmp_path / name)).astype(int) - expected)
        assert apart.mean() < 12, f"{name} is not the photograph"  # the enlargement keeps colours, Pillow's does not
    return json.loads((tmp_path / "codes").read_text()), done


WITH_DOCTOR = [False, pytest.param(True, marks=pytest.mark.slow)]
CLOSED = [combination for count in range(4) for combination in itertools.combinations((0, 1, 2), count)]


@pytest.mark.needs("posix")
@pytest.mark.parametrize(
    ("closed", "doctor"),
    [
        *((closed, len(closed) == 3) for closed in CLOSED),
        *(pytest.param(closed, True, marks=pytest.mark.slow) for closed in CLOSED[:-1]),
    ],
    ids=str,
)
def test_closed_streams(closed: tuple[int, ...], doctor: bool, photo: Path, tmp_path: Path) -> None:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    codes, done = commands(
        photo, tmp_path, doctor=doctor, preexec_fn=lambda: [os.close(number) for number in closed], **streams
    )
    assert codes == [0] * (6 if doctor else 4), done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert (b"mesrgan" in done.stdout) == (1 not in closed)
    if doctor:
        assert (b"All is well" in done.stdout) == (1 not in closed)


@pytest.mark.needs("posix")
@pytest.mark.parametrize(
    ("closed", "arguments", "code", "says"),
    [
        (2, ["photo", "-o", "-"], 0, b""),
        (1, ["photo", "-o", "-"], 6, b"no standard output"),
        (0, ["-", "-o", "x.png"], 3, b"no standard input"),
        (2, ["missing.png", "-o", "-"], 3, b""),
    ],
)
def test_pictures_through_closed_streams(
    closed: int, arguments: list[str], code: int, says: bytes, photo: Path, tmp_path: Path
) -> None:
    words = [photo.name if word == "photo" else word for word in arguments]
    with (tmp_path / "out.png").open("wb") as out:
        done = subprocess.run(
            [*SRUP, "upscale", *words, "-m", "bicubic"],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: os.close(closed),
        )
    assert done.returncode == code and says in done.stderr
    if code == 0:
        with Image.open(tmp_path / "out.png") as image:
            image.load()
            assert image.size == (32, 24)
    else:
        assert (tmp_path / "out.png").read_bytes() == b"", "no text lands in the picture"


@pytest.mark.parametrize("doctor", WITH_DOCTOR)
def test_a_standard_output_that_cannot_encode_a_name(doctor: bool, photo: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    codes, done = commands(photo, tmp_path, doctor=doctor, env=environment, capture_output=True)
    assert codes == [0] * len(codes), done.stderr
    lines = done.stdout.decode("cp1252").splitlines()
    events = [json.loads(line) for line in lines if line.startswith('{"event"')]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["started", "done", "summary"]
    assert events[0]["input"] == photo.name


@pytest.mark.needs("posix")
@pytest.mark.parametrize("doctor", WITH_DOCTOR)
def test_no_home_at_all(doctor: bool, photo: Path, tmp_path: Path) -> None:
    """`env -i` as a user without an entry, in a container (`docker run --user 54321`)."""
    nobody = (
        "import os, pwd, tempfile\n"
        "def unknown(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
        "pwd.getpwuid = unknown\n"
        f"tempfile.tempdir = {str(tmp_path / 'tmp')!r}\n"
    )
    (tmp_path / "tmp").mkdir()
    codes, done = commands(photo, tmp_path, nobody, doctor=doctor, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert codes == [0] * len(codes), done.stderr
    assert not (tmp_path / "~").exists()


def test_a_home_that_cannot_be_used(photo: Path, tmp_path: Path) -> None:
    """A file where the home should be: what needs no place works, doctor says what is wrong."""
    (tmp_path / "home").write_text("")
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    codes, done = commands(photo, tmp_path, env=environment, capture_output=True)
    assert codes == [0, 0, 0, 0, 1, 1]
    assert b"cannot be written to; set SRUP_HOME" in done.stderr and b"All is well" not in done.stdout


@pytest.mark.needs("/dev/full")
def test_a_full_standard_output(photo: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        for arguments, code in ((["models", "list", "--json"], 6), (["upscale", photo.name, "-m", "bicubic"], 0)):
            done = subprocess.run(
                [*SRUP, *arguments],
                cwd=tmp_path,
                stdout=full if code else subprocess.DEVNULL,
                stderr=full if code == 0 else subprocess.PIPE,
            )
            assert done.returncode == code, done.stderr
            assert code == 0 or done.stderr.decode().count("\n") == 1
    assert (tmp_path / "фото_bicubic_x4.png").exists()


_REFUSING = """
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
{definitions}
"""
_CALLS = {
    "utime": """
struct timespec; struct timeval; struct utimbuf;
int utimensat(int d, const char *p, const struct timespec *t, int f) { errno = EPERM; return -1; }
int futimens(int d, const struct timespec *t) { errno = EPERM; return -1; }
int utimes(const char *p, const struct timeval *t) { errno = EPERM; return -1; }
int futimes(int d, const struct timeval *t) { errno = EPERM; return -1; }
int utime(const char *p, const struct utimbuf *t) { errno = EPERM; return -1; }
""",
    "fsync": """
int fsync(int d) { errno = EINVAL; return -1; }
int fdatasync(int d) { errno = EINVAL; return -1; }
""",
    "link": """
int link(const char *a, const char *b) { errno = EPERM; return -1; }
int linkat(int a, const char *b, int c, const char *d, int f) { errno = ENOSYS; return -1; }
""",
    "flock": """
int flock(int d, int o) { errno = ENOLCK; return -1; }
""",
}


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("call", _CALLS)
def test_a_system_call_that_fails_costs_no_picture(call: str, photo: Path, tmp_path: Path) -> None:
    """As on network shares, phones and memory cards: the call is preloaded to fail in the whole process."""
    source, library = tmp_path / "refuse.c", tmp_path / "refuse.so"
    source.write_text(_REFUSING.format(definitions=_CALLS[call]))
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", source, "-o", library], check=True)
    Image.open(photo).save(tmp_path / "second.png")
    for index, inputs in enumerate(([photo.name], [photo.name, "second.png"])):
        done = subprocess.run(
            [*SRUP, "upscale", *inputs, "-m", "bicubic", "-o", f"out{index}/"],
            cwd=tmp_path,
            env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        written = list((tmp_path / f"out{index}").glob("*.png"))
        assert len(written) == len(inputs)
        for path in written:
            with Image.open(path) as image:
                image.load()
