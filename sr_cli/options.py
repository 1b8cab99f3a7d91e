"""Options that are declared once: a field of a job's dataclass is also the option of its command.

A field annotated with `Option`, as in `width: Annotated[int | None, Option("Width in pixels.")] = None`, gives the
command line its name, help, group, choices (`Literal`) and range. Imports the standard library alone, so that
`--help` is quick.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sr_cli.errors import UsageError


@dataclass(frozen=True)
class Option:
    """How a field is offered on the command line."""

    help: str  #: What it does: a sentence or two, with a full stop. The choices of a `Literal` are added to it.
    names: tuple[str, ...] = ()  #: Its names, `("-m", "--model")`; empty: the field's own, `--max-side` for `max_side`.
    group: str = ""  #: Heading under which `--help` lists it; empty: `Options`.
    metavar: str = ""  #: What stands for its value in `--help`; empty: by type.
    default: str = ""  #: What its default stands for, in words, where the value (None, say) does not tell.
    minimum: float | None = None  #: Smallest number allowed.
    maximum: float | None = None  #: Largest number allowed.
    completion: Literal["", "model"] = ""  #: What a shell completes it with, in addition to the choices.


_NUMBERS = {int: "a whole number", float: "a number"}
_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
SHORT_CHOICES = 15  #: Longest list of choices, joined by bars, that `--help` shows in place of the value.


@dataclass(frozen=True)
class OptionField:
    """A field together with its option: reads and checks values."""

    name: str  #: The field's name.
    option: Option  #: How it is offered.
    types: tuple[type, ...]  #: Types of a value that is none of the words: bool, int, float, str or Path.
    words: tuple[str, ...] = ()  #: Choices of its `Literal`.
    count: int = 1  #: Values it takes: 1; n for a tuple of n, written with commas; 0 for a tuple of any length.
    default: Any = None  #: The field's default.
    required: bool = False  #: Whether it has none and must be given.

    @property
    def flag(self) -> str:
        """Its long name, `--max-side`."""
        return next((n for n in self.option.names if n.startswith("--")), f"--{self.name.replace('_', '-')}")

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return bool in self.types

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.option.metavar or self.is_flag:
            return self.option.metavar
        if not self.words or self.types:
            return _METAVARS[self.types[0]]
        return "|".join(self.words) if self._shows_choices else "WORD"

    @property
    def _shows_choices(self) -> bool:
        """Whether the choices are few enough to stand in the place of the value."""
        return self.count == 1 and not self.types and 0 < len("|".join(self.words)) <= SHORT_CHOICES

    @property
    def help(self) -> str:
        """Its help with the choices, without the default."""
        if not self.words or self.types or (self._shows_choices and not self.option.metavar):
            return self.option.help
        return f"{self.option.help.removesuffix('.')}: {listed(self.words, 'or')}."

    @property
    def shown_default(self) -> str:
        """Its default as the help shows it; empty for flags and where there is nothing to say."""
        if self.option.default or self.is_flag or self.default in (None, ()):
            return self.option.default
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

    def parse(self, texts: str | Sequence[str]) -> Any:
        """Parse what was typed, once or (for a tuple of any length) several times. Raises UsageError.

        Several numbers or words may be joined by commas; paths and names may hold a comma and are repeated instead.
        """
        given = [texts] if isinstance(texts, str) else texts
        if self.count == 1:
            return self._value(given[0], given[0])
        if self.count or not {str, Path} & set(self.types):
            given = [part.strip() for text in given for part in text.split(",")]
        if self.count and len(given) != self.count:
            raise self._wrong(",".join(given))
        return tuple(self._value(part, texts if isinstance(texts, str) else part) for part in given)

    def check(self, value: Any) -> None:
        """Raise UsageError for a value that is out of range or none of the choices; None is always allowed."""
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str) and self.words and item not in self.words and str not in self.types:
                raise self._wrong(item)
            if isinstance(item, int | float) and not isinstance(item, bool) and not self._in_range(item):
                raise UsageError(f"{self.flag} must be {self._range().removeprefix('of ')}, not {item:g}")

    def _value(self, text: str, typed: str) -> Any:
        if text in self.words:
            return text
        for kind in self.types:
            try:
                value = kind(text)
            except ValueError:
                continue
            if not isinstance(value, float) or math.isfinite(value):
                return value
        raise self._wrong(typed)

    def _wrong(self, text: str) -> UsageError:
        return UsageError(f"{self.flag} must be {self._expected()}, not {text!r}")

    def _expected(self) -> str:
        if self.count > 1:
            return f"{self.count} whole numbers with commas between them, {self.metavar}"
        if not self.types:
            return listed(self.words, "or")
        number = next(_NUMBERS[kind] for kind in self.types if kind in _NUMBERS)
        return listed([*self.words, f"{number} {self._range()}".rstrip()], "or")

    def _in_range(self, value: float) -> bool:
        low, high = self.option.minimum, self.option.maximum
        return (low is None or value >= low) and (high is None or value <= high)

    def _range(self) -> str:
        low, high = self.option.minimum, self.option.maximum
        if low is None:
            return "" if high is None else f"at most {high:g}"
        return f"of at least {low:g}" if high is None else f"between {low:g} and {high:g}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """List words as a sentence does: `a, b and c`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


@functools.cache
def fields_of(options: type) -> tuple[OptionField, ...]:
    """List the fields of a dataclass that are options, in their order."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for field in dataclasses.fields(options):
        default = field.default
        if default is dataclasses.MISSING:
            made = field.default_factory
            default = inspect.Parameter.empty if made is dataclasses.MISSING else made()
        if (option := option_field(field.name, hints[field.name], default)) is not None:
            found.append(option)
    return tuple(found)


def option_field(name: str, hint: Any, default: Any) -> OptionField | None:
    """Find the option that a type hint declares, with the last `Option` of its annotations; None if there is none.

    Raises TypeError for a type that the command line cannot read.
    """
    declared = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Option)]
    if not declared:
        return None
    plain, count = get_args(hint)[0], 1
    alternatives = _alternatives(plain)
    if len(alternatives) == 1 and get_origin(alternatives[0]) is tuple:
        items = get_args(alternatives[0])
        count = 0 if items[-1] is ... else len(items)
        alternatives = _alternatives(items[0])
    words = tuple(word for kind in alternatives if get_origin(kind) is Literal for word in get_args(kind))
    kinds = tuple(kind for kind in alternatives if get_origin(kind) is not Literal)
    if unknown := [kind for kind in kinds if kind is not bool and kind not in _METAVARS]:
        raise TypeError(f"option {name}: a command line cannot read {unknown[0]}")
    required = default is inspect.Parameter.empty
    return OptionField(name, declared[-1], kinds, words, count, None if required else default, required)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """List the members of a union, without None; any other type alone."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(member for member in members if member is not types.NoneType)


def validate(options: Any) -> None:
    """Raise UsageError where a field of an options dataclass is out of its range or none of its choices."""
    kind: type = type(options)
    for field in fields_of(kind):
        field.check(getattr(options, field.name))


def output_option(help: str, metavar: str = "FILE", default: str = "none", *names: str) -> Option:
    """Return an option for a file or folder to write; `-o` has `names` of its own."""
    return Option(help, names, "Output", metavar=metavar, default=default)


def models_option(help: str, group: str, default: str = "") -> Option:
    """Return the option `-m`, which a command repeats for several models."""
    return Option(help, ("-m", "--model"), group, metavar="MODEL", default=default, completion="model")


DEFAULT_MODEL = "mesrgan"  #: What a command uses where no model is named.

Device = Annotated[
    str, Option("Device to compute on: auto, cpu, cuda, cuda:N or mps.", group="Speed", metavar="DEVICE")
]
PrecisionName = Literal["auto", "fp32", "fp16", "bf16"]
Precision = Annotated[PrecisionName, Option("Number format.", group="Speed")]
BackendName = Literal["auto", "eager", "compiled", "graph", "fused", "openvino", "onnxruntime"]
"""The run-times of `backends.NAMES`."""
Backend = Annotated[BackendName, Option("Software that runs the network.", group="Speed", metavar="NAME")]
Tile = Annotated[
    int | Literal["auto"],
    Option("Cut the photo into tiles of N x N pixels to save memory; 0: no tiles.", group="Speed", minimum=0),
]
Overlap = Annotated[
    int | Literal["auto", "full"],
    Option("Pixels that neighbouring tiles share, so that no seam shows.", group="Speed", minimum=0),
]
Fidelity = Annotated[
    float | None,
    Option(
        "Blend two stages of the model: 0 is its GAN stage (crisp), 1 the stage that -m names (faithful).",
        group="Look",
        metavar="0..1",
        default="the model as it is",
        minimum=0,
        maximum=1,
    ),
]
Ensemble = Annotated[
    bool, Option("Average over eight flips and rotations: eight times slower, slightly better.", group="Look")
]
Offline = Annotated[bool, Option("Never use the network.", group="For scripts")]
StageName = Literal["pixel", "photo", "gan"]
Overwrite = Annotated[bool, Option("Replace what exists.")]


@dataclass(frozen=True)
class AddOptions:
    """What the user says of weights to register; also the options of `srup models add`."""

    stage: Annotated[StageName | None, Option("Its stage.", default="pixel; for a run, all its stages")] = None
    """What a single file is (None: what it says itself, else `pixel`); which of a run's stages (None: all)."""
    licence: Annotated[
        str | None, Option("The weights' licence as an SPDX identifier.", metavar="SPDX", default="unknown")
    ] = None
    """None for what is known, else `unknown`."""
    summary: Annotated[str | None, Option("Description, one line.", default="none")] = None
    """None for where it came from."""
    overwrite: Overwrite = False
