"""Cancels a run that this process does not drive: a paused run, or a run of another process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from kern.db.base import Db, RunRow
from kern.errors import SessionOwnershipError
from kern.run.cancel import CancelResult
from kern.run.output import RunStatus
from kern.runtime.known_runs import known_run
from kern.runtime.one_process import claimed_elsewhere
from kern.runtime.resume import give_up
from kern.runtime.session import LiveSession

Use = Callable[[str, str | None], AbstractAsyncContextManager[LiveSession]]
"""Keeps a session in use, for a user or, with None, for trusted code."""


async def cancel_elsewhere(db: Db, run_id: str, user_id: str | None, use: Use) -> CancelResult:
    """Cancel a run by its id that this process does not drive.

    Raises:
        SessionOwnershipError: The run belongs to another user.
    """
    known = await known_run(db, run_id)
    known.check_owner(user_id)  # a durable run has its owner on record before its session is stored
    row = known.stored
    if row is None:  # unknown, or in progress in another process: rows are written at the end
        if not db.shared:
            return CancelResult.unknown
        return await _requested(db, run_id, user_id, use, row)
    if user_id is not None:
        session_row = await db.load_session(row.session_id)
        if session_row is None or session_row.user_id != user_id:
            raise SessionOwnershipError(row.session_id)
    paused = row.status == RunStatus.paused.value
    if paused and row.parent_run_id is None:
        async with use(row.session_id, user_id) as session:
            if await give_up(session, run_id):
                return CancelResult.cancelled
    again = row.status in (RunStatus.error.value, RunStatus.cancelled.value)
    repeated = again and (known.running is not None or await claimed_elsewhere(db, run_id))
    if not db.shared or not (paused or repeated):
        return CancelResult.too_late
    return await _requested(db, run_id, user_id, use, row)


async def _requested(
    db: Db, run_id: str, user_id: str | None, use: Use, before: RunRow | None
) -> CancelResult:
    """Send the request to the process that drives the run. If it paused or ended meanwhile, start over."""
    await db.request_cancel(run_id, user_id=user_id)
    now = await db.load_run(run_id)
    if now == before:
        return CancelResult.requested
    await db.cancel_requested([run_id], owners={run_id: user_id})  # deletes it: not for the next attempt
    return await cancel_elsewhere(db, run_id, user_id, use)
