"""Daemon threads for the application's sync functions, and others for Kern's own work.

No library's pool will do: a program may not wait at its exit for a tool that never returns, and a tool that
waits for the state must not keep the one that has it from getting a thread. So threads are made as needed,
kept while idle. How many work at once is bounded; one that waits, for the state or for a run that it has
started itself, gives its place up meanwhile, so that what it waits for can be had.

A function that never returns (a request without a timeout) would keep its place for ever. While others wait,
one that has worked for a second counts as stuck, and its place is given to the first who waits. That goes on
up to a bound on the threads; beyond it those who wait get an error.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from kern._sync.fork import after_fork_in_child
from kern._sync.lock import FairSemaphore, Ticket, WaitAborted
from kern.errors import ToolError, UsageError

T = TypeVar("T")

STUCK_SECONDS = 1.0
"""A function that has worked for so long, while others wait, counts as stuck."""

HOPELESS_SECONDS = 5.0
"""For so long nothing has ended and no thread more may be made: those who wait get an error."""

_LOOK_SECONDS = 0.1
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

    __slots__ = ("_held", "_mutex", "_pool", "_since", "_wanted", "away")

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._mutex = threading.Lock()
        self._held = self._wanted = True
        self.away = False
        """Its thread waits, for the state or a run, and does not work."""
        self._since = time.monotonic()

    def stuck(self, now: float) -> bool:
        """It has been held for long."""
        return self._held and now - self._since >= STUCK_SECONDS

    def give_up(self, *, for_good: bool = False) -> None:
        """Let somebody else work."""
        with self._mutex:
            held, self._held = self._held, False
            self._wanted = self._wanted and not for_good
        if held:
            self._pool.release()

    def take_again(self) -> None:
        """Wait for a place, unless it was given up for good. Where none will come free, go on without one."""
        if not self._wanted:
            return
        try:
            self._pool.acquire_blocking()
        except WaitAborted:
            return
        if not self._keep():
            self._pool.release()

    def _keep(self) -> bool:
        """The place that was just taken is wanted still."""
        with self._mutex:
            self._held, self._since = self._wanted, time.monotonic()
            return self._held


_here = threading.local()


@contextmanager
def thread_place_released() -> Iterator[None]:
    """Wrap a blocking wait in a pool thread, so that another thread may take its place. Elsewhere a no-op."""
    place: _Place | None = getattr(_here, "place", None)
    if place is None:
        yield
        return
    place.away = True
    place.give_up()
    try:
        yield
    finally:
        place.take_again()
        place.away = False


class ThreadPool:
    """Threads that are reused while they idle.

    Args:
        places: How many jobs work at once, those that are stuck not counted.
        most: How many threads there may be with those.
        keep: How many threads may idle.
        in_place: Where the system gives no thread, as at the end of the interpreter, a job is done at once.
    """

    def __init__(
        self, places: int = 128, most: int = 1024, keep: int = 32, *, in_place: bool = False
    ) -> None:
        self.most = most
        self._in_place = in_place
        self._places_count = places
        self._keep = keep
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._places = FairSemaphore(self._places_count)
        self._idle: deque[_Worker] = deque()
        self._working: dict[_Place, None] = {}
        """The places of all jobs that have not ended, also of those that nobody awaits; the oldest first."""
        self._waiting: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._returning: set[Ticket] = set()
        self._watched = False
        self._moved = time.monotonic()

    def rest(self, worker: _Worker) -> bool:
        """`worker` has nothing to do; False if it should end."""
        with self._mutex:
            if len(self._idle) >= self._keep:
                return False
            self._idle.append(worker)
            return True

    def submit(self, job: _Job) -> None:
        """Run `job` in a thread of its own; it must not raise.

        Raises:
            RuntimeError: The system gives no thread.
        """
        with self._mutex:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.start()
        worker.jobs.put(job)

    def release(self) -> None:
        """A place is free."""
        self._moved = time.monotonic()
        self._places.release()

    def acquire_blocking(self) -> None:
        """Take a place from a thread, which waits.

        Raises:
            WaitAborted: None will come free.
        """
        if self._places.try_acquire():
            return
        ticket = Ticket(None)
        self._returning.add(ticket)
        self._watch()
        try:
            self._places.acquire_blocking(None, ticket)
        finally:
            self._returning.discard(ticket)

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread, with the caller's context variables, and return what it returns.

        A cancelled caller does not wait: the thread goes on by itself, and its result is dropped.

        Raises:
            ToolError: There is no thread for it, and none will come free.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        if not self._places.try_acquire():
            await self._wait(loop)
        place = _Place(self)
        if len(self._working) >= self.most and self._at_work() >= self.most:  # nobody awaits some of them
            place.give_up(for_good=True)
            raise self._no_thread()

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
                self._working.pop(place, None)
                self._moved = time.monotonic()
                place.give_up(for_good=True)

        self._working[place] = None
        try:
            try:
                self.submit(job)
            except RuntimeError as error:  # a limit of the system's; or the interpreter is about to end
                if not self._in_place:
                    self._working.pop(place, None)
                    raise ToolError(
                        f"the operating system could not start a thread for a sync function: {error}"
                    ) from error
                job()
            return await future
        except BaseException:
            place.give_up(for_good=True)  # the thread may go on, but nobody waits for it
            raise

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a place in a task."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._waiting[limit] = loop
                self._watch()
                await self._places.acquire()
        except TimeoutError:
            raise self._no_thread() from None
        finally:
            self._waiting.pop(limit, None)

    def _at_work(self) -> int:
        return sum(not place.away for place in list(self._working))

    def _no_thread(self) -> ToolError:
        return ToolError(
            f"no thread is free for a sync function: all {self._at_work()} running ones are "
            f"blocked, and at most {self.most} are allowed. Set a timeout on what they wait for, "
            "such as an HTTP client, or allow more threads with kern.limit_threads(...)"
        )

    def _watch(self) -> None:
        """See that somebody looks after those who wait, as long as anybody does."""
        with self._mutex:
            if self._watched:
                return
            self._watched = True
        try:
            threading.Thread(target=self._look_after, name="kern-tool-watch", daemon=True).start()
        except RuntimeError:  # the system gives no thread: whoever waits next tries again
            self._watched = False

    def _look_after(self) -> None:
        idle = 0
        while True:
            time.sleep(_LOOK_SECONDS)
            waiting = self._places.waiting
            idle = 0 if waiting else idle + 1
            if waiting:
                self._replace(waiting)
            with self._mutex:
                if idle > 10 and not self._places.waiting:
                    self._watched = False
                    return

    def _replace(self, wanted: int) -> None:
        """Give the places of what is stuck to those who wait."""
        now = time.monotonic()
        working = list(self._working)
        stuck = [place for place in working if place.stuck(now)]
        room = max(0, self.most - sum(not place.away for place in working))
        for place in stuck[: min(wanted, room)]:
            place.give_up()
        if stuck and not room and now - self._moved >= HOPELESS_SECONDS:
            for ticket in list(self._returning):
                self._places.abort(ticket)
            for limit, loop in list(self._waiting.items()):
                _deliver(loop, _end_wait, limit)


def _end_wait(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


def _deliver(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(callback, *args)
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
"""For the application's functions."""

own_threads = ThreadPool(64, in_place=True)
"""For Kern's own work, on states, history and the terminal: application code never blocks it."""


def limit_threads(most: int) -> None:
    """Allow at most so many threads at once for sync tools and other sync functions of this process; 1024 if
    this is not called. Threads of functions that do not return count, also where nobody awaits them any more.

    Raises:
        UsageError: It is less than 128, which may work at once in any case.
    """
    if most < 128:
        raise UsageError(f"limit_threads takes a number of at least 128, not {most!r}")
    threads.most = most
