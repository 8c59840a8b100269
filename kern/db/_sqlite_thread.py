"""aiosqlite's thread, driven one whole function at a time. What Kern has to know of its insides is all here.

aiosqlite has no public way to run a function of ours in its thread; a hop for every statement would cost a
commit twice its time, and could be cancelled half way. Works with aiosqlite from 0.20 on.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

T = TypeVar("T")


class Uncancellable(asyncio.Future[T]):
    """A future that refuses to be cancelled.

    asyncio then lets a cancelled task wait on, and raises `CancelledError` in it when the future is done.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


async def settled(future: Uncancellable[T]) -> T:
    """The future's result; a cancellation of the caller is raised after the future has come to its end."""
    try:
        return await future
    except asyncio.CancelledError:
        if future.done():
            future.exception()  # looked at: asyncio need not report that nobody did
        raise


class SqliteThread:
    """A thread with a SQLite connection; a daemon, since by default it would keep a program from ending.

    Args:
        connect: Makes the connection; called in the thread.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connection = aiosqlite.Connection(connect, iter_chunk_size=64)
        # Up to aiosqlite 0.21 the connection is its thread, from 0.22 on it has one.
        thread: Any = getattr(self._connection, "_thread", self._connection)
        thread.daemon = True

    def start(self) -> Uncancellable[None]:
        """Start the thread. The future is done when the connection is made, or could not be."""
        # `await self._connection`, by hand: cancelled in the middle, aiosqlite would lose the connection that
        # its thread is making; and `asyncio.run` cancels every task at its end, one of our own too.
        steps = self._connection.__await__()
        connected: asyncio.Future[sqlite3.Connection] = next(steps)
        started: Uncancellable[None] = Uncancellable()

        def finish(_: object) -> None:
            try:
                next(steps)
            except StopIteration:
                started.set_result(None)
            except BaseException as error:  # noqa: BLE001  # raised again where the future is awaited
                started.set_exception(error)

        connected.add_done_callback(finish)
        return started

    def submit(self, job: Callable[[], T], finished: Callable[[], None] | None = None) -> Uncancellable[T]:
        """Queue `job`; it runs to its end whatever becomes of the future, or of the loop.

        Args:
            job: Called in the thread.
            finished: Called there after it, always, before the future is done.
        """
        loop = asyncio.get_running_loop()
        future: Uncancellable[T] = Uncancellable()

        def run() -> None:
            try:
                answer = partial(future.set_result, job())
            except StopIteration as error:  # a future does not take one
                failure = RuntimeError("StopIteration was raised in a database transaction")
                failure.__cause__ = error
                answer = partial(future.set_exception, failure)
            except BaseException as error:  # noqa: BLE001  # raised again where the future is awaited
                answer = partial(future.set_exception, error)
            if finished is not None:
                finished()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answer)

        self._put(run)
        return future

    def end(self, last: Callable[[], None] | None = None) -> None:
        """Let the thread end when it has done what it was given, and `last`. Waits for nothing."""
        self.forget()
        if last is not None:
            self._put(last)
        self._put(lambda: _STOP_RUNNING_SENTINEL)  # what stops aiosqlite from 0.22 on
        self._connection._tx.put_nowait(_STOP_RUNNING_SENTINEL)  # type: ignore[arg-type]  # and before

    def forget(self) -> None:
        """The connection is closed, or will be: aiosqlite need not warn that it is open."""
        self._connection._connection = None

    def _put(self, function: Callable[[], object]) -> None:
        self._connection._tx.put_nowait((_NOBODY, function))  # type: ignore[arg-type]


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
