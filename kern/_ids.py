"""Texts of the application that databases use as keys, such as ids: checked where they are passed."""

from __future__ import annotations

from typing import Any, Final

from kern.errors import UsageError

MOST_BYTES: Final = 800
"""The length of the longest id, in UTF-8. One entry of an index of Postgres has up to three ids, and may have
2,704 bytes."""


def check_text(name: str, value: Any) -> bytes:
    """Check that a value is a str that can be stored. Return it in UTF-8.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a str, not {type(value).__name__}")
    if f"{value}" != str.__str__(value):  # class Color(str, Enum): keys would be made of one or the other
        raise UsageError(
            f"{name} is {value!r}, a {type(value).__name__} that reads {f'{value}'!r}, not "
            f"{str.__str__(value)!r}, when it is formatted; pass a plain str"
        )
    try:
        stored = value.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{name}={value!r} contains half of a surrogate pair, which no database can store"
        ) from None
    if "\0" in value:
        raise UsageError(f"{name}={value!r} contains a NUL character, which not every database can store")
    return stored


def check_given_id(name: str, value: Any) -> None:
    """Check that an id is a str that every database can use as a key.

    Raises:
        UsageError: It is not.
    """
    stored = check_text(name, value)
    if not value and name != "user_id":  # "" is a valid user, distinct from None and from all others
        raise UsageError(f"{name} is an empty string; leave it out or pass None instead")
    if len(stored) > MOST_BYTES:
        raise UsageError(
            f"{name} has {len(stored):,} bytes in UTF-8 ({value[:40]!r}...), and an id may have at most "
            f"{MOST_BYTES}: pass a shorter one, such as a hash of it"
        )
