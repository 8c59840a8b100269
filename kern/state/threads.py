"""Daemon threads for the application's sync functions.

No library's pool will do: a program may not wait at its exit for a tool that never returns, and a tool that
waits for the state must not keep the one that has it from getting a thread. So threads are made as needed,
kept while idle. How many work at once is bounded; one that waits, for the state or for a run that it has
started itself, gives its place up meanwhile, so that what it waits for can be had.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from kern._sync.fork import after_fork_in_child
from kern.state.lock import FairSemaphore

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


class _Place:
    """One job's right to work: given up while it waits, and for good when nobody awaits it any more."""

    __slots__ = ("_held", "_mutex", "_places", "_wanted")

    def __init__(self, places: FairSemaphore) -> None:
        self._places = places
        self._mutex = threading.Lock()
        self._held = self._wanted = True

    def give_up(self, *, for_good: bool) -> None:
        """Let somebody else work."""
        with self._mutex:
            held, self._held = self._held, False
            self._wanted = self._wanted and not for_good
        if held:
            self._places.release()

    def take_again(self) -> None:
        """Wait for a place, unless it was given up for good."""
        if not self._wanted:
            return
        self._places.acquire_blocking()
        if not self._keep():
            self._places.release()

    def _keep(self) -> bool:
        """The place that was just taken is wanted still."""
        with self._mutex:
            self._held = self._wanted
            return self._held


_here = threading.local()


@contextmanager
def place_given_up() -> Iterator[None]:
    """Round a wait in a thread of the pool: others may work meanwhile. Elsewhere it does nothing."""
    place: _Place | None = getattr(_here, "place", None)
    if place is None:
        yield
        return
    place.give_up(for_good=False)
    try:
        yield
    finally:
        place.take_again()


class ThreadPool:
    """Threads that are reused while they idle.

    Args:
        places: How many jobs work at once.
        keep: How many threads may idle.
    """

    def __init__(self, places: int = 128, keep: int = 32) -> None:
        self._places_count = places
        self._keep = keep
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._places = FairSemaphore(self._places_count)
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
        await self._places.acquire()
        place = _Place(self._places)

        def job() -> None:
            _here.place = place
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                _deliver(loop, _fail, future, error)
            else:
                _deliver(loop, _succeed, future, result)
            finally:
                _here.place = None
                place.give_up(for_good=True)

        try:
            self.submit(job)
            return await future
        except BaseException:
            place.give_up(for_good=True)  # the thread may go on, but nobody waits for it
            raise


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
