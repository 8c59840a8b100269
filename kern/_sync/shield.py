"""Waits that survive cancellation, for work that must not be left half done.

`asyncio.shield` protects the work, but its caller stops waiting. A shielded scope of anyio holds back only
the cancellations of anyio's own scopes. Here the caller waits until the work has ended, and gets the
cancellation afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_until_done(
    work: asyncio.Future[Any],
    waiter: asyncio.Future[None] | None = None,
    *,
    seconds: float | None = None,
    grace: float | None = None,
    on_cancel: Callable[[], object] | None = None,
) -> asyncio.CancelledError | None:
    """Wait until `work` is done, even if the waiting task is cancelled meanwhile; the work is not cancelled.

    Args:
        work: The work.
        waiter: A future that the work itself wakes in its last step, from `start`.
        seconds: The maximum number of seconds to wait; None: no limit.
        grace: The maximum number of seconds to wait after the first cancellation, if `seconds` is None.
        on_cancel: Called at each cancellation.

    Returns:
        The last cancellation, which the caller must raise, or None. `work.done()` says whether the time was
        enough.
    """
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    while not work.done() and (deadline is None or deadline > loop.time()):
        # `asyncio.wait` would cost half as much again as the task itself.
        if waiter is None:
            waiter = loop.create_future()
        wake = partial(_wake, waiter)
        work.add_done_callback(wake)
        timer = None if deadline is None else loop.call_at(deadline, wake)
        try:
            await waiter
        except asyncio.CancelledError as error:
            cancelled = error
            if on_cancel is not None:
                on_cancel()
            if deadline is None and grace is not None:
                deadline = loop.time() + grace
        finally:
            work.remove_done_callback(wake)
            if timer is not None:
                timer.cancel()
            waiter = None
    return cancelled


def _wake(waiter: asyncio.Future[None], *_: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


def start(work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[asyncio.Task[T], asyncio.Future[None]]:
    """Start a task, and return it with the `waiter` of `wait_until_done`.

    The task wakes the waiter in its last step; a done callback would do so one turn of the event loop later.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    return loop.create_task(_waking(waiter, work)), waiter


async def _waking(waiter: asyncio.Future[None], work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await work()
    finally:
        _wake(waiter)


async def uninterrupted(work: Callable[[], Coroutine[Any, Any, T]], seconds: float | None = None) -> T:
    """Run code to its end; a cancellation of the caller is raised afterwards.

    Args:
        work: The code, which runs in its own task.
        seconds: The maximum number of seconds to wait; after that the task goes on by itself. None: no limit.

    Raises:
        TimeoutError: The time is up.
    """
    task, waiter = start(work)
    cancelled = await wait_until_done(task, waiter, seconds=seconds)
    if not task.done() and cancelled is None:
        raise TimeoutError
    return _result(task, cancelled)


async def run_in_child_task(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run code that may swallow a cancellation, and raise the cancellation nevertheless.

    Args:
        work: The application's code. It runs in its own task: in the caller's task it would be unknown
            afterwards whether a cancellation was swallowed, since in Python 3.11 a task group whose task
            fails leaves `Task.cancelling()` at 1.

    Raises:
        CancelledError: The caller was cancelled. The task was cancelled, too, and has ended.
    """
    task, waiter = start(work)
    return _result(task, await wait_until_done(task, waiter, on_cancel=task.cancel))


def _result(task: asyncio.Future[T], cancelled: asyncio.CancelledError | None) -> T:
    if cancelled is not None:
        retrieve_error(task)
        raise cancelled
    return task.result()


def retrieve_error(work: asyncio.Future[Any]) -> None:
    """Retrieve the error of finished work, so that asyncio does not report it as never retrieved."""
    if work.done() and not work.cancelled():
        work.exception()
