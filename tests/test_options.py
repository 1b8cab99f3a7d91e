"""Options that are declared once: what the command line reads, refuses and shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import typer
from typer.testing import CliRunner

from sr_cli import datasets, images, options
from sr_cli.__main__ import run
from sr_cli.bench.options import BenchOptions
from sr_cli.cli import app
from sr_cli.cli.adapter import command
from sr_cli.compare.options import CompareOptions
from sr_cli.errors import UsageError
from sr_cli.evaluate import scores
from sr_cli.evaluate.options import DatasetName, EvalOptions, MetricName
from sr_cli.inference import backends
from sr_cli.options import Option, fields_of, validate
from sr_cli.training.options import TrainOptions
from sr_cli.upscale.options import UpscaleOptions


@dataclass(frozen=True)
class Everything:
    """One field of each kind."""

    text: Annotated[str, Option("Some text.")] = "a"
    number: Annotated[int, Option("A number.", names=("-n", "--amount"), minimum=1, maximum=9)] = 3
    share: Annotated[float | None, Option("A share.", minimum=0)] = None
    where: Annotated[Path | None, Option("A path.")] = None
    kind: Annotated[Literal["fine", "coarse"], Option("Kind.")] = "fine"
    side: Annotated[int | Literal["auto"], Option("A side.", minimum=0)] = "auto"
    names: Annotated[tuple[str, ...], Option("Names.")] = ()
    counts: Annotated[tuple[int, ...], Option("Counts.", minimum=1)] = (1, 2)
    box: Annotated[tuple[int, int, int, int] | None, Option("A box.", metavar="X,Y,W,H")] = None
    fast: Annotated[bool, Option("Be fast.")] = False
    internal: int = 7

    def __post_init__(self) -> None:
        validate(self)


def parsed(*arguments: str) -> Everything:
    program, seen = typer.Typer(), []

    def function(everything: Everything) -> None:
        seen.append(everything)

    command(program, "function")(function)
    program(args=list(arguments), standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ([], "counts", (1, 2)),
        (["--text", "b"], "text", "b"),
        (["-n", "4"], "number", 4),
        (["--amount", "5"], "number", 5),
        (["--share", "0.25"], "share", 0.25),
        (["--where", "a/b"], "where", Path("a/b")),
        (["--kind", "coarse"], "kind", "coarse"),
        (["--side", "auto"], "side", "auto"),
        (["--side", "64"], "side", 64),
        (["--names", "a,b", "--names", "c"], "names", ("a,b", "c")),
        (["--counts", "3,4", "--counts", "5"], "counts", (3, 4, 5)),
        (["--box", "1,2,3,4"], "box", (1, 2, 3, 4)),
        (["--fast"], "fast", True),
    ],
)
def test_a_field_is_an_option(arguments: list[str], field: str, value: Any) -> None:
    everything = parsed(*arguments)
    assert getattr(everything, field) == value
    others = [item.name for item in fields(Everything) if item.name != field]
    assert {name: getattr(everything, name) for name in others} == {
        name: getattr(Everything(), name) for name in others
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--amount", "many"], "--amount must be a whole number between 1 and 9, not 'many'"),
        (["--amount", "10"], "--amount must be between 1 and 9, not 10"),
        (["--share", "2x"], "--share must be a number of at least 0, not '2x'"),
        (["--share", "nan"], "--share must be a number of at least 0, not 'nan'"),
        (["--kind", "odd"], "--kind must be fine or coarse, not 'odd'"),
        (["--side", "big"], "--side must be auto or a whole number of at least 0, not 'big'"),
        (["--side", "-1"], "--side must be at least 0, not -1"),
        (["--counts", "1,0"], "--counts must be at least 1, not 0"),
        (["--box", "1,2,3"], "--box must be 4 whole numbers with commas between them, X,Y,W,H, not '1,2,3'"),
        (["--box", "1,2,3,z"], "--box must be 4 whole numbers with commas between them, X,Y,W,H, not '1,2,3,z'"),
    ],
)
def test_what_cannot_be_read_is_said_plainly(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*arguments)
    assert str(caught.value) == message


def test_python_is_held_to_the_same_ranges_and_choices() -> None:
    for wrong in ({"number": 0}, {"kind": "odd"}, {"counts": (0,)}, {"share": -0.1}):
        with pytest.raises(UsageError):
            Everything(**wrong)  # type: ignore[arg-type]


def test_two_options_of_one_name_are_refused() -> None:
    def function(everything: Everything, text: Annotated[str, Option("Again.")] = "") -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="two options named text"):
        command(typer.Typer(), "function")(function)


def test_a_type_that_no_command_line_can_read_is_refused() -> None:
    @dataclass
    class Odd:
        table: Annotated[dict[str, int], Option("A table.")]

    with pytest.raises(TypeError, match="option table"):
        options.option_field("table", Annotated[dict[str, int], Option("A table.")], None)


def test_help_has_names_choices_defaults_and_no_types_of_flags() -> None:
    program = typer.Typer()

    def function(everything: Everything) -> None:
        """Do it."""

    command(program, "function", examples={"srup x [a]": "does x"})(function)
    text = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "100"}).output
    for shown in ("--amount", "-n", "fine|coarse", "[default: auto]", "[default: 1, 2]", "X,Y,W,H", "srup x [a]"):
        assert shown in text, text
    assert "<" not in text and "internal" not in text and "--help" not in text


JOBS = (UpscaleOptions, EvalOptions, CompareOptions, BenchOptions, TrainOptions)


@pytest.mark.parametrize("job", JOBS)
def test_every_option_says_what_it_does_and_its_default(job: type) -> None:
    for field in fields_of(job):
        assert re.search(r"[.]$", field.help), field
        if not field.is_flag and not (job is EvalOptions and field.name in ("data", "datasets")):
            assert field.shown_default, f"{job.__name__}.{field.name}"


def test_lists_of_words_are_those_of_the_code() -> None:
    assert set(get_args(DatasetName)) == set(datasets.NAMED)
    assert set(get_args(MetricName)) == set(scores.METRICS)
    assert set(get_args(options.BackendName)) == set(backends.NAMES)
    assert UpscaleOptions().limits == images.Limits()


def test_the_program_says_where_to_start_and_what_it_reads_from_the_environment() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    assert "srup upscale photo.jpg" in text and "SRUP_HOME" in text
    assert "<" not in text


def test_groups_of_upscale() -> None:
    text = CliRunner().invoke(app, ["upscale", "--help"]).output
    groups = re.findall(r"─ (Output|Size|Look|Speed|Limits|For scripts|Options) ─", text)
    assert groups == ["Output", "Size", "Look", "Speed", "Limits", "For scripts"]
    assert text.count("srup upscale ") >= 4
    assert "<bool>" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["holiday photo.jpg", "-o", "x.png"], "srup upscale 'holiday photo.jpg' -o x.png"),
        (["upscael", "a.jpg"], "Did you mean 'upscale'"),
        (["upscale", "a.jpg", "--scale", "2x"], "--scale must be a number between 1 and 16, not '2x'"),
        (["upscale", "a.jpg", "--scale", "17"], "--scale must be between 1 and 16, not 17"),
        (["eval", "--dataset", "set6"], "--dataset must be set5, set14"),
        (["eval", "--dataset", "set5", "--metrics", "beauty"], "--metrics must be psnr_y"),
        (["bench", "--against", "me"], "--against must be poster"),
        (["compare", "a.jpg", "--crop", "1,2"], "X,Y,W,H"),
        (["train", "--stage", "third"], "--stage must be"),
        (["models", "export", "mesrgan", "x.onnx", "--format", "tar"], "--format must be safetensors"),
    ],
)
def test_mistakes_are_one_line_and_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and not out


def test_metrics_by_their_common_names() -> None:
    assert EvalOptions(data=(Path(),), metrics=("psnr", "niqe")).metrics == ("psnr_y", "psnr_rgb", "niqe")
