"""Daemon threads for the application's sync functions.

No library's pool will do: a program may not wait at its exit for a tool that never returns, and a tool that
waits for the state must not keep the one that has it from getting a thread. So threads are made as needed,
kept while idle, and bounded by those who call.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE_SECONDS = 10.0
_Job = Callable[[], None]


class _Worker(threading.Thread):
    def __init__(self, pool: ThreadPool) -> None:
        super().__init__(name="kern-tool", daemon=True)
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._pool = pool

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()
            del job
            if not self._pool.rest(self):
                return


class ThreadPool:
    """Threads that are reused while they idle; never more idle ones than `keep`."""

    def __init__(self, keep: int = 32) -> None:
        self._keep = keep
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._idle: deque[_Worker] = deque()

    def rest(self, worker: _Worker) -> bool:
        """`worker` has nothing to do; False if it should end."""
        with self._mutex:
            if len(self._idle) >= self._keep:
                return False
            self._idle.append(worker)
            return True

    def submit(self, job: _Job) -> None:
        """Run `job` in a thread of its own; it must not raise."""
        with self._mutex:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.start()
        worker.jobs.put(job)

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread, with the caller's context variables, and return what it returns.

        A cancelled caller does not wait: the thread goes on by itself, and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                _deliver(loop, _fail, future, error)
            else:
                _deliver(loop, _succeed, future, result)

        self.submit(job)
        return await future


def _deliver(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *args: Any) -> None:
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(settle, *args)
        except RuntimeError:
            return  # closed in this instant: nobody waits any more


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # a future refuses it
        wrapped = RuntimeError("the function raised StopIteration")
        wrapped.__cause__ = error
        error = wrapped
    future.set_exception(error)


threads = ThreadPool()
