"""aiosqlite's thread, driven one whole function at a time. What Kern has to know of its insides is all here.

aiosqlite has no public way to run a function of ours in its thread; a hop for every statement would cost a
commit twice its time, and could be cancelled half way. Works with aiosqlite from 0.20 on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

T = TypeVar("T")


class Uncancellable(asyncio.Future[T]):
    """A future that refuses to be cancelled.

    asyncio then lets a cancelled task wait on, and raises `CancelledError` in it when the future is done.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


async def result_when_done(future: Uncancellable[T]) -> T:
    """The future's result; a cancellation of the caller is raised after the future has come to its end."""
    try:
        return await future
    except asyncio.CancelledError:
        if future.done():
            future.exception()  # looked at: asyncio need not report that nobody did
        raise


class SqliteThread:
    """A thread for one SQLite connection, started with the object.

    A daemon, since aiosqlite's own choice keeps a program that does not close from ending.
    """

    def __init__(self) -> None:
        # Never awaited: aiosqlite would lose the connection that its thread is making if the await is
        # cancelled. The connection is made by the first job.
        self._aiosqlite = aiosqlite.Connection(_no_connection, iter_chunk_size=64)
        # Up to aiosqlite 0.21 the connection is its thread, from 0.22 on it has one.
        thread: threading.Thread = getattr(self._aiosqlite, "_thread", self._aiosqlite)  # type: ignore[arg-type]
        thread.daemon = True
        thread.start()

    def submit(self, job: Callable[[], T], finished: Callable[[], None] | None = None) -> Uncancellable[T]:
        """Queue `job`; it runs to its end whatever becomes of the future, or of the loop.

        Args:
            job: Called in the thread.
            finished: Called there after it, always, before the future is done.
        """
        loop = asyncio.get_running_loop()
        future: Uncancellable[T] = Uncancellable()

        waiting = future

        def run() -> None:
            nonlocal job, finished, waiting
            try:
                answer = partial(waiting.set_result, job())
            except StopIteration as error:  # a future does not take one
                failure = RuntimeError("StopIteration was raised in a database transaction")
                failure.__cause__ = error
                answer = partial(waiting.set_exception, failure)
            except BaseException as error:  # noqa: BLE001  # raised again where the future is awaited
                answer = partial(waiting.set_exception, error)
            if finished is not None:
                finished()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answer)
            # aiosqlite's thread keeps this function until it gets another, and so all that it refers to.
            del job, finished, waiting

        self.put(run)
        return future

    def end(self) -> None:
        """Let the thread end when it has done what it was given. Waits for nothing."""
        self.put(lambda: _STOP_RUNNING_SENTINEL)  # what stops aiosqlite from 0.22 on
        self._aiosqlite._tx.put_nowait(_STOP_RUNNING_SENTINEL)  # type: ignore[arg-type]  # and before

    def put(self, function: Callable[[], object]) -> None:
        """Queue a function that does not raise, and whose end nobody waits for."""
        self._aiosqlite._tx.put_nowait((_NOBODY, function))  # type: ignore[arg-type]


def _no_connection() -> sqlite3.Connection:
    raise AssertionError("the thread is not awaited")


class _Nobody:
    """Stands where aiosqlite has a future, and answers nobody, since a job answers by itself.

    aiosqlite's thread dies when it answers a loop that was closed meanwhile, and what is queued behind,
    with the lock that it holds, would wait for ever.
    """

    def get_loop(self) -> _Nobody:
        return self

    def call_soon_threadsafe(self, *_: object) -> None:
        pass


_NOBODY = _Nobody()
