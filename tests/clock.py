"""The clock of an event loop, which a test moves on: a deadline passes once something has happened.

A test whose time is up after a tenth of a second fails on a busy machine, where that something takes longer.
"""

from __future__ import annotations

import asyncio

LONG = 1000.0
"""Seconds that pass in no test unless it lets them pass."""


def pass_time(seconds: float = LONG + 1, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Move the clock of `loop` on; what is due by then happens in its next turn.

    Args:
        seconds: How far.
        loop: The running one, unless another is given, which may run in another thread.
    """
    moved = asyncio.get_running_loop() if loop is None else loop
    clock = moved.time

    def later() -> float:
        return clock() + seconds

    # Called by the loop, which so wakes up and looks at its clock again.
    moved.call_soon_threadsafe(setattr, moved, "time", later)
