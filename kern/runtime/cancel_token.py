"""Whether a run was stopped before it ended: decided once, under one lock."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


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
