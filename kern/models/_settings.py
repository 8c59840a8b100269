"""Checks the settings of a model: a wrong one would be no limit, or fail in the run after a paid answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kern._numbers import check_seconds, is_number
from kern.errors import UsageError
from kern.models._headers import user_headers
from kern.models.base import check_price

_SECONDS: Final = ("timeout", "total_timeout")
_COUNTS: Final[Mapping[str, tuple[int, str]]] = {
    "max_retries": (0, "a whole number, 0 or more"),
    "max_line_bytes": (1, "a number of bytes above 0"),
    "max_answer_bytes": (1, "a number of bytes above 0"),
    "max_output_tokens": (1, "a number of tokens above 0"),
}
_NUMBERS: Final = ("temperature", "top_p", "top_k")
_WHOLE: Final = ("seed",)


def check_numbers(model: Any) -> None:
    """Check those of these settings that the model has.

    Raises:
        UsageError: A setting is not a number, or one that makes no sense.
    """
    for name in _SECONDS:
        value = getattr(model, name, None)
        if value is not None:
            check_seconds(name, value, endless=False)
    for name, (least, wanted) in _COUNTS.items():
        value = getattr(model, name, None)
        if value is None and name != "max_retries":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be {wanted}, not {value!r}")
    for name in _WHOLE:
        value = getattr(model, name, None)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise UsageError(f"{name} must be a whole number, not {value!r}")
    for name in _NUMBERS:
        value = getattr(model, name, None)
        if value is not None and not (is_number(value) and math.isfinite(value)):
            raise UsageError(f"{name} must be a number, not {value!r}")


def check_others(model: Any, secrets: Mapping[str, object]) -> None:
    """Check those of the settings that are no numbers.

    Args:
        model: The model.
        secrets: The keys that were passed, by the names of their parameters; errors do not show them.

    Raises:
        UsageError: A setting is of a wrong type.
    """
    if not isinstance(model.id, str):
        raise UsageError(f"id must be a str, such as {model.example_id!r}, not {model.id!r}")
    for name, secret in secrets.items():
        if not isinstance(secret, str | None):
            raise UsageError(f"{name} must be a str, not {type(secret).__name__}")
    if model.base_url is not None and not isinstance(model.base_url, str):
        raise UsageError(f"base_url must be a str, not {type(model.base_url).__name__}")
    if model.default_headers is not None:
        if not isinstance(model.default_headers, Mapping):
            raise UsageError(f"default_headers must be a dict, not {type(model.default_headers).__name__}")
        user_headers(model.default_headers)
    if model.extra_body is not None and not isinstance(model.extra_body, Mapping):
        raise UsageError(f"extra_body must be a dict, not {type(model.extra_body).__name__}")
    client = model.http_client
    if client is not None and (isinstance(client, type) or not callable(getattr(client, "stream", None))):
        raise UsageError(f"http_client must be an httpx.AsyncClient, or have its stream(), not {client!r}")
    stop = getattr(model, "stop", None)
    if stop is not None and not (isinstance(stop, Sequence) and all(isinstance(text, str) for text in stop)):
        raise UsageError(f"stop must be a str or a list of str, not {stop!r}")
    check_price(model.price)
