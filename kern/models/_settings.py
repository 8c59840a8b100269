"""Checks the settings of a model that are numbers: a wrong one would be no limit, or fail in the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from kern._numbers import check_seconds, is_number
from kern.errors import UsageError

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
