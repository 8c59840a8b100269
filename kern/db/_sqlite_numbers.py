"""Numbers that replace texts as keys in SQLite.

A table whose keys are growing numbers is written only at its end. In an index of texts, SQLite moves the
entries of up to four pages each time a page is full. Numbers that do not grow are at least short.
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
    text = _bytes(run_id)
    drawn = blake2b(text, digest_size=16).digest()
    first = int.from_bytes(drawn[:8], "big") & _LARGEST
    second = int.from_bytes(drawn[8:], "big") & _LARGEST
    if len(text) == _UUID_LENGTH and text[_UUID_VERSION] == ord("7"):
        with suppress(ValueError):  # as long as a UUID, but not one
            first = (int(text[:8] + text[9:13], 16) << 20 | first & 0xF_FFFF) & _LARGEST
    return first, second


def session_place(session_id: str | bytes) -> int:
    """24 bits that are drawn from the id, before the 32 of the session's number.

    Sessions whose ids have these bits in common are told apart by their rows.
    """
    return int.from_bytes(blake2b(_bytes(session_id), digest_size=3).digest(), "big") << 32


def part_of(session_number: int) -> tuple[int, int]:
    """The first and the last number that the session's changes, and the places of its runs, may have."""
    return session_number << 32, (session_number + 1 << 32) - 1


def session_key(session_id: str) -> tuple[int, str]:
    """The parameters by which a statement finds a session."""
    return session_place(session_id), session_id


def run_key(run_id: str) -> tuple[int, int, str]:
    """The parameters by which a statement finds a run."""
    return (*run_numbers(run_id), run_id)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
