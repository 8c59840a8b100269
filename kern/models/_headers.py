"""The headers of a request: which of them are secret, and what HTTP can carry."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

from kern._secrets import HARMLESS_HEADERS, Masked
from kern.errors import UsageError

_SECRET_PARAMETER = re.compile("key|token|secret|sig|auth|pass|cred", re.IGNORECASE)


def user_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """The user's headers, in small letters; each is a secret unless it is known to be none.

    Raises:
        UsageError: A value is no text.
    """
    if not given:
        return {}
    for name in given:
        if not isinstance(given[name], str):
            raise UsageError(f"the header {name!r} is no text, but of type {type(given[name]).__name__}")
    named = {name.lower(): value for name, value in given.items()}
    return {name: value if name in HARMLESS_HEADERS else Masked(value) for name, value in named.items()}


def secrets_of(headers: Mapping[str, str], url: httpx.URL) -> tuple[str, ...]:
    """What must never be shown of a request."""
    found = [value for value in headers.values() if isinstance(value, Masked)]
    if url.query:
        found += [Masked(value) for name, value in url.params.multi_items() if _SECRET_PARAMETER.search(name)]
    return tuple(found)


def check_header(name: str, value: str) -> None:
    """Raise `UsageError` for a header that HTTP cannot carry, before a library quotes it in an error."""
    for text in (name, value):
        if not text.isascii() or not text.isprintable():
            raise UsageError(f"the header {name!r} has characters that HTTP does not allow")
    if len(value.strip()) != len(value) or not name:
        raise UsageError(f"the header {name!r} has characters that HTTP does not allow")
