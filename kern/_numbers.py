"""Checks numbers that a program passes: NaN, a text and True are none."""

from __future__ import annotations

import math
from typing import Any, Final

from kern.errors import UsageError


def check_seconds(name: str, given: Any, *, zero: bool = False, endless: bool = True) -> None:
    """Check that a time is a number of seconds above 0.

    Args:
        name: The parameter, for the error.
        given: The time.
        zero: Whether 0 is allowed.
        endless: Whether infinity is allowed.

    Raises:
        UsageError: It is not.
    """
    if not is_number(given) or given < 0 or (given == 0 and not zero) or (not endless and math.isinf(given)):
        least = "0 or more" if zero else "above 0"
        raise UsageError(f"{name} must be a number of seconds {least}, not {_shown(given)}")


MOST: Final = 2**63 - 1
"""The largest whole number that databases hold."""


def check_whole(name: str, given: Any, least: int = 0, most: int | None = None) -> None:
    """Check that a count is a whole number of at least `least`.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise UsageError(f"{name} must be a whole number, {least} or more, not {_shown(given)}")
    if most is not None and given > most:
        raise UsageError(f"{name} must be a whole number, at most {most}, not {_shown(given)}")


def _shown(given: Any) -> str:
    try:
        return f"{given!r:.100}"
    except ValueError:  # Python does not write integers of more than 4,300 digits
        return f"an integer of {given.bit_length()} bits"


def is_number(given: Any) -> bool:
    """Whether it is an int or a float, not NaN, that a float can hold."""
    if not isinstance(given, int | float) or isinstance(given, bool):
        return False
    try:
        return not math.isnan(given)
    except OverflowError:
        return False
