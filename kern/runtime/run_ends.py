"""How runs end: by themselves or stopped, not after the call that has started them, and never unseen by those
who wait for them.

`CancelToken`: a run was stopped before it ended, or it was not; decided once, under one lock. `StartedRuns`:
the runs that a call, or a run, has started itself do not outlive it when it is cut short. They are found by a
context variable, so that it makes no difference how a run is started: awaited, in a task, in a thread, by a
stream, with or without a `run_context`. `SessionRun`: the end of a run, which others of its session may wait
for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from kern._sync.lock import End
from kern._sync.shield import uninterrupted
from kern._sync.waiting import contexts_of_waiters
from kern.runtime.debug import log
from kern.runtime.portal import calling_thread
from kern.runtime.stream import EventBuffer
from kern.state.transaction import keeps_edits

GIVE_UP_SECONDS = 15.0
"""How long the end of a call waits for runs that it has started, once they are cancelled."""

LEFT_SECONDS = 10.0
"""How long others wait for a run whose consumer has walked away, and that ends in the background."""

_LOOP_SECONDS = 0.2
"""How often one who waits for another loop's run looks whether that loop runs."""


class CancelToken:
    """How one run ends: by itself, or by `cancel_run`; whichever comes first.

    Args:
        loop: The event loop that drives the run.
    """

    __slots__ = ("_before", "_interrupts", "_loop", "_mutex", "_task", "cut_short", "sealed", "stopped")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._mutex = threading.Lock()
        self.sealed: bool = False
        """The run has ended, or its end is being written: it cannot be stopped any more."""
        self.stopped: bool = False
        """The run is to end as a cancelled one, whatever else it comes to."""
        self.cut_short: bool = False
        """The call that has started the run is over, and the run's task is cancelled."""
        self._task: asyncio.Task[object] | None = None
        self._before = 0  # cancellations of the task that were there before the run
        self._interrupts = 0  # those that `stop` has caused and that are not taken back

    def stop(self) -> bool:
        """Have the run end as a cancelled one; from any thread. False if it has ended."""
        with self._mutex:
            if self.sealed:
                return False
            self.stopped = True
        with suppress(RuntimeError):  # its loop is closed, and nothing goes on there
            self._loop.call_soon_threadsafe(self._interrupt)
        return True

    def seal(self) -> bool:
        """The run ends now; True if it was stopped before."""
        with self._mutex:
            self.sealed = True
            return self.stopped

    def enter(self) -> None:
        """The running task is the run's from here on: a stop cancels it."""
        if self._task is None:
            self._task = task = asyncio.current_task()
            assert task is not None
            self._before = task.cancelling()

    def leave(self) -> None:
        """The task is its caller's again."""
        self._task = None

    @property
    def entered(self) -> bool:
        """A task is the run's right now."""
        return self._task is not None

    @property
    def cancelled_from_outside(self) -> bool:
        """Somebody else than `stop` has cancelled the task; a stop's own cancellations are taken back."""
        task = self._task
        if task is None:
            return False
        while self._interrupts:
            self._interrupts -= 1
            task.uncancel()
        return task.cancelling() > self._before

    @property
    def cancelled_once(self) -> bool:
        """The run's task has been cancelled, for one reason only."""
        return self._task is not None and self._task.cancelling() == self._before + 1

    def go_on(self) -> None:
        """Nothing is on its way to the task: what its count of cancellations says now is of the past.

        A task group whose task fails leaves one behind in Python 3.11, and so does a function that swallows
        a cancellation.
        """
        if self._task is not None:
            self._before = self._task.cancelling() - self._interrupts

    def _interrupt(self) -> None:
        task = self._task
        if task is not None and not task.done() and not self.sealed and not self._interrupts:
            self._interrupts += 1
            task.cancel()


class StartedRun(Protocol):
    """A run that goes on, as the one who started it sees it."""

    @property
    def done(self) -> End:
        """Done once the run has ended and is committed, or never will be."""
        ...

    def cancel(self) -> None:
        """Cancel the task that drives it; from any thread."""


class StartedRuns:
    """The runs that one call, or one run, has started and that have not ended.

    Args:
        above: The call, or the run, that this one belongs to.
    """

    __slots__ = ("_above", "_given_up", "_handed_over", "_mutex", "_runs", "_token")

    def __init__(self, above: StartedRuns | None) -> None:
        self._above = above
        self._mutex = threading.Lock()
        self._runs: set[StartedRun] = set()
        self._handed_over = self._given_up = False

    async def __aenter__(self) -> None:
        """Wrap a call of an application's function."""
        self._token = current_started_runs.set(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current_started_runs.reset(self._token)
        if keeps_edits(error):
            self.hand_over()
        else:
            await self.give_up()

    def add(self, run: StartedRun) -> bool:
        """Note that `run` begins; False if what starts it has been cut short, and it must not begin."""
        with self._mutex:
            if self._given_up:
                return False
            if not self._handed_over:
                self._runs.add(run)
                run.done.future.add_done_callback(lambda _: self._runs.discard(run))
                return True
        return self._above is None or self._above.add(run)

    def hand_over(self) -> None:
        """The end of a call, or a run, that was not cut short: what goes on is the caller's from here on."""
        with self._mutex:
            self._handed_over, runs = True, list(self._runs)
            self._runs.clear()
        above = self._above
        if above is not None:
            for run in runs:
                if not above.add(run):
                    run.cancel()

    async def give_up(self) -> None:
        """Cancel what goes on, and wait for its end, which no cancellation cuts short."""
        with self._mutex:
            self._given_up, runs = True, list(self._runs)
        if not runs:
            return
        for run in runs:
            run.cancel()
        try:
            await uninterrupted(_ended(runs), GIVE_UP_SECONDS)
        except TimeoutError:
            log.error(
                "%d run(s) that a tool started had not ended %g s after they were cancelled; the "
                "run that called the tool ends without them",
                sum(not run.done.done() for run in runs),
                GIVE_UP_SECONDS,
            )


async def _ended(runs: list[StartedRun]) -> None:
    await asyncio.wait([asyncio.wrap_future(run.done.future) for run in runs])


current_started_runs: Final[ContextVar[StartedRuns | None]] = ContextVar("kern_started", default=None)
"""The call, or the run, that the running code belongs to."""


@dataclass(slots=True, eq=False)
class SessionRun:
    """The end of a run that is still to come.

    Args:
        run_id: The run.
        done: Its end.
        buffer: Its events; None if nobody listens.
        beside: Other runs of the session were going on when it came.
        loop: The event loop that drives it.
    """

    run_id: str
    done: End
    buffer: EventBuffer | None
    beside: bool
    loop: asyncio.AbstractEventLoop
    token: Token[frozenset[SessionRun]] | None = None
    exclusive: bool = False
    """The run has the session to itself."""
    _left_at: float | None = None
    _logged: bool = False

    @property
    def abandoned(self) -> bool:
        """The consumer of the run's events has walked away."""
        return self.buffer is not None and self.buffer.abandoned

    @property
    def overdue(self) -> bool:
        """The consumer walked away a while ago, and the run has not ended: something does not hear that it is
        cancelled.
        """
        if not self.abandoned or self.done.done():
            return False
        now = time.monotonic()
        if self._left_at is None:
            self._left_at = now
        if now - self._left_at < LEFT_SECONDS:
            return False
        if not self._logged:
            self._logged = True
            log.error("run %s, %s", self.run_id, self.complaint)
        return True

    @property
    def complaint(self) -> str:
        """What is wrong with a run that is overdue."""
        return (
            f"whose stream was left, had not ended {LEFT_SECONDS:g} s after it was cancelled: a tool or a "
            "model swallows the cancellation; other runs of the session do not wait for it any longer"
        )

    def why_not_to_wait(self) -> str | None:
        """Why this run will not end, as long as the running code waits for that."""
        if self.overdue:
            return self.complaint
        if any(
            self in context.get(current_session_runs, ()) for context in contexts_of_waiters(calling_thread())
        ):
            return (
                "one of whose tools started this run in a thread that it made itself, and waits for it; "
                "start it with asyncio.to_thread or contextvars.copy_context().run, so that it joins that run"
            )
        return None

    async def wait_until_over(self) -> None:
        """Wait until the run is committed, or its event loop stands still, on which it would end, or until it
        is overdue.
        """
        done = asyncio.wrap_future(self.done.future)
        while not self.done.done() and self.loop.is_running() and not self.overdue:
            await asyncio.wait([done], timeout=_LOOP_SECONDS)


current_session_runs: Final[ContextVar[frozenset[SessionRun]]] = ContextVar(
    "kern_session_runs", default=frozenset()
)
"""The ends of the runs that the running code belongs to."""
