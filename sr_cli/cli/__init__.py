"""The command line: one file for each command, registered here. Nothing here imports torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_cli import __version__
from sr_cli.cli import bench, compare, doctor, models, train, upscale
from sr_cli.cli import eval as eval_command
from sr_cli.cli.adapter import Group, command
from sr_cli.errors import UsageError


class Srup(Group):
    """The program. Suggests `srup upscale PHOTO` where a photo is given instead of a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names. Raises UsageError if it names a photo."""
        word = args[0]
        if word not in self.commands and not word.startswith("-"):
            from sr_cli import images

            path = Path(word)
            if path.exists() or path.suffix.lower() in images.READABLE_SUFFIXES:
                raise UsageError(f"{word!r} is not a command; to enlarge it: srup upscale {shlex.join(args)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="srup",
    cls=Srup,
    help="Enlarge photos with neural networks; train, evaluate and benchmark the networks.",
    epilog="Start with: srup upscale photo.jpg. Each command has its own --help. Add --traceback to see where an error "
    "happened. Set SRUP_HOME to keep downloads, journals and your models in one folder of your choice.",
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


PHOTOS, RESEARCH = "For photos", "For research"

command(app, "upscale", group=PHOTOS, examples=upscale.EXAMPLES)(upscale.upscale)
command(app, "compare", group=PHOTOS)(compare.compare)
command(app, "doctor", group=PHOTOS)(doctor.doctor)
command(app, "train", group=RESEARCH)(train.train)
command(app, "eval", group=RESEARCH)(eval_command.evaluate)
command(app, "bench", group=RESEARCH)(bench.bench)
app.add_typer(models.app, name="models", rich_help_panel=PHOTOS)
