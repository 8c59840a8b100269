"""Checks of what was read back: a row is data from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Types = Mapping[str, type | tuple[type, ...]]
"""The type of each value of a record, by its name."""

TEXT = (str, type(None))
FLAG = (bool, type(None))
RECORD = (dict, type(None))
PLACE = (int, type(None))


def check_types(what: str, data: Mapping[str, Any], types: Types) -> None:
    """See that what was read back is of its type: a row is data from outside.

    Raises:
        ValueError: A value is not; the text names it.
    """
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{what}: {name} is a {type(data[name]).__name__}")
