"""The ends of runs that are still to come, and which of them the running code belongs to."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar, Token

from kern._sync.end import End
from kern._sync.waiting import contexts_of_waiters
from kern.runtime.debug import log
from kern.runtime.portal import calling_thread
from kern.runtime.stream import EventBuffer

_LOOP_SECONDS = 0.2
"""How often one who waits for another loop's run looks whether that loop runs."""

current_session_runs: ContextVar[frozenset[SessionRun]] = ContextVar("kerninside", default=frozenset())
"""The ends of the runs that the running code belongs to."""


LEFT_SECONDS = 10.0
"""How long others wait for a run whose consumer has walked away, and that ends in the background."""


class SessionRun:
    """The end of a run that is still to come.

    Args:
        run_id: The run.
        buffer: Its events; None if nobody listens.
    """

    def __init__(self, run_id: str, buffer: EventBuffer | None) -> None:
        self.run_id = run_id
        self._buffer = buffer
        self._left_at: float | None = None
        self._logged = False
        self.token: Token[frozenset[SessionRun]] | None = None
        self.exclusive = False
        """The run has the session to itself."""
        self.done: End = End()
        self._loop = asyncio.get_running_loop()

    @property
    def abandoned(self) -> bool:
        """The consumer of the run's events has walked away."""
        return self._buffer is not None and self._buffer.abandoned

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
            f"whose stream was left, has not ended {LEFT_SECONDS:g} s after it was cancelled: a tool or a "
            "model swallows the cancellation; other runs of the session wait for it no longer"
        )

    def why_not_to_wait(self) -> str | None:
        """Why this run will not end, as long as the running code waits for that."""
        if self.overdue:
            return self.complaint
        if any(
            self in context.get(current_session_runs, ()) for context in contexts_of_waiters(calling_thread())
        ):
            return (
                "one of whose tools has started this run in a thread of its own, and waits for it; start it "
                "by asyncio.to_thread or contextvars.copy_context().run, and it is a part of that run"
            )
        return None

    async def wait_until_over(self) -> None:
        """Wait until the run is committed, or its event loop stands still, on which it would end, or until it
        is overdue.
        """
        done = asyncio.wrap_future(self.done.future)
        while not self.done.done() and self._loop.is_running() and not self.overdue:
            await asyncio.wait([done], timeout=_LOOP_SECONDS)
