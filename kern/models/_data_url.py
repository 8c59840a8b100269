"""Reads `data:` URLs (RFC 2397), for providers that take the bytes of media."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from kern.errors import UsageError


def bytes_in(url: str) -> bytes:
    """Return the bytes in a `data:` URL.

    Raises:
        UsageError: The URL declares base64, and its data is not.
    """
    head, _, data = url.partition(",")
    raw = unquote_to_bytes(data)
    if not head.endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("a data: URL declares base64, but its data is not valid base64") from None
