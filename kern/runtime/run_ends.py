"""How runs end.

- `CancelToken` decides once, under a lock, whether a run was stopped before it ended.
- `StartedRuns`: runs that a tool call or a run started do not outlive it if it is cut short. A context
  variable finds them, however they are started: awaited, in a task, in a thread, by a stream, with or without
  a `run_context`.
- `SessionRun`: the entry of a run in its session, whose end other runs may wait for.
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

from kern._error_text import counted
from kern._sync.lock import End
from kern._sync.shield import uninterrupted
from kern._sync.waiting import contexts_of_waiters
from kern.runtime.debug import log
from kern.runtime.portal import calling_thread
from kern.runtime.stream import EventBuffer
from kern.state.transaction import keeps_edits

GIVE_UP_SECONDS = 15.0
"""How long the end of a call waits for the runs that it started, after it cancelled them."""

LEFT_SECONDS = 10.0
"""How long others wait for a run whose consumer left its stream, and that ends in the background."""

_LOOP_SECONDS = 0.2
"""How often a waiter for a run on another event loop checks whether that loop runs."""


class CancelToken:
    """Decides how one run ends: by itself, or by `cancel_run`, whichever comes first.

    Args:
        loop: The event loop that drives the run.
    """

    __slots__ = ("_before", "_interrupts", "_loop", "_mutex", "_task", "cut_short", "sealed", "stopped")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._mutex = threading.Lock()
        self.sealed: bool = False
        """Whether the run has ended, or its result is being committed: it cannot be stopped any more."""
        self.stopped: bool = False
        """Whether the run must end as CANCELLED, even if it gets an answer or an error."""
        self.cut_short: bool = False
        """Whether the call that started the run has ended, and has cancelled the run's task."""
        self._task: asyncio.Task[object] | None = None
        self._before = 0  # the task's cancellations from before the run
        self._interrupts = 0  # the cancellations by `stop` that are not taken back

    def stop(self) -> bool:
        """Make the run end as CANCELLED, from any thread. Return False if it has ended."""
        with self._mutex:
            if self.sealed:
                return False
            self.stopped = True
        with suppress(RuntimeError):  # its event loop is closed, so the task does not run
            self._loop.call_soon_threadsafe(self._interrupt)
        return True

    def seal(self) -> bool:
        """Note that the run ends now. Return True if it was stopped before."""
        with self._mutex:
            self.sealed = True
            return self.stopped

    def enter(self) -> None:
        """Note that the current task drives the run from here on: `stop` cancels it."""
        if self._task is None:
            self._task = task = asyncio.current_task()
            assert task is not None
            self._before = task.cancelling()

    def leave(self) -> None:
        """Note that the task does not drive the run any more."""
        self._task = None

    @property
    def entered(self) -> bool:
        """Whether a task drives the run right now."""
        return self._task is not None

    @property
    def cancelled_from_outside(self) -> bool:
        """Whether the task was cancelled other than by `stop`, whose cancellations are taken back here."""
        task = self._task
        if task is None:
            return False
        while self._interrupts:
            self._interrupts -= 1
            task.uncancel()
        return task.cancelling() > self._before

    @property
    def cancelled_once(self) -> bool:
        """Whether the run's task has been cancelled exactly once."""
        return self._task is not None and self._task.cancelling() == self._before + 1

    def clear_cancellations(self) -> None:
        """Forget the task's past cancellations: none is pending.

        In Python 3.11 a task group whose task fails leaves the count raised, and so does a function that
        swallows a cancellation.
        """
        if self._task is not None:
            self._before = self._task.cancelling() - self._interrupts

    def _interrupt(self) -> None:
        task = self._task
        if task is not None and not task.done() and not self.sealed and not self._interrupts:
            self._interrupts += 1
            task.cancel()


class StartedRun(Protocol):
    """A run in progress, as its starter sees it."""

    @property
    def done(self) -> End:
        """Ends when the run has ended, committed or not."""
        ...

    def cancel(self) -> None:
        """Cancel the task that drives the run, from any thread."""


class StartedRuns:
    """The runs that one tool call, or one run, started and that have not ended.

    Args:
        above: The same for the call or run that this one belongs to.
    """

    __slots__ = ("_above", "_given_up", "_handed_over", "_mutex", "_runs", "_token")

    def __init__(self, above: StartedRuns | None) -> None:
        self._above = above
        self._mutex = threading.Lock()
        self._runs: set[StartedRun] = set()
        self._handed_over = self._given_up = False

    async def __aenter__(self) -> None:
        """Wrap a call of a function of the application."""
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
        """Note that `run` begins. Return False if its starter was cut short, so that it must not begin."""
        with self._mutex:
            if self._given_up:
                return False
            if not self._handed_over:
                self._runs.add(run)
                run.done.future.add_done_callback(lambda _: self._runs.discard(run))
                return True
        return self._above is None or self._above.add(run)

    def hand_over(self) -> None:
        """End normally: the runs in progress belong to the call or run above from here on."""
        with self._mutex:
            self._handed_over, runs = True, list(self._runs)
            self._runs.clear()
        above = self._above
        if above is not None:
            for run in runs:
                if not above.add(run):
                    run.cancel()

    async def give_up(self) -> None:
        """Cancel the runs in progress and wait for their ends. A cancellation does not shorten the wait."""
        with self._mutex:
            self._given_up, runs = True, list(self._runs)
        if not runs:
            return
        for run in runs:
            run.cancel()
        try:
            await uninterrupted(lambda: _ended(runs), GIVE_UP_SECONDS)
        except TimeoutError:
            log.error(
                "a tool started %s that had not ended %g s after the cancellation; the run that called the "
                "tool ends without waiting any longer",
                counted(sum(not run.done.done() for run in runs), "runs"),
                GIVE_UP_SECONDS,
            )


async def _ended(runs: list[StartedRun]) -> None:
    await asyncio.wait([asyncio.wrap_future(run.done.future) for run in runs])


current_started_runs: Final[ContextVar[StartedRuns | None]] = ContextVar("kern_started", default=None)
"""The started runs of the call or run that the running code belongs to."""


@dataclass(slots=True, eq=False)
class SessionRun:
    """The entry of a run in its session.

    Args:
        run_id: The id of the run.
        done: Ends when the run has ended.
        buffer: The queue of its events; None if nothing reads them.
        beside: Whether other runs of the session were in progress when this one began.
        loop: The event loop that drives the run.
    """

    run_id: str
    done: End
    buffer: EventBuffer | None
    beside: bool
    loop: asyncio.AbstractEventLoop
    token: Token[frozenset[SessionRun]] | None = None
    exclusive: bool = False
    """Whether the run has exclusive use of the session."""
    _left_at: float | None = None
    _logged: bool = False

    @property
    def abandoned(self) -> bool:
        """Whether the consumer left the stream of the run without closing it."""
        return self.buffer is not None and self.buffer.abandoned

    @property
    def overdue(self) -> bool:
        """Whether the run has not ended `LEFT_SECONDS` after its consumer left: something ignores the
        cancellation.
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
        """The text about an overdue run, to follow "run 'id'"."""
        return (
            f"whose stream was left, had not ended {LEFT_SECONDS:g} s after it was cancelled: a tool or a "
            "model swallows the cancellation; other runs of the session do not wait for it any longer"
        )

    def why_not_to_wait(self) -> str | None:
        """Return why this run will not end while the running code waits for it; None if it may end."""
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
        """Wait until the run has ended, its event loop does not run any more, or the run is overdue."""
        done = asyncio.wrap_future(self.done.future)
        while not self.done.done() and self.loop.is_running() and not self.overdue:
            await asyncio.wait([done], timeout=_LOOP_SECONDS)


current_session_runs: Final[ContextVar[frozenset[SessionRun]]] = ContextVar(
    "kern_session_runs", default=frozenset()
)
"""The entries of the runs that the running code belongs to."""
