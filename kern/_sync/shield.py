"""Waiting in spite of cancellation, for the end of what must not be left half done.

`asyncio.shield` protects the work, but its caller stops waiting; a shielded scope of anyio holds
back only the cancellations of anyio's own scopes. Here the caller stays until the work has ended, and is
handed the cancellation afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def outlast(
    work: asyncio.Future[Any],
    *,
    seconds: float | None = None,
    grace: float | None = None,
    on_cancel: Callable[[], object] | None = None,
) -> asyncio.CancelledError | None:
    """Wait until `work` is done, also if the waiting task is cancelled meanwhile; the work is not cancelled.

    Args:
        seconds: Wait no longer than this.
        grace: Wait no longer than this after the first cancellation, if `seconds` is not given.
        on_cancel: Called at the first cancellation.

    Returns:
        The last cancellation that came, which the caller has to raise. `work.done()` says whether the time
        was enough.
    """
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait([work], timeout=left)
        except asyncio.CancelledError as error:
            if cancelled is None and on_cancel is not None:
                on_cancel()
            if deadline is None and grace is not None:
                deadline = loop.time() + grace
            cancelled = error
    return cancelled


async def uninterrupted(coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Await a coroutine to its end; a cancellation that came meanwhile is raised afterwards.

    Args:
        coroutine: Runs in a task of its own.
        seconds: Wait no longer than this; the coroutine then goes on by itself.

    Raises:
        TimeoutError: The time is up.
    """
    task = asyncio.ensure_future(coroutine)
    cancelled = await outlast(task, seconds=seconds)
    if cancelled is not None:
        look_at(task)
        raise cancelled
    if not task.done():
        raise TimeoutError
    return task.result()


async def in_own_task(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await what may swallow a cancellation; the caller is cancelled all the same.

    Args:
        coroutine: A function of the application's; it runs in a task of its own. In the caller's task nobody
            could tell afterwards whether a cancellation had been swallowed: a task group whose task fails
            leaves `Task.cancelling()` at 1 in Python 3.11.

    Raises:
        CancelledError: The caller was cancelled; the coroutine has ended.
    """
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if cancelled is not None:
        look_at(task)
        raise cancelled
    return task.result()


def look_at(work: asyncio.Future[Any]) -> None:
    """Retrieve the error of what has ended, so that asyncio does not report it as never retrieved."""
    if work.done() and not work.cancelled():
        work.exception()
