"""Daemon threads for the application's sync functions, and others for Kern's own work.

Existing pools do not fit: a program must not wait at its exit for a tool that never returns, and a tool that
waits for the state must not take the thread that the holder of the state needs. So threads are made as needed
and reused. The number of threads that work at the same time is bounded. A thread that waits, for the state or
for a run that it started, gives up its place meanwhile, so that what it waits for can make progress.

A function that never returns (such as a request without a timeout) would keep its place for ever. So while
others wait, a function that has run for a second counts as stuck, and its place goes to the first waiter. If
the maximum number of threads is reached that way, the waiters get an error.
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

from kern._numbers import check_whole
from kern._sync.fork import after_fork_in_child
from kern._sync.lock import FairSemaphore, Ticket, WaitAborted
from kern.errors import ToolError

T = TypeVar("T")

STUCK_SECONDS = 1.0
"""A function that has run for this time, while others wait, counts as stuck."""

HOPELESS_SECONDS = 5.0
"""If no function ends for this time and no more threads are allowed, the waiters get an error."""

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
    """The place of one job: given up while it waits, and for good when nobody awaits it any more."""

    __slots__ = ("_held", "_mutex", "_pool", "_since", "_wanted", "away")

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._mutex = threading.Lock()
        self._held = self._wanted = True
        self.away = False
        """Whether its thread waits, for the state or a run, and does not work."""
        self._since = time.monotonic()

    def stuck(self, now: float) -> bool:
        """Whether the place has been held for `STUCK_SECONDS`."""
        return self._held and now - self._since >= STUCK_SECONDS

    def give_up(self, *, for_good: bool = False) -> None:
        """Give the place to another job."""
        with self._mutex:
            held, self._held = self._held, False
            self._wanted = self._wanted and not for_good
        if held:
            self._pool.release()

    def take_again(self) -> None:
        """Wait for a place, unless it was given up for good. If none will be free, continue without one."""
        if not self._wanted:
            return
        try:
            self._pool.acquire_blocking()
        except WaitAborted:
            return
        if not self._keep():
            self._pool.release()

    def _keep(self) -> bool:
        """Keep a place that was just taken, if it is still wanted. Return whether it is."""
        with self._mutex:
            self._held, self._since = self._wanted, time.monotonic()
            return self._held


_here = threading.local()


@contextmanager
def thread_place_released() -> Iterator[None]:
    """Wrap a blocking wait in a pool thread: another job may work meanwhile. No effect in other threads."""
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
    """A pool of daemon threads.

    Args:
        places: The maximum number of jobs that work at the same time, without stuck ones.
        most: The maximum number of jobs that work at the same time, with stuck ones.
        keep: The maximum number of idle threads.
        in_place: If no thread can be started, as at the exit of the interpreter, run the job in the caller.
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
        """The places of all jobs in progress, also of jobs that nobody awaits any more; the oldest first."""
        self._waiting: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._returning: set[Ticket] = set()
        self._watched = False
        self._moved = time.monotonic()

    def rest(self, worker: _Worker) -> bool:
        """Note that `worker` is idle. Return False if it should end."""
        with self._mutex:
            if len(self._idle) >= self._keep:
                return False
            self._idle.append(worker)
            return True

    def submit(self, job: _Job) -> None:
        """Run `job`, which must not raise, in an idle or a new thread.

        Raises:
            RuntimeError: The system could not start a thread.
        """
        with self._mutex:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.start()
        worker.jobs.put(job)

    def release(self) -> None:
        """Free a place."""
        self._moved = time.monotonic()
        self._places.release()

    def acquire_blocking(self) -> None:
        """Take a place in a thread, which blocks.

        Raises:
            WaitAborted: No place will be free.
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
        """Call `function` in a thread, with the caller's context variables, and return its result.

        If the caller is cancelled, it does not wait: the thread goes on by itself, and its result is dropped.

        Raises:
            ToolError: No thread is free, and none will be; or the system could not start one.
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
            except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
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
            except RuntimeError as error:  # a limit of the system, or the interpreter is shutting down
                if not self._in_place:
                    self._working.pop(place, None)
                    raise ToolError(
                        f"the operating system could not start a thread for a sync function: {error}"
                    ) from error
                job()
            return await future
        except BaseException:
            place.give_up(for_good=True)  # the thread may go on, but nobody awaits it
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
        """Start the thread that watches over the waiters, if it does not run."""
        with self._mutex:
            if self._watched:
                return
            self._watched = True
        try:
            threading.Thread(target=self._look_after, name="kern-tool-watch", daemon=True).start()
        except RuntimeError:  # the system could not start a thread: the next waiter tries again
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
        """Give the places of stuck jobs to waiters, or end the waits if that is hopeless."""
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
            return  # the loop was closed just now: nobody waits any more


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # a future does not accept it
        wrapped = RuntimeError("the function raised StopIteration")
        wrapped.__cause__ = error
        error = wrapped
    future.set_exception(error)


threads = ThreadPool()
"""For functions of the application."""

own_threads = ThreadPool(64, in_place=True)
"""For Kern's own work, on states, history and the terminal: application code never blocks it."""


def limit_threads(most: int) -> None:
    """Set the maximum number of threads for sync tools and other sync functions of this process.

    Args:
        most: The maximum; 1024 if this is not called. Threads of functions that do not return count, even if
            nobody awaits them any more.

    Raises:
        UsageError: `most` is less than 128, the number of functions that may always run at the same time.
    """
    check_whole("limit_threads: most", most, 128)
    threads.most = most
