"""Finds what a typed state loses on its way through JSON, so that a commit can refuse it.

Pydantic writes NaN as null, a set as a list, and an instance of a subclass as one of its base class, without
an error.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import pydantic

from kern.state.pointer import join

_UNIONS: Final = (typing.Union, types.UnionType)
Loss = tuple[str, Any, Any]
"""The path of a value, the value, and what it is read back as."""


def first_loss(value: Any, again: Any, path: str = "") -> Loss | None:
    """Return the first value that is not what it was after it was written as JSON and read; None if all are.

    Values that JSON itself has (text, numbers, lists, dicts) may be converted: pydantic makes a date of a
    text where the field is a date, and an `Item` of a dict. Any other value must be read back as it was.

    Args:
        value: The value that was written.
        again: The value that was read.
        path: Where they stand in the state, as a JSON Pointer.
    """
    return next(_losses(value, again, path), None)


def _losses(value: Any, again: Any, path: str) -> Iterator[Loss]:
    if type(value) is type(again) and _equal(value, again):
        return
    if isinstance(value, pydantic.BaseModel) or _is_dataclass(value):
        if type(value) is type(again):
            fields, others = _fields(value), _fields(again)
            yield from _losses_of_fields(fields, others, path)
            yield from _losses_of_texts(value, fields, others, path)
        else:
            yield path, value, again
    elif isinstance(value, Mapping):
        yield from _losses_of_keys(value, again, path)
    elif isinstance(value, list | tuple):
        yield from _losses_of_items(value, again, path)
    elif isinstance(value, float) and not math.isfinite(value):
        if repr(value) != repr(again):
            yield path, value, again
    elif not isinstance(value, str | int | float | None) and not _equal(value, again):
        yield path, value, again


def _losses_of_fields(fields: Mapping[str, Any], again: Mapping[str, Any], path: str) -> Iterator[Loss]:
    for name, value in fields.items():
        yield from _losses(value, again.get(name), join(path, name))


def _losses_of_texts(
    value: Any, fields: Mapping[str, Any], again: Mapping[str, Any], path: str
) -> Iterator[Loss]:
    """The texts that were read as something else, although the field may be a text: `date | str`."""
    declared = type(value).model_fields if isinstance(value, pydantic.BaseModel) else {}
    for name, item in fields.items():
        if name in declared:
            yield from _texts_lost(item, again.get(name), declared[name].annotation, join(path, name))


def _texts_lost(value: Any, again: Any, declared: Any, path: str) -> Iterator[Loss]:
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin is Annotated:
        yield from _texts_lost(value, again, inner[0], path)
    elif origin in _UNIONS:
        options = [
            typing.get_args(each)[0] if typing.get_origin(each) is Annotated else each for each in inner
        ]
        if type(value) is str and not isinstance(again, str) and _has_text(options):
            yield path, value, again
        for option in options:
            yield from _texts_lost(value, again, option, path)
    elif isinstance(value, list | tuple) and isinstance(again, list | tuple) and inner:
        kinds = inner if origin is tuple and ... not in inner else [inner[0]] * len(value)
        for at, (item, other, kind) in enumerate(zip(value, again, kinds, strict=False)):
            yield from _texts_lost(item, other, kind, join(path, at))
    elif isinstance(value, Mapping) and isinstance(again, Mapping) and len(inner) == 2:
        for key, item in value.items():
            yield from _texts_lost(item, again.get(key), inner[1], join(path, str(key)))


def _has_text(options: Sequence[Any]) -> bool:
    return any(
        option is str or (typing.get_origin(option) in _UNIONS and _has_text(typing.get_args(option)))
        for option in options
    )


def _losses_of_keys(value: Mapping[Any, Any], again: Any, path: str) -> Iterator[Loss]:
    if isinstance(again, pydantic.BaseModel) or _is_dataclass(again):  # a dict that became one
        fields = _fields(again)
        known = {name: item for name, item in value.items() if name in fields}
        if all(name in known or name in _unwritten(again) for name in value):
            yield from _losses_of_fields(known, fields, path)
        else:
            yield path, value, again  # a key that the model does not take, or knows by an alias only
    elif not isinstance(again, Mapping) or len(again) < len(value):
        yield path, value, again
    else:
        for key, item in value.items():
            if key in again:
                yield from _losses(item, again[key], join(path, str(key)))
            elif not isinstance(key, str):
                yield path, value, again


def _losses_of_items(value: Sequence[Any], again: Any, path: str) -> Iterator[Loss]:
    if not isinstance(
        again, list | tuple
    ):  # pydantic made a set or an object of it, and has checked that it may
        kept = {repr(item) for item in again} if isinstance(again, set | frozenset) else set()
        for at, item in enumerate(value):
            if isinstance(item, float) and not math.isfinite(item) and repr(item) not in kept:
                yield join(path, at), item, None
        return
    if len(again) != len(value):
        yield path, value, again
    for at, (item, other) in enumerate(zip(value, again, strict=False)):
        yield from _losses(item, other, join(path, at))


def _fields(value: Any) -> dict[str, Any]:
    """The fields that are written."""
    if isinstance(value, pydantic.BaseModel):
        excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
        fields = {name: item for name, item in value.__dict__.items() if name in type(value).model_fields}
        return {n: item for n, item in (fields | (value.model_extra or {})).items() if n not in excluded}
    return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}


def _unwritten(value: Any) -> set[str]:
    """The names that a model's dump may have although they are not stored: excluded and computed fields."""
    if not isinstance(value, pydantic.BaseModel):
        return set()
    kind = type(value)
    return {name for name, field in kind.model_fields.items() if field.exclude} | set(
        kind.model_computed_fields
    )


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _equal(value: Any, again: Any) -> bool:
    equal: Any = type(value).__eq__
    if type(value) is type(again) and equal is object.__eq__:
        return True  # nothing tells two of them apart
    try:
        if isinstance(value, datetime) and isinstance(again, datetime) and value.tzinfo and again.tzinfo:
            # Between two time zones, == is False in the hour that a clock change repeats.
            return value.astimezone(UTC) == again.astimezone(UTC)
        return bool(value == again)
    except Exception:  # noqa: BLE001 - the application's own, or an array that has no truth value
        return False
