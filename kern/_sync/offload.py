"""Work on large states is done in a thread: a state of 1 MB takes some 100 ms to check, write and compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kern._sync.shield import uninterrupted
from kern._sync.threads import own_threads

T = TypeVar("T")

LARGE = 100_000
"""Bytes of JSON text; below that the hop to a thread costs more than it spares the loop."""


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Do work on a state of `size` bytes; a cancellation is raised when it is done."""
    if size < LARGE:
        return work()
    return await uninterrupted(own_threads.run(work))
