"""All output of the program: text for people, JSON for scripts.

Data goes to standard output; progress, notes and warnings go to standard error.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

from sr_cli.errors import OutputError, reason_of
from sr_cli.options import Option

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


def printable(text: str) -> str:
    """Return `text` with control characters (terminal escapes in file names, say) shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def wrapped(text: str, spare: int = 1) -> str:
    """Break lines at words so that `spare` columns of the terminal stay free; what follows is indented further."""
    width = shutil.get_terminal_size().columns - spare
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def say(text: str, stream: TextIO) -> None:
    """Print a line; on a terminal it is broken at words, not inside them."""
    if stream.isatty():
        text = wrapped(text)
    if stream is sys.stderr:
        with suppress(OSError):  # a message that cannot be written must not end the work
            print(text, file=stream, flush=True)
    else:
        _print(text, stream)


@contextmanager
def _writing() -> Iterator[None]:
    """Turn an OSError on standard output into an OutputError. A BrokenPipeError passes: the reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {reason_of(error)}") from error


class Bar:
    """A bar that a command moves; this one is silent, for where standard error is not a terminal."""

    def update(self, done: float, total: float, description: str | None = None, count: str = "") -> None:
        """Show that `done` of `total` is done, as `count` (`3/8`) or, without one, in percent."""

    def hidden(self) -> AbstractContextManager[None]:
        """Hide the bar, so that a question can be asked on the terminal."""
        return nullcontext()


class _Bar(Bar):
    """Rich's bar with a description, a count or the percentage, and the time left."""

    def __init__(self, description: str) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
        )
        self._escape = escape
        self.bars = Progress(*columns, console=rich_console(sys.stderr), transient=True)
        self._task = self.bars.add_task(escape(printable(description)), total=None, count="")

    def update(self, done: float, total: float, description: str | None = None, count: str = "") -> None:
        text = None if description is None else self._escape(printable(description))
        share = f"{100 * min(1.0, done / total):.0f} %" if total else ""
        self.bars.update(self._task, completed=done, total=total or None, description=text, count=count or share)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        self.bars.stop()
        try:
            yield
        finally:
            self.bars.start()


@dataclass(frozen=True)
class Console:
    """Renders results and events for people, or as JSON when a script asked for it.

    A command takes the subclass whose options it offers.
    """

    json: bool = False
    json_lines: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def machine(self) -> bool:
        """Whether standard output is for a script."""
        return self.json or self.json_lines

    @property
    def _silent(self) -> bool:
        return self.quiet or self.machine

    def document(self, value: Any) -> None:
        """Print the single JSON document of `--json`; see `plain` for what its values may be."""
        _print(_json(value, indent=2))

    def result(self, document: Any, *lines: str) -> None:
        """Print a result: the document under `--json`, else its lines for people."""
        if self.json:
            self.document(document)
            return
        for line in lines:
            self.data(line)

    def event(self, value: Any) -> None:
        """Print one line of `--json-lines`."""
        _print(_json(value))

    def data(self, text: str) -> None:
        """Print a line of result on standard output, for people."""
        say(printable(text), sys.stdout)

    def note(self, text: str) -> None:
        """Print a line on standard error, unless quiet."""
        if not self._silent:
            say(printable(text), sys.stderr)

    def detail(self, text: str) -> None:
        """Print a line on standard error, if verbose."""
        if self.verbose:
            say(printable(text), sys.stderr)

    def error(self, text: str) -> None:
        """Report the failure of one of several inputs; `__main__` reports the error that ends the program."""
        say(f"srup: error: {printable(text)}", sys.stderr)

    def warn(self, text: str) -> None:
        """Print a line on standard error, even when quiet."""
        say(f"srup: warning: {printable(text)}", sys.stderr)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        title: str | None = None,
        left: Collection[int] = (0,),
    ) -> None:
        """Print a table on standard output. Columns listed in `left` are left-aligned, the others right-aligned."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        with _writing():
            rich_console(sys.stdout).print(table)

    @contextmanager
    def progress(self, description: str) -> Iterator[Bar]:
        """Show a progress bar with the time left, on standard error if that is a terminal."""
        if self._silent or not sys.stderr.isatty():
            yield Bar()
            return
        bar = _Bar(description)
        with bar.bars:
            yield bar


Json = Annotated[bool, Option("Print one JSON document.", group="For scripts")]
JsonLines = Annotated[bool, Option("Print one line of JSON for each event.", group="For scripts")]
Quiet = Annotated[
    bool, Option("Show no progress and no notes; errors remain.", names=("-q", "--quiet"), group="For scripts")
]
Verbose = Annotated[bool, Option("Show more notes.", names=("-v", "--verbose"), group="For scripts")]


@dataclass(frozen=True)
class JsonConsole(Console):
    """The console of a command that answers at once."""

    json: Json = False


@dataclass(frozen=True)
class ResultConsole(JsonConsole):
    """The console of a command that takes its time."""

    quiet: Quiet = False


@dataclass(frozen=True)
class EventConsole(ResultConsole):
    """The console of a command that can also print events while it runs."""

    json_lines: JsonLines = False


def _print(text: str, stream: TextIO | None = None) -> None:
    with _writing():
        print(text, file=stream, flush=True)


def binary_input() -> BinaryIO | None:
    """Return standard input, or None where the caller has closed it."""
    return None if getattr(sys.stdin, "name", "") == os.devnull else sys.stdin.buffer


def binary_output() -> BinaryIO | None:
    """Return standard output, or None where the caller has closed it."""
    return None if getattr(sys.stdout, "name", "") == os.devnull else sys.stdout.buffer


def rich_console(stream: Any) -> RichConsole:
    """Return a Rich console on a stream; Rich itself honours NO_COLOR and a stream that is no terminal."""
    from rich.console import Console as RichConsole

    # Where output is not a terminal (a pipe, a file), tables keep their width instead of Rich's 80 columns.
    width = None if stream.isatty() else 160
    return RichConsole(file=stream, width=width, highlight=False)


def _json(value: Any, indent: int | None = None) -> str:
    """Return JSON that can be shown anywhere: readable where it is printable, escaped where a file name is not."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)
    if all(line.isprintable() for line in text.split("\n")) and _encodable(text):
        return text
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def _encodable(text: str) -> bool:
    """Return whether standard output has all characters of `text`."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any) -> Any:
    """Return what JSON has for a value: dataclasses as objects, paths as text, null for numbers that are not finite."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
