"""JSON as every parser takes it, of whatever values and text there are.

Two things of Python's have no place in it. A str may hold half a surrogate pair: file names that are no
UTF-8, input from a terminal, broken emoji. No encoding can write one, and a run's end must not be lost for
that: it becomes U+FFFD. A float may be NaN or an infinity, which Python's own parser reads as bare words and
no browser's does: it becomes null.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic_core import from_json, to_json, to_jsonable_python

T = TypeVar("T")


def json_bytes(
    value: Any,
    *,
    indent: int | None = None,
    fallback: Callable[[Any], Any] | None = None,
) -> bytes:
    """The value as JSON (RFC 8259).

    Args:
        fallback: Called for what has no JSON form; returns something else for it.

    Raises:
        ValueError: Something in it has no JSON form.
    """

    def write(given: Any) -> bytes:
        return to_json(given, by_alias=True, indent=indent, fallback=fallback, inf_nan_mode="null")

    text = _tried(write, value)
    if b"NaN" in text or b"Infinity" in text:  # in a text, or bare: a pydantic model's own config may say so
        return to_json(from_json(text), indent=indent, inf_nan_mode="null")
    return text


def jsonable(value: Any) -> Any:
    """The value as plain JSON data.

    Raises:
        ValueError: Something in it has no JSON form.
    """
    if value is None or isinstance(value, str | int):
        return value
    return finite(_tried(_to_jsonable, value))


def _to_jsonable(value: Any) -> Any:
    return to_jsonable_python(value, by_alias=True, inf_nan_mode="null")


def _tried(write: Callable[[Any], T], value: Any) -> T:
    """What `write` makes of the value; of the mended one, if it holds text that no encoding can write."""
    try:
        return write(value)
    except ValueError as error:  # looked at only now, since it is rare and costs a walk
        try:
            mended = _mended(value)
        except RecursionError:  # it contains itself
            raise error from None
        return write(mended)


def finite(value: Any) -> Any:
    """JSON data with null for each NaN and infinity; the same object if there is none."""
    return value if non_finite(value) is None else _with_nulls(value)


def non_finite(value: Any) -> str | None:
    """Where, as a JSON Pointer, JSON data holds a NaN or an infinity, and which; None if it does not."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f": {_WORDS.get(value, 'NaN')}"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        if isinstance(item, float | dict | list | tuple) and (found := non_finite(item)) is not None:
            return f"/{key}{found}"
    return None


_WORDS = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _with_nulls(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
