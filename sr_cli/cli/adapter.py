"""Makes Typer commands of functions whose parameters are options dataclasses.

A parameter annotated with a dataclass becomes one option for each field that carries `sr_cli.options.Option`;
the function is called with the dataclass. A parameter annotated with an `Option` itself becomes that option.
Typer sees text; `OptionField` turns it into values, so that all commands refuse the same mistake in the same words.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from sr_cli.cli.completion import complete_model
from sr_cli.options import OptionField, fields_of, option_field

Function = TypeVar("Function", bound=Callable[..., int | None])


class _Plain:
    """Shows no type for flags in the help, and does not list `--help`."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, as the parser and the help use them."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperArgument):
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
            elif param.is_flag:
                param.metavar = ""
                param.hidden = param.hidden or "--help" in param.opts
        return params


class Command(_Plain, TyperCommand):
    """A command."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line after the command's name."""
        arguments = [param for param in self.params if isinstance(param, TyperArgument)]
        pieces = [param.metavar or param.name.upper() for param in arguments]
        return ["[OPTIONS]", *(p if a.required else f"[{p}]" for p, a in zip(pieces, arguments, strict=True))]


class Group(_Plain, TyperGroup):
    """A group of commands."""


def command(
    app: typer.Typer, name: str, *, group: str | None = None, examples: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    """Register a function as a command of `app`, listed under the heading `group`.

    Its docstring is the help, followed by `examples`: commands and what they do.
    """

    def register(function: Function) -> Function:
        arguments, groups = _parameters(function)

        def callback(**typed: Any) -> int | None:
            return function(**{name: _build(part, typed) for name, part in groups.items()})

        callback.__signature__ = inspect.Signature(list(arguments.values()))  # type: ignore[attr-defined]
        callback.__annotations__ = {name: argument.annotation for name, argument in arguments.items()}
        epilog = _examples(examples or {})
        app.command(name, cls=Command, help=_help(function), epilog=epilog, rich_help_panel=group)(callback)
        return function

    return register


_Part = str | OptionField | type
"""Where a parameter's value comes from: a Typer parameter's name, an option, or a dataclass of options."""


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, _Part]]:
    """Return the parameters that Typer reads, by name, and what each of the function's own is built from."""
    hints = get_type_hints(function, include_extras=True)
    arguments: dict[str, inspect.Parameter] = {}
    parts: dict[str, _Part] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            parts[name] = hint  # type: ignore[assignment]
            found = [_typer_option(field) for field in fields_of(hint)]  # type: ignore[arg-type]
        elif field := option_field(name, hint, parameter.default):
            parts[name] = field
            found = [_typer_option(field)]
        else:
            parts[name] = name
            for declared in getattr(hint, "__metadata__", ()):
                declared.help = _plain(declared.help)
            found = [parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)]
        if twice := arguments.keys() & {argument.name for argument in found}:
            raise TypeError(f"{function.__name__}: two options named {twice.pop()}")
        arguments |= {argument.name: argument for argument in found}
    return arguments, parts


def _typer_option(field: OptionField) -> inspect.Parameter:
    """Return the keyword parameter that makes Typer offer an option. None (or False) stands for: not given."""
    kind: Any = bool if field.is_flag else (list[str] | None if field.count == 0 else str | None)
    default = f" [dim]\\[default: {_plain(field.shown_default)}][/dim]" if field.shown_default else ""
    declared = typer.Option(
        *(field.option.names or (field.flag,)),
        help=_plain(field.help) + default,
        metavar=field.metavar,
        show_default=False,
        rich_help_panel=field.option.group or None,
        autocompletion=_completion(field),
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=... if field.required else (False if field.is_flag else None),
        annotation=Annotated[kind, declared],
    )


def _build(part: _Part, typed: Mapping[str, Any]) -> Any:
    """Build the value of one of the function's parameters. Raises UsageError for a value that cannot be read."""
    if isinstance(part, str):
        return typed[part]
    if isinstance(part, OptionField):
        return _given((part,), typed).get(part.name, part.default)
    return part(**_given(fields_of(part), typed))


def _given(fields: tuple[OptionField, ...], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of those options that were typed."""
    values: dict[str, Any] = {}
    for field in fields:
        text = typed[field.name]
        if field.is_flag:
            values[field.name] = text
        elif text is not None:
            values[field.name] = field.parse(text)
    return values


def _completion(field: OptionField) -> Callable[[str], list[str]] | None:
    """Return what a shell offers for an option's value."""
    if field.option.completion == "model":
        return complete_model
    if not field.words:
        return None
    return lambda incomplete: [word for word in field.words if word.startswith(incomplete)]


def _help(function: Callable[..., Any]) -> str:
    """Return a function's docstring with each paragraph on one line, so that the terminal's width wraps it."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(_plain(" ".join(paragraph.split())) for paragraph in paragraphs)


def _examples(examples: Mapping[str, str]) -> str | None:
    """Return commands and what they do, as the end of the help; None without any."""
    if not examples:
        return None
    width = max(map(len, examples))
    lines = [f"  {_plain(line):{width}}  [dim]{_plain(meaning)}[/dim]" for line, meaning in examples.items()]
    return "\n".join(["Examples:", *lines])


def _plain(text: str) -> str:
    """Escape what Rich would take for markup."""
    return re.sub(r"\[(?=[a-z#/@])", r"\[", text)
