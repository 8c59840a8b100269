"""Deletes sessions that runs may be using: the runs end first, so that they write nothing afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kern.db.base import Db
from kern.errors import RunConflictError
from kern.runtime.active_runs import ActiveRun, active_runs, is_inside
from kern.runtime.session import LiveSession, live_sessions

CANCEL_SECONDS = 10.0
"""How long a deletion waits for the runs that it cancelled."""


async def delete_session(session: LiveSession, *, cancel: bool) -> bool:
    """Delete the session with all its runs. Return False if it is not stored.

    Args:
        session: The session, which the caller has in use.
        cancel: Cancel the runs of the session in this process, and wait until they have ended.

    Raises:
        RunConflictError: A run of the session is in progress; nothing is deleted.
    """
    db, session_id = session.db, session.session_id
    if cancel:
        await _end(_runs(db, session_id=session_id))
    if session.busy:
        raise RunConflictError(
            f"session {session_id!r} has a run in progress; cancel it first, or delete with cancel=True"
        )
    begun = session.exists  # perhaps by a durable run in progress: its steps and request are deleted, too
    session.forget()  # later users load the session again; present ones fail when they commit
    return await db.delete_session(session_id) or begun


async def delete_user(db: Db, user_id: str, *, cancel: bool) -> int:
    """Delete all sessions of a user, in one transaction. Return how many there were.

    Args:
        db: The database.
        user_id: The user.
        cancel: Cancel the user's runs in this process, and wait until they have ended.

    Raises:
        RunConflictError: A run of the user is in progress; nothing is deleted.
    """
    if cancel:
        await _end(_runs(db, user_id=user_id))
    if in_progress := _runs(db, user_id=user_id):
        raise RunConflictError(
            f"user {user_id!r} has runs in progress ({_names(in_progress)}); cancel them first, or delete "
            "with cancel=True"
        )
    for session in live_sessions.of_user(db, user_id):
        session.forget()
    return await db.delete_user(user_id)


def _runs(db: Db, *, session_id: str | None = None, user_id: str | None = None) -> list[ActiveRun]:
    """Return the runs of this process in a session or of a user, also those that wait for their session."""
    identity = db.identity
    return [
        run
        for run in active_runs
        if run.alive
        and run.request.db.identity == identity
        and (session_id is None or run.request.session_id == session_id)
        and (user_id is None or run.request.user_id == user_id)
    ]


async def _end(runs: Sequence[ActiveRun]) -> None:
    """Cancel the runs, and wait until they are committed.

    Raises:
        RunConflictError: A run does not end, or the calling code is a part of it.
    """
    if own := [run for run in runs if is_inside(run)]:
        raise RunConflictError(
            f"run {own[0].request.run_id!r} cannot delete its own session or user: the deletion "
            "would wait for the run to end; delete after the run"
        )
    for run in runs:
        run.cancel_token.stop()
    ends = [asyncio.wrap_future(run.done.future) for run in runs]
    if ends:
        await asyncio.wait(ends, timeout=CANCEL_SECONDS)
    if left := [run for run in runs if run.alive]:
        raise RunConflictError(
            f"run {_names(left)} had not ended {CANCEL_SECONDS:g} s after it was cancelled: a "
            "tool or a model swallows the cancellation; nothing was deleted"
        )


def _names(runs: Sequence[ActiveRun]) -> str:
    return ", ".join(repr(run.request.run_id) for run in runs)
