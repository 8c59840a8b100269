"""A fair lock for tasks of several event loops and for threads; an end that any of them can wait for.

asyncio's lock belongs to one loop, and a lock for threads would block the loop. This lock protects its queue
with a mutex that is never held during a wait. The pitfalls that it avoids:

- The lock is handed over under the mutex and is never free in between, so nobody can overtake the queue.
- A waiter that is cancelled after it got the lock passes it on.
- A waiter whose loop is closed is skipped. A waiter whose loop does not run has to queue again when the loop
  runs, since a loop that does not run must not own the lock.
- A waiting thread cannot be cancelled, so its `Ticket` can be aborted from outside.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable


class LockTimeout(Exception):
    """The wait took longer than allowed."""


class WaitAborted(Exception):
    """The wait of a thread was aborted from outside."""


class Ticket:
    """One waiter's place in the queue."""

    __slots__ = ("_event", "_future", "_loop", "aborted", "granted")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = loop.create_future() if loop is not None else None
        self._event = threading.Event() if loop is None else None
        self.granted: bool = False
        self.aborted: bool = False

    @property
    def dead(self) -> bool:
        """Whether the loop of the waiter is closed."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def asleep(self) -> bool:
        """Whether the loop of the waiter does not run right now."""
        return self._loop is not None and not self._loop.is_running()

    def wake(self) -> bool:
        """Wake the waiter, which then checks its ticket. Return False if its loop is closed."""
        if self._event is not None:
            self._event.set()
            return True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop was closed just now
            return False
        return True

    def _resolve(self) -> None:
        assert self._future is not None
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None) -> None:
        """Wait in a task until woken, at most `timeout` seconds."""
        assert self._future is not None
        if timeout is None:
            await self._future
            return
        assert self._loop is not None
        timer = self._loop.call_later(timeout, self._time_out)
        try:
            await self._future
        finally:
            timer.cancel()

    def _time_out(self) -> None:
        assert self._future is not None
        if not self._future.done():
            self._future.set_exception(LockTimeout())

    def wait_blocking(self, timeout: float | None) -> None:
        """Wait in a thread until woken, at most `timeout` seconds."""
        assert self._event is not None
        self._event.wait(timeout)


class FairSemaphore:
    """A semaphore for tasks of any event loop and for threads; first come, first served.

    Args:
        places: How many may hold it at the same time.
    """

    __slots__ = ("_free", "_mutex", "_places", "_queue")

    def __init__(self, places: int = 1) -> None:
        self._mutex = threading.Lock()
        self._places = self._free = places
        self._queue: deque[Ticket] = deque()

    @property
    def held(self) -> bool:
        """Whether no place is free."""
        return self._free == 0

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Take a free place; False if there is none. Never overtakes: no place is free while others wait."""
        with self._mutex:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    async def acquire(self, timeout: float | None = None) -> None:
        """Take a place in a task; wait at most `timeout` seconds.

        Raises:
            LockTimeout: The wait took longer.
        """
        with self._mutex:  # usually a place is free
            if self._free:
                self._free -= 1
                return
        while True:
            ticket = Ticket(asyncio.get_running_loop())
            if self._enqueue(ticket):
                return
            try:
                await ticket.wait(timeout)
            except BaseException:
                self._leave(ticket)
                raise
            if ticket.granted:
                return
            # This loop did not run when its turn came; queue again now.

    def acquire_blocking(
        self,
        timeout: float | None = None,
        ticket: Ticket | None = None,
        queued: Callable[[], None] | None = None,
    ) -> None:
        """Take a place in a thread, which blocks.

        Args:
            timeout: The maximum number of seconds to wait; None: no limit.
            ticket: A `Ticket(None)` with which `abort` can end the wait.
            queued: Called when the thread has its place in the queue.

        Raises:
            LockTimeout: The wait took longer.
            WaitAborted: `abort` was called.
        """
        ticket = ticket or Ticket(None)
        with self._mutex:
            if ticket.aborted:
                raise WaitAborted
            self._queue_or_grant(ticket)
        if queued is not None:
            queued()
        if not ticket.granted:
            ticket.wait_blocking(timeout)
        granted, aborted = self._end_wait(ticket)
        if aborted:
            if granted:
                self.release()
            raise WaitAborted
        if not granted:
            raise LockTimeout

    def abort(self, ticket: Ticket) -> None:
        """End a thread's wait: its `acquire_blocking` raises `WaitAborted`. No effect after the wait."""
        with self._mutex:
            ticket.aborted = True
            waiting = ticket in self._queue
            if waiting:
                self._queue.remove(ticket)
        if waiting:
            ticket.wake()

    def release(self) -> None:
        """Hand the place to the first waiter, or free it."""
        with self._mutex:
            if self._free == self._places:
                raise RuntimeError("cannot release a lock that is not held")
            while self._queue:
                ticket = self._queue.popleft()
                if ticket.dead:
                    continue
                if ticket.asleep:
                    ticket.wake()
                    continue
                ticket.granted = True
                if ticket.wake():
                    return
                ticket.granted = False
            self._free += 1

    def _enqueue(self, ticket: Ticket) -> bool:
        """Queue the ticket, or give it a free place. Return whether it has a place."""
        with self._mutex:
            self._queue_or_grant(ticket)
            return ticket.granted

    def _queue_or_grant(self, ticket: Ticket) -> None:
        if self._free == 0:
            self._queue.append(ticket)
        else:
            self._free -= 1
            ticket.granted = True

    def _end_wait(self, ticket: Ticket) -> tuple[bool, bool]:
        """Return (granted, aborted) for the wait of a thread. A ticket that timed out leaves the queue."""
        with self._mutex:
            if not ticket.granted and not ticket.aborted:
                self._queue.remove(ticket)
            return ticket.granted, ticket.aborted

    def _leave(self, ticket: Ticket) -> None:
        """Leave the queue; if the place was handed over just now, pass it on."""
        with self._mutex:
            if not ticket.granted:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                return
        self.release()


class FairLock(FairSemaphore):
    """A fair semaphore with one place."""

    __slots__ = ()


class End:
    """The end of something in progress, for waiters in any thread.

    Usually nobody waits for it. So the future, the most expensive part, is made on first use.
    """

    __slots__ = ("_done", "_future", "_mutex")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._done = False
        self._future: concurrent.futures.Future[None] | None = None

    def done(self) -> bool:
        """Return whether the end is reached."""
        return self._done

    def reached(self) -> None:
        """Note that the end is reached. Call this once."""
        with self._mutex:
            self._done, future = True, self._future
        if future is not None:
            future.set_result(None)

    @property
    def future(self) -> concurrent.futures.Future[None]:
        """A future that is done when the end is reached. Waiters cannot cancel it."""
        with self._mutex:
            if self._future is None:
                self._future = concurrent.futures.Future()
                self._future.set_running_or_notify_cancel()
                if self._done:
                    self._future.set_result(None)
            return self._future
