"""Values of JSON and TOML as msgspec's structs, strictly, with errors that name the field and say what it must be."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    tuple: "a list",
    Mapping: "an object",
}


class Mismatch(ValueError):
    """A value that its struct does not allow: `field 'NAME' must be WHAT, not VALUE`, `field 'NAME' is missing`, ..."""

    def __init__(self, place: Sequence[str], field: str, trouble: str, known: Sequence[str] = ()) -> None:
        """Describe the error.

        place: names of the objects around the field, outermost first. field: "" if all of the value is wrong.
        trouble: `must be WHAT, not VALUE`, `is missing`. known: for an unknown field, those that there are.
        """
        self.place, self.field, self.trouble, self.known = place, field, trouble, known
        super().__init__(f"unknown field {field!r}" if known else f"field {field!r} {trouble}" if field else trouble)


def convert(value: Any, kind: type[T]) -> T:
    """Convert plain values (of `json.loads`, say) to a struct; nothing is coerced. Raises Mismatch.

    What a field must be is its annotation's `msgspec.Meta(description=...)`, else its type and range in words.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _mismatch(str(error), value, kind) from None


def _mismatch(message: str, value: Any, kind: Any) -> Mismatch:
    """Build the error from msgspec's message, such as "Expected `int`, got `str` - at `$.gan.steps`"."""
    text, _, place = message.partition(" - at ")
    is_key = place.startswith("`key` in ")
    fields: list[str] = []
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", place.removeprefix("`key` in ").strip("`")):
        name = name or (_wrong_key(value, kind) if index == "..." else index)
        kind, value = _inner(kind, name), value[int(name)] if isinstance(value, Sequence) else value[name]
        fields.append(name)
    if named := re.search(r"missing required field `(.*)`$", text):
        return Mismatch(fields, named[1], "is missing")
    if named := re.search(r"unknown field `(.*)`$", text):
        return Mismatch(fields, named[1], "is unknown", _plain(kind).__struct_fields__)
    if is_key:
        return Mismatch(fields, "", f"each field's name must be {_described(get_args(_plain(kind))[0])}")
    found = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    return Mismatch(fields[:-1], fields[-1] if fields else "", f"must be {_described(kind)}, not {found}")


def _wrong_key(value: Mapping[str, Any], kind: Any) -> str:
    """Find the first key of an object whose value is not what it must be; msgspec does not say which."""
    for name, item in value.items():
        try:
            msgspec.convert(item, _inner(kind, name))
        except msgspec.ValidationError:
            return name
    raise AssertionError("msgspec found a wrong value")


def _plain(kind: Any) -> Any:
    """Strip a type of its annotations, and of the None that an optional one has."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return _plain(next(option for option in get_args(kind) if option is not type(None)))
    return kind


def _inner(kind: Any, name: str) -> Any:
    """Return the type of a struct's field, or of an object's values."""
    kind = _plain(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return get_args(kind)[1 if get_origin(kind) in (dict, Mapping) else 0]


def _described(kind: Any) -> str:
    """Describe in words what a value of a type is."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        for meta in get_args(option)[1:] if get_origin(option) is Annotated else ():
            if isinstance(meta, msgspec.Meta):
                return meta.description or f"{_described(get_args(option)[0])}{_range(meta)}"
    kind = _plain(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WORDS.get(get_origin(kind) or kind, "an object")


def _range(meta: msgspec.Meta) -> str:
    bounds = {
        " from": meta.ge,
        " above": meta.gt,
        " to": meta.le,
        " below": meta.lt,
        ", a multiple of": meta.multiple_of,
        " of a length from": meta.min_length,
    }
    return "".join(f"{word} {value:g}" for word, value in bounds.items() if value is not None)
