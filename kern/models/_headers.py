"""The headers of a request: which of them are secret, and which HTTP allows."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

from kern._secrets import HARMLESS_HEADERS, Masked
from kern.errors import UsageError

_SECRET_PARAMETER = re.compile("key|token|secret|sig|auth|pass|cred", re.IGNORECASE)


def user_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """The application's headers with lower-case names; values are masked unless the header is known as
    harmless.

    Raises:
        UsageError: A name or a value is not a str.
    """
    if not given:
        return {}
    for name in given:
        if not isinstance(name, str):
            raise UsageError(f"the name of a header must be a str, not {name!r}")
        if not isinstance(given[name], str):
            raise UsageError(
                f"the value of the header {name!r} must be a str, not {type(given[name]).__name__}"
            )
    named = {name.lower(): value for name, value in given.items()}
    return {name: value if name in HARMLESS_HEADERS else Masked(value) for name, value in named.items()}


def secrets_of(headers: Mapping[str, str], url: httpx.URL) -> tuple[str, ...]:
    """The secrets of a request: masked headers, and parameters of the URL such as `key` and `token`."""
    found = [value for value in headers.values() if isinstance(value, Masked)]
    if url.query:
        found += [Masked(value) for name, value in url.params.multi_items() if _SECRET_PARAMETER.search(name)]
    return tuple(found)


def check_header(name: str, value: str) -> None:
    """Raise `UsageError` for a header that HTTP does not allow: a library's error would quote its value."""
    for text in (name, value):
        if not text.isascii() or not text.isprintable():
            raise UsageError(f"the header {name!r} contains characters that HTTP does not allow")
    if not name:
        raise UsageError("a header has an empty name")
    if len(value.strip()) != len(value):
        raise UsageError(
            f"the value of the header {name!r} begins or ends with white space, which HTTP drops"
        )
