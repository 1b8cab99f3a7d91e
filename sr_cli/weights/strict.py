"""Values from JSON as msgspec's structs, strictly, with errors that name the field and say what it must be."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from sr_cli.errors import WeightsError

T = TypeVar("T")

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    Mapping: "an object",
}


def convert(value: Any, kind: type[T], where: str) -> T:
    """Convert plain values (of `json.loads`, say) to a struct; nothing is coerced.

    What a field must be is its annotation's `msgspec.Meta(description=...)`, else its type in words.

    Raises WeightsError that begins with `where` and names the field: missing, unknown, or of another kind.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise WeightsError(_explained(str(error), value, kind, where)) from None


def _explained(message: str, value: Any, kind: Any, where: str) -> str:
    """Explain msgspec's message in our words: `WHERE, OUTER: field 'NAME' must be WHAT, not VALUE`."""
    text, _, place = message.partition(" - at ")
    is_key = place.startswith("`key` in ")
    fields: list[str] = []
    for name in re.findall(r"\.(\w+)|\[", place.removeprefix("`key` in ").strip("`")):
        name = name or _wrong_key(value, kind)
        kind, value = _inner(kind, name), value[name]
        fields.append(name)
    if named := re.search(r"missing required field `(.*)`$", text):
        trouble = f"field {named[1]!r} is missing"
    elif named := re.search(r"unknown field `(.*)`$", text):
        trouble = f"unknown field {named[1]!r}"
    elif is_key:
        trouble = f"each field's name must be {_described(get_args(_plain(kind))[0])}"
    else:
        found = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        field = f"field {fields.pop()!r} " if fields else ""
        trouble = f"{field}must be {_described(kind)}, not {found}"
    return f"{', '.join([where, *fields])}: {trouble}"


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
    return get_args(kind)[1]


def _described(kind: Any) -> str:
    """Describe in words what a value of a type is."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        for meta in get_args(option)[1:] if get_origin(option) is Annotated else ():
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
    kind = _plain(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WORDS.get(get_origin(kind) or kind, "an object")
