"""The end of a service: runs in flight end, or are cancelled, and their ends are committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kern.errors import UsageError
from kern.runtime.active_runs import ActiveRun, active_runs
from kern.runtime.debug import log
from kern.runtime.run_ends import current_started_runs

SHUTDOWN_SECONDS = 10.0
END_SECONDS = 30.0
"""How long runs that were cancelled are waited for: their commits have a deadline of their own."""

LOOK_SECONDS = 0.2
"""How often it is looked whether an event loop has been closed, whose runs are gone then."""


async def shutdown(timeout: float | None = SHUTDOWN_SECONDS) -> None:
    """Let the runs of this process come to their ends, and return when these are committed.

    For the end of a service, such as a web application's lifespan: servers cancel requests, or drop them,
    without waiting for what these do. Until it returns, no new run begins on this event loop
    (`ShutdownError`); runs inside of runs do. Runs of other loops are waited for and cancelled as well, those
    of sync code included. May be called again, and afterwards runs begin as before.

    Args:
        timeout: Seconds for runs to end by themselves; those that have not are cancelled, as by
            `cancel_run`. 0 cancels at once; None waits for as long as it takes.

    Raises:
        UsageError: Called inside of a run, which would wait for itself.
    """
    if current_started_runs.get() is not None:
        raise UsageError(
            "kern.shutdown() was called inside a run, and would wait for that run to end: call it outside"
        )
    waiting: dict[ActiveRun, asyncio.Future[None]] = {}
    with active_runs.closed(asyncio.get_running_loop()):
        await _ended(waiting, None if timeout is None else time.monotonic() + timeout)
        runs = [run for run in active_runs if run.alive]
        for run in runs:
            if run.durable:
                run.release()
            else:
                run.cancel_token.stop()
        await _ended(waiting, time.monotonic() + END_SECONDS, runs)
    for run in runs:
        if run.alive:
            log.error(
                "run %s had not ended %g s after it was cancelled; shutdown does not wait for it any longer",
                run.request.run_id,
                END_SECONDS,
            )


async def _ended(
    waiting: dict[ActiveRun, asyncio.Future[None]],
    deadline: float | None,
    runs: Sequence[ActiveRun] | None = None,
) -> None:
    """Wait for runs, by default for all of the process, those that begin meanwhile included."""
    while alive := [run for run in (active_runs if runs is None else runs) if run.alive]:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        pause = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
        for run in alive:
            if run not in waiting:
                waiting[run] = asyncio.wrap_future(run.done.future)
        futures = [waiting[run] for run in alive]
        await asyncio.wait(futures, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
