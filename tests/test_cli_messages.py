"""What the command line says while it works, when it is stopped and when something fails."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sr_cli.__main__ import run
from sr_cli.cli import console as console_module
from sr_cli.cli import train
from sr_cli.cli.console import Console, say
from sr_cli.cli.upscale import EXAMPLES
from sr_cli.errors import Terminated
from sr_cli.upscale import worker
from sr_cli.upscale.tally import Tally


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal of 40 columns, for the rest of the test."""
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_stopped_batch_says_how_far_it_came_and_resumes(
    signal: type[BaseException],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["upscale", str(photos(tmp_path / "in", 4)), "-o", str(tmp_path / "out"), "-m", "bicubic"]
    enlarge, calls = worker.enlarge, []
    finished, done = Tally.finished, threading.Semaphore(0)

    def finish(*arguments: Any) -> None:
        finished(*arguments)
        done.release()

    def stop_at_the_third(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            assert done.acquire(timeout=60)  # writers are threads of their own
            assert done.acquire(timeout=60)
            raise signal
        return enlarge(*arguments)

    monkeypatch.setattr(Tally, "finished", finish)
    monkeypatch.setattr(worker, "enlarge", stop_at_the_third)
    assert run(command) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        "srup: stopped: 2 of 4 done; run the same command again to resume"
    )
    assert run(command) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "2 done, 2 skipped"


def test_one_photo_that_is_stopped_is_only_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "enlarge", stop)
    assert run(["upscale", str(photos(tmp_path / "in", 1) / "0.png"), "-m", "bicubic"]) == 130
    assert capsys.readouterr().err == "srup: interrupted\n"


def test_an_output_in_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "x.png"
    assert run(["upscale", str(photos(tmp_path / "in", 1) / "0.png"), "-m", "bicubic", "-o", str(target)]) == 0
    assert Image.open(target).size == (32, 24)


def test_a_folder_is_not_made_for_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no")
    assert run(["upscale", str(tmp_path / "bad.png"), "-m", "bicubic", "-o", str(tmp_path / "new" / "x.png")]) == 3
    assert not (tmp_path / "new").exists()


def test_a_failure_without_a_path_in_its_words_gets_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "in", 2)
    assert run(["upscale", str(folder), "-m", "bicubic", "-o", str(tmp_path / "out"), "--width", "900"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.count(str(folder)) for line in lines] == [1, 1, 0]


def test_lines_are_broken_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    say("a/path/that-is-longer-than-the-terminal/photo.png: already exists; use --overwrite to replace it", terminal)
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "a/path/that-is-longer-than-the-terminal/photo.png:"
    assert all(len(line) < 40 for line in lines[1:]) and len(lines) > 2
    assert "--overwrite" in terminal.getvalue()


def test_a_pipe_gets_one_line() -> None:
    stream = io.StringIO()
    say("word " * 100, stream)
    assert stream.getvalue().count("\n") == 1


def test_one_photo_is_counted_in_percent_and_several_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    folder = photos(tmp_path / "in", 2)
    assert run(["upscale", str(folder / "0.png"), "-m", "bicubic", "-o", str(tmp_path / "one.png")]) == 0
    assert "100 %" in terminal.getvalue() and "1/1" not in terminal.getvalue()
    assert run(["upscale", str(folder), "-m", "bicubic", "-o", str(tmp_path / "out")]) == 0
    assert "2/2" in terminal.getvalue()


def test_the_bar_is_gone_while_a_question_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    asked = []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    monkeypatch.setenv("COLUMNS", "40")
    with Console().progress("starting") as bar:
        assert isinstance(bar, console_module._Bar)

        def confirm(question: str, err: bool, show_default: bool) -> bool:
            assert not bar.bars.live.is_started
            asked.append(question)
            return True

        monkeypatch.setattr(train.typer, "confirm", confirm)
        ask = train._confirm(False, bar)
        assert ask is not None and ask("Download 3.5 GB of photos from a repository of the Hub?")
        assert bar.bars.live.is_started
    assert asked == ["Download 3.5 GB of photos from a\n  repository of the Hub? [y/N]"]


def test_a_mistyped_data_folder_is_said_before_any_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", str(tmp_path / "photso"), "--out", str(tmp_path / "run"), "--stage", "gan"]
    assert run(command) == 3
    assert "photso" in capsys.readouterr().err


def test_the_examples_of_the_help_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "holiday").mkdir()
    for path in ("photo.jpg", "holiday/photo.jpg"):
        Image.new("RGB", (8, 6)).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES:
        assert run([*example.split()[1:], "--dry-run"]) == 0
