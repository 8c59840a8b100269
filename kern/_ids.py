"""Ids that sort by the time of their making: a database puts new rows where the last ones are."""

from __future__ import annotations

import os
import time

_VERSION = 0x7000
_VARIANT = 0x8000


def new_id() -> str:
    """A UUID of version 7: 48 bits of milliseconds since the epoch, 74 random bits.

    With random ids every row of a large table goes to another page of its index, and a commit writes whole
    pages.
    """
    drawn = os.urandom(10)
    high, low = drawn[0] << 8 | drawn[1], drawn[2] << 8 | drawn[3]
    made = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    head = f"{made:012x}"
    return f"{head[:8]}-{head[8:]}-{_VERSION | high & 0xFFF:x}-{_VARIANT | low & 0x3FFF:x}-{drawn[4:].hex()}"
