"""Cancels a run that this process does not drive: a paused run, or a run of another process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from kern.db.base import Db, RunRow
from kern.errors import SessionOwnershipError, UsageError
from kern.run.cancel import CancelResult
from kern.run.output import RunStatus
from kern.runtime.known_runs import known_run, running_run
from kern.runtime.one_process import claimed_elsewhere
from kern.runtime.resume import give_up
from kern.runtime.session import LiveSession

Use = Callable[[str, str | None], AbstractAsyncContextManager[LiveSession]]
"""Keeps a session in use, for a user or, with None, for trusted code."""


async def cancel_elsewhere(db: Db, run_id: str, user_id: str | None, use: Use) -> CancelResult:
    """Cancel a run by its id that this process does not drive.

    Raises:
        SessionOwnershipError: The run belongs to another user.
        UsageError: It is the run of a team member and paused, and its team's run is not being continued.
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
    if paused and row.parent_run_id is not None:
        await _check_continued(db, row)
    again = row.status in (RunStatus.error.value, RunStatus.cancelled.value)
    repeated = again and (known.running is not None or await claimed_elsewhere(db, run_id))
    if not db.shared or not (paused or repeated):
        return CancelResult.too_late
    return await _requested(db, run_id, user_id, use, row)


async def _check_continued(db: Db, row: RunRow) -> None:
    """Check that a process continues the run of which a paused member's run is a part, and can cancel that.

    Raises:
        UsageError: The whole run is paused, so there is nobody who could cancel a part of it.
    """
    top: RunRow | None = row
    while top is not None and top.parent_run_id is not None:
        top = await db.load_run(top.parent_run_id)
    if top is None or top.status != RunStatus.paused.value:
        return
    if await running_run(db, top.run_id) is None and not await claimed_elsewhere(db, top.run_id):
        raise UsageError(
            f"run {row.run_id!r} is a team member's, and paused as a part of run {top.run_id!r}: cancel that "
            "one, or reject what the member's run asks and continue that one"
        )


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
