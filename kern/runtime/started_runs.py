"""Which runs a call, or a run, has started itself: they do not outlive it when it is cut short.

Found by a context variable, so that it makes no difference how a run is started: awaited, in a task, in a
thread, by a stream, with or without a `run_context`.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol

from kern._sync.end import End
from kern._sync.shield import uninterrupted
from kern.runtime.debug import log
from kern.state.transaction import keeps_edits

GIVE_UP_SECONDS = 15.0
"""How long the end of a call waits for runs that it has started, once they are cancelled."""


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

    def __enter__(self) -> None:
        """Wrap application code: the runs that it starts are recorded here."""
        self._token = _current.set(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)

    async def __aenter__(self) -> None:
        """Wrap a call of an application's function."""
        self._token = _current.set(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
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


_current: ContextVar[StartedRuns | None] = ContextVar("kern_started", default=None)


def current_started_runs() -> StartedRuns | None:
    """The call, or the run, that the running code belongs to."""
    return _current.get()
