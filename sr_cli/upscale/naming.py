"""Names of outputs: templates, and the promise that nothing is written outside the output folder."""

from __future__ import annotations

import os
import string
from pathlib import Path, PurePosixPath, PureWindowsPath

from sr_cli import images
from sr_cli.errors import OutputError, SrupError, UsageError
from sr_cli.storage import Place, readable
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.weights import parse_spec

DEFAULT_TEMPLATE = "{stem}_{model}_{size}{ext}"
FIELDS = ("stem", "name", "parent", "model", "size", "scale", "ext")
STDIN_STEM = "stdin"


class Namer:
    """Gives each input the name of its output. Raises UsageError for an invalid template.

    A template holds the fields `{stem}` (the input's name without its suffix), `{name}` (with it),
    `{parent}` (the folder it is in), `{model}`, `{size}` (`x4`, `w2000`, ...), `{scale}` (`4`) and
    `{ext}` (`.png`), and may put outputs into folders below the output folder (`{model}/{stem}{ext}`).
    """

    def __init__(self, options: UpscaleOptions) -> None:
        self.template = DEFAULT_TEMPLATE if options.name is None else options.name
        self.options = options
        fidelity = "" if options.fidelity is None else f"_f{options.fidelity:g}"
        self.model = parse_spec(options.model).label + fidelity
        self._check_template()

    def _check_template(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise UsageError(f"--name {self.template!r}: {error}") from None
        known = ", ".join(f"{{{field}}}" for field in FIELDS)
        for _, field, spec, conversion in parts:
            if field is None:
                continue
            if field not in FIELDS or spec or conversion:
                raise UsageError(f"--name {self.template!r}: unknown field {{{field}}}; known: {known}")
            if field == "scale" and not self.options.size_label.removeprefix("x").replace(".", "", 1).isdecimal():
                raise UsageError("--name: {scale} is not known with --width, --height or --max-side; use {size}")
        if any(ord(character) < 32 for character in self.template):
            raise UsageError("--name: a template must not hold control characters")
        _check_template_path(self.template)

    def __call__(self, source: Place | None) -> Path:
        """Return the output's path relative to its folder.

        Raises OutputError where this input's own name would lead out of it (`...png`, whose stem is `..`).
        """
        named = source or Path(STDIN_STEM)
        values = {
            "stem": named.stem,
            "name": named.name,
            "parent": "" if source is None else _parent_name(source),
            "model": self.model,
            "size": self.options.size_label,
            "scale": self.options.size_label.removeprefix("x"),
            "ext": self._suffix(named),
        }
        path = Path(self.template.format(**values))
        # By the rules of this system alone: elsewhere a backslash or a colon may be a part of a name.
        if path.is_absolute() or path.drive or ".." in path.parts or not path.name:
            raise OutputError(
                f"{named.name}: its output would be {str(path)!r}, outside the output folder; use another --name"
            )
        return path

    def _suffix(self, source: Place) -> str:
        if self.options.format is not None:
            return images.by_name(self.options.format).suffixes[0]
        return images.default_suffix(Path(source.name), _kind(source) if source.suffix.lower() == ".gif" else "still")


def _parent_name(source: Place) -> str:
    return source.absolute().parent.name if isinstance(source, Path) else source.parent.name


def _kind(source: Place) -> str:
    """Whether a file is an animation, which decides its output's suffix; "still" if it cannot be read.

    A pipe or a device can be read only once and is not asked.
    """
    if isinstance(source, Path) and not os.path.isfile(source):
        return "still"
    try:
        return images.probe(readable(source, images.Limits().max_input_bytes)).kind
    except SrupError:
        return "still"  # reading it will say what is wrong


def _check_template_path(template: str) -> None:
    """Raise UsageError for absolute paths, drives and `..` in the notation of any system."""
    parts = PurePosixPath(template).parts + PureWindowsPath(template).parts
    if template.startswith(("/", "\\")) or PureWindowsPath(template).drive or ".." in parts or not parts:
        raise UsageError(f"--name {template!r}: must be a name below the output folder, without '..' and not absolute")


def check_inside(target: Path, root: Path) -> None:
    """Raise OutputError if `target` would, through a symbolic link, be outside the folder `root`."""
    folder = Path(os.path.realpath(target.parent))
    if not folder.is_relative_to(os.path.realpath(root)):
        raise OutputError(f"{target}: its folder is a link to {folder}, outside the output folder {root}")
