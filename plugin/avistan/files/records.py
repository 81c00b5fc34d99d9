"""JSON read into dataclasses: every field there, of its type, and nothing besides."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

_SHOWN = 60  # characters of a wrong value


class RecordError(ValueError):
    """A record is not of the type that was expected; says where."""


def read_record[T](kind: type[T], value: object, place: str) -> T:
    """A dataclass from what `json.loads` gave of `dataclasses.asdict` of one.

    Args:
        kind: its fields are bool, int, float, str, None, Literal, Enum (by value), tuple, dict, dataclasses of these,
            and unions. What the fields' values must be, `__post_init__` says, by any exception.
        place: what the value is called in messages, such as "`timing`".

    Raises:
        RecordError: a field is missing, unknown or of another type, or refused.

    Example: `read_record(Probe, {"probe": "..", "holds": True, ..}, "`certificate`, entry 1")`.
    """
    if not isinstance(value, Mapping):
        raise RecordError(f"{place} is {_shown(value)}, expected an object")
    hints = _hints(typing.cast(Any, kind))
    names = [part.name for part in dataclasses.fields(kind) if part.init]  # type: ignore[arg-type]
    for name in names:
        if name not in value:
            raise RecordError(f"{place} has no `{name}`")
    for name in value:
        if name not in names:
            raise RecordError(f"{place} has an unknown entry `{str(name)[:_SHOWN]}`")
    fields = {name: _read(hints[name], value[name], f"`{name}` of {place}") for name in names}
    try:
        return kind(**fields)
    except Exception as error:
        raise RecordError(f"{place}: {error}") from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_one_of(inside, value, place)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in inside):
            raise RecordError(f"{place} is {_shown(value)}, expected one of {', '.join(map(repr, inside))}")
        return value
    if origin is tuple:
        return _read_tuple(inside, value, place)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise RecordError(f"{place} is {_shown(value)}, expected an object")
        return {name: _read(inside[1], item, f"`{name}` of {place}") for name, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise RecordError(f"{place} is {_shown(value)}, which it can't be") from None
    if dataclasses.is_dataclass(kind):
        return read_record(typing.cast(type, kind), value, place)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise RecordError(f"{place} is {_shown(value)}, which is no floating-point number") from None
    if kind is type(None) or kind is None:
        if value is not None:
            raise RecordError(f"{place} is {_shown(value)}, expected null")
        return None
    if type(value) is not kind:
        raise RecordError(f"{place} is {_shown(value)}, expected {_SPOKEN.get(kind, kind)}")
    return value


_SPOKEN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _read_one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    failure: RecordError | None = None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _read(kind, value, place)
        except RecordError as error:
            failure = error
    raise failure or RecordError(f"{place} is {_shown(value)}")


def _read_tuple(inside: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"{place} is {_shown(value)}, expected a list")
    kinds = (inside[0],) * len(value) if len(inside) == 2 and inside[1] is Ellipsis else inside
    if len(kinds) != len(value):
        raise RecordError(f"{place} has {len(value)} entries, expected {len(kinds)}")
    return tuple(
        _read(kind, item, f"entry {number} of {place}")
        for number, (kind, item) in enumerate(zip(kinds, value, strict=True), start=1)
    )


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a whole number of very many digits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}.."
