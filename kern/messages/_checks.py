"""Checks the types of values that were read from a database, which may be damaged, and of values that will be
written: an application's own model or hook may have set anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kern._json import value_text
from kern._log import named

log: Final = named("kern")

Types = Mapping[str, type | tuple[type, ...]]
"""The type of each field of a record, by its name."""

TEXT = (str, type(None))
FLAG = (bool, type(None))
RECORD = (dict, type(None))
PLACE = (int, type(None))


def as_stored(what: str, name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, or what is stored in its place so that the record can be read: where a text belongs, the
    value as text; anywhere else nothing. The log says so.

    Args:
        what: The record's name, for the log.
        name: The field.
        value: The value.
        kind: The type of the field, as `check_types` wants it.
    """
    if isinstance(value, kind):
        return value
    is_text = kind is str or kind == TEXT
    log.warning(
        "%s: %s has the wrong type %s; it is %s",
        *(what, name, type(value).__name__, "stored as text" if is_text else "not stored"),
    )
    return value_text(value) if is_text else None


def readable(what: str, data: Mapping[str, Any], types: Types) -> dict[str, Any]:
    """A record in which each field is as `as_stored` has it, without those that are not stored."""
    stored = {name: as_stored(what, name, value, types.get(name, object)) for name, value in data.items()}
    return {name: value for name, value in stored.items() if value is not None}


def check_types(what: str, data: Mapping[str, Any], types: Types) -> None:
    """Check the types of a record that was read from a database.

    Args:
        what: The record's name, for the error.
        data: The record. Fields that it lacks are not checked.
        types: The type of each field.

    Raises:
        ValueError: A field has another type; the text names it.
    """
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{what}: {name} has the wrong type {type(data[name]).__name__}")
