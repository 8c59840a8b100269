"""JSON text of whatever text there is, halves of surrogate pairs included.

A str of Python's may hold half a surrogate pair: file names that are no UTF-8, input from a terminal, broken
emoji. No encoding can write one, and a run's end must not be lost for that: it becomes U+FFFD.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic_core import to_json


def json_bytes(value: Any, *, inf_nan_mode: Literal["null", "constants"] = "constants") -> bytes:
    """The value as JSON.

    Raises:
        ValueError: Something in it has no JSON form.
    """
    try:
        return to_json(value, inf_nan_mode=inf_nan_mode)
    except ValueError as error:  # looked at only now, since it is rare and costs a walk
        try:
            mended = _mended(value)
        except RecursionError:  # it contains itself
            raise error from None
        return to_json(mended, inf_nan_mode=inf_nan_mode)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
