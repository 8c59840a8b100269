"""Runs whole functions in aiosqlite's thread. All uses of aiosqlite's private parts are in this module.

aiosqlite has no public way to run a function in its thread. A thread switch for every statement would double
the time of a commit, which could then be cancelled half way. Works with aiosqlite from 0.20 on.
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
    """A future that cannot be cancelled.

    A cancelled task that awaits it keeps waiting; asyncio raises `CancelledError` when the future is done.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


async def result_when_done(future: Uncancellable[T]) -> T:
    """The future's result. A cancellation of the caller is raised after the future is done."""
    try:
        return await future
    except asyncio.CancelledError:
        if future.done():
            future.exception()  # retrieved, so that asyncio does not log it as never retrieved
        raise


class SqliteThread:
    """A thread for one SQLite connection, started with the object.

    It is a daemon thread: aiosqlite's default would keep a program from ending that does not close its
    connection.
    """

    def __init__(self) -> None:
        # Never awaited: if the await is cancelled, aiosqlite loses the connection that its thread is opening.
        # The first job opens the connection instead.
        self._aiosqlite = aiosqlite.Connection(_no_connection, iter_chunk_size=64)
        # Up to aiosqlite 0.21 the connection is a thread; from 0.22 on it has one.
        thread: threading.Thread = getattr(self._aiosqlite, "_thread", self._aiosqlite)  # type: ignore[arg-type]
        thread.daemon = True
        thread.start()

    def submit(self, job: Callable[[], T], finished: Callable[[], None] | None = None) -> Uncancellable[T]:
        """Queue `job`. It runs to its end even if the waiting task is cancelled or the loop stops.

        Args:
            job: Called in the thread.
            finished: Called in the thread after the job, also if it fails, before the future is done.
        """
        loop = asyncio.get_running_loop()
        future: Uncancellable[T] = Uncancellable()

        waiting = future

        def run() -> None:
            nonlocal job, finished, waiting
            try:
                answer = partial(waiting.set_result, job())
            except StopIteration as error:  # asyncio's futures refuse a StopIteration
                failure = RuntimeError("StopIteration was raised in a database transaction")
                failure.__cause__ = error
                answer = partial(waiting.set_exception, failure)
            except BaseException as error:  # noqa: BLE001  # raised again where the future is awaited
                answer = partial(waiting.set_exception, error)
            if finished is not None:
                finished()
            with suppress(RuntimeError):  # the loop is closed, so no task waits any more
                loop.call_soon_threadsafe(answer)
            # aiosqlite's thread keeps this function, and all that it refers to, until it gets the next one.
            del job, finished, waiting

        self.put(run)
        return future

    def end(self) -> None:
        """Let the thread end once its queue is empty. Returns at once."""
        self.put(lambda: _STOP_RUNNING_SENTINEL)  # what stops aiosqlite from 0.22 on
        self._aiosqlite._tx.put_nowait(_STOP_RUNNING_SENTINEL)  # type: ignore[arg-type]  # and before

    def put(self, function: Callable[[], object]) -> None:
        """Queue a function that must not raise, and for whose end no task waits."""
        self._aiosqlite._tx.put_nowait((_NOBODY, function))  # type: ignore[arg-type]


def _no_connection() -> sqlite3.Connection:
    raise AssertionError("the thread is not awaited")


class _Nobody:
    """Takes the place of the future that aiosqlite's thread resolves; jobs resolve their own.

    aiosqlite's thread dies if it resolves a future of a loop that was closed. Jobs queued behind it, and the
    lock that they would release, would then be stuck for ever.
    """

    def get_loop(self) -> _Nobody:
        return self

    def call_soon_threadsafe(self, *_: object) -> None:
        pass


_NOBODY = _Nobody()
