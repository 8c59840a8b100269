"""The shutdown of a service: runs in progress end or are cancelled, and their results are committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kern._numbers import check_seconds
from kern.errors import UsageError
from kern.runtime.active_runs import ActiveRun, active_runs
from kern.runtime.debug import log
from kern.runtime.run_ends import current_started_runs

SHUTDOWN_SECONDS = 10.0
END_SECONDS = 30.0
"""How long to wait for runs that were cancelled: their commits have their own deadline."""

LOOK_SECONDS = 0.2
"""How often to check whether an event loop was closed, whose runs cannot end then."""


async def shutdown(timeout: float | None = SHUTDOWN_SECONDS) -> None:
    """Wait until the runs of this process have ended and are committed; cancel those that take too long.

    Call this when a service ends, such as in the lifespan of a web application: servers cancel or drop
    requests without waiting for their work. Until it returns, new runs on this event loop are refused with
    `ShutdownError`, except runs inside runs. Runs on other event loops, and those of sync code, are waited
    for and cancelled, too. It may be called again; afterwards, runs can start as before.

    Args:
        timeout: How many seconds runs may take to end by themselves. After that they are cancelled, as by
            `cancel_run`, or released, if another process can resume them. 0: at once; None: wait for ever.

    Raises:
        UsageError: Called inside a run, which would wait for itself; or `timeout` is no number of seconds.
    """
    if timeout is not None:
        check_seconds("timeout", timeout, zero=True)
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
    """Wait for runs; by default for all runs of the process, including those that begin meanwhile."""
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
