"""Does work on large states in a thread: to check, write and compare a state of 1 MB takes about 100 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kern._sync.shield import uninterrupted
from kern._sync.threads import own_threads

T = TypeVar("T")

LARGE = 100_000
"""Bytes of JSON text. For smaller states, the switch to a thread costs more than it saves."""


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Do work on a state of `size` bytes, in a thread if it is large. A cancellation is raised afterwards."""
    if size < LARGE:
        return work()
    return await uninterrupted(lambda: own_threads.run(work))
