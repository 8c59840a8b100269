"""A fair lock that serves tasks of several event loops, and threads, at once; an end to wait for, likewise.

asyncio's lock belongs to one loop and a thread's lock would block it. This one keeps its queue under a mutex
that is never held across a wait. The traps that it is built around:

- Hand-over is recorded under the mutex, and the lock stays held meanwhile: nobody can barge in.
- A waiter that is cancelled after it was granted passes the lock on.
- A waiter whose loop is closed is passed over; one whose loop stands still is asked to queue again when it
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
        """The loop that would have to wake up is closed."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def asleep(self) -> bool:
        """The loop that would have to wake up does not run right now."""
        return self._loop is not None and not self._loop.is_running()

    def wake(self) -> bool:
        """Let the waiter look at its ticket; False if there is nobody to wake any more."""
        if self._event is not None:
            self._event.set()
            return True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # closed in this instant
            return False
        return True

    def _resolve(self) -> None:
        assert self._future is not None
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None) -> None:
        """Wait in a task until woken."""
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
        """Wait in a thread until woken, or until the time is up."""
        assert self._event is not None
        self._event.wait(timeout)


class FairSemaphore:
    """First come, first served, for tasks of any loop and for threads.

    Args:
        places: How many may have it at once.
    """

    __slots__ = ("_free", "_mutex", "_places", "_queue")

    def __init__(self, places: int = 1) -> None:
        self._mutex = threading.Lock()
        self._places = self._free = places
        self._queue: deque[Ticket] = deque()

    @property
    def held(self) -> bool:
        """No place is free."""
        return self._free == 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Take a free place. Never waits, never overtakes: while anyone queues, none is free."""
        with self._mutex:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    async def acquire(self, timeout: float | None = None) -> None:
        """Take a place from a task, waiting at most `timeout` seconds.

        Raises:
            LockTimeout: The wait took longer.
        """
        with self._mutex:  # as a rule it is free
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
            # This loop stood still when its turn came; queue again now that it runs.

    def acquire_blocking(
        self,
        timeout: float | None = None,
        ticket: Ticket | None = None,
        queued: Callable[[], None] | None = None,
    ) -> None:
        """Take a place from a thread, which waits.

        Args:
            timeout: At most this many seconds.
            ticket: One made by `Ticket(None)`, if somebody may want to `abort` the wait.
            queued: Called once the place in the queue is certain.

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
        """End a thread's wait: its `acquire_blocking` raises `WaitAborted`. Harmless if it waits no more."""
        with self._mutex:
            ticket.aborted = True
            waiting = ticket in self._queue
            if waiting:
                self._queue.remove(ticket)
        if waiting:
            ticket.wake()

    def release(self) -> None:
        """Hand the place to the first who waits, or free it."""
        with self._mutex:
            if self._free == self._places:
                raise RuntimeError("release of a lock that nobody holds")
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
        """True if a place was free and is the ticket's now."""
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
        """How a thread's wait has ended: (granted, aborted); one that timed out leaves the queue."""
        with self._mutex:
            if not ticket.granted and not ticket.aborted:
                self._queue.remove(ticket)
            return ticket.granted, ticket.aborted

    def _leave(self, ticket: Ticket) -> None:
        """Leave the queue; if the lock was handed over in the same instant, pass it on."""
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
    """The end of something that goes on; from any thread.

    As a rule nobody waits for it. The future is made when it is first asked for: it costs more than the rest.
    """

    __slots__ = ("_done", "_future", "_mutex")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._done = False
        self._future: concurrent.futures.Future[None] | None = None

    def done(self) -> bool:
        """It has ended."""
        return self._done

    def reached(self) -> None:
        """It ends now; once."""
        with self._mutex:
            self._done, future = True, self._future
        if future is not None:
            future.set_result(None)

    @property
    def future(self) -> concurrent.futures.Future[None]:
        """Done when it has ended; who waits for it cannot cancel it."""
        with self._mutex:
            if self._future is None:
                self._future = concurrent.futures.Future()
                self._future.set_running_or_notify_cancel()
                if self._done:
                    self._future.set_result(None)
            return self._future
