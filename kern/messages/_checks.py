"""Checks the types of values that were read from a database, which may be damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Types = Mapping[str, type | tuple[type, ...]]
"""The type of each field of a record, by its name."""

TEXT = (str, type(None))
FLAG = (bool, type(None))
RECORD = (dict, type(None))
PLACE = (int, type(None))


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
