"""Numbers that replace texts as keys in SQLite.

A table whose keys are growing numbers is written only at its end. In an index of texts, SQLite moves the
entries of up to four pages each time a page is full.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b

_UUID_LENGTH, _UUID_VERSION = 36, 14
"""The length of a UUID as text, and the position of its version."""

_LARGEST = 2**63 - 1


def run_numbers(run_id: str | bytes) -> tuple[int, int]:
    """The numbers for a run's id. The second is used if another run has the first.

    A UUID of version 7, as Kern makes them, begins with its milliseconds; so do its numbers.
    """
    text = run_id if isinstance(run_id, bytes) else run_id.encode("utf-8", "surrogatepass")
    drawn = blake2b(text, digest_size=16).digest()
    first = int.from_bytes(drawn[:8], "big") & _LARGEST
    second = int.from_bytes(drawn[8:], "big") & _LARGEST
    if len(text) == _UUID_LENGTH and text[_UUID_VERSION] == ord("7"):
        with suppress(ValueError):  # as long as a UUID, but not one
            first = (int(text[:8] + text[9:13], 16) << 20 | first & 0xF_FFFF) & _LARGEST
    return first, second


def changes_of(session_number: int) -> tuple[int, int]:
    """The first and the last number that changes of the session may have."""
    return session_number << 32, (session_number + 1 << 32) - 1
