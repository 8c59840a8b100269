"""Waiting in spite of cancellation, for the end of what must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Await in a task of its own what is not to be cut short; then raise a cancellation that came meanwhile.

    Args:
        seconds: Wait no longer than this; what is awaited then goes on by itself.

    Raises:
        TimeoutError: The time is up.
    """
    task = asyncio.ensure_future(coroutine)
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            raise cancelled or TimeoutError
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at
        raise cancelled
    return task.result()
