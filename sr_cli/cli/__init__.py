"""The command line: one thin file per command, put together here. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from sr_cli import __version__
from sr_cli.cli import bench, compare, doctor, models, train, upscale
from sr_cli.cli import eval as eval_command

app = typer.Typer(
    name="srup",
    help="Upscale photographs by 4 with SRGAN, ESRGAN and MESRGAN; train, evaluate and benchmark them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"srup {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command(name="upscale")(upscale.upscale)
app.command(name="train")(train.train)
app.command(name="eval")(eval_command.evaluate)
app.command(name="bench")(bench.bench)
app.command(name="compare")(compare.compare)
app.command(name="doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
