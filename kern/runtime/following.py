"""Following a run from any process: what it tells is read from the database, where its steps are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kern.db.base import Db, RunRow
from kern.db.journals import JournalDb, RunningRow
from kern.durable.outbox import events_of
from kern.errors import SessionOwnershipError, UsageError
from kern.run.events import (
    Event,
    EventSource,
    RunCancelledEvent,
    RunCompletedEvent,
    RunErrorEvent,
    RunPausedEvent,
)
from kern.run.output import AnyRunOutput, RunOutput, RunStatus, TeamRunOutput
from kern.runtime.stored_runs import load_output

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks at the database, while nothing comes."""


async def follow(db: Db, run_id: str, *, after: int, user_id: str | None) -> AsyncIterator[Event]:
    """What the run tells after that number, as it comes, until it has ended or waits for a person.

    Raises:
        UsageError: There is no such run.
        SessionOwnershipError: It is another user's.
        StoreError: The database cannot be read.
    """
    if not isinstance(db, JournalDb):
        raise UsageError(f"{db!r} keeps no events, so that no run of it can be followed")
    await _check_owner(db, db, run_id, user_id)
    pause, ends = FIRST_PAUSE, False
    while True:
        # Looked at first: what a run has told is there before its end is.
        running = await db.running_runs(run_id=run_id)
        rows = await db.load_events(run_id, after=after)
        for row in rows:
            for event in events_of(run_id, row):
                if event.seq > after:
                    yield event
            after = max(after, row.last_seq)
        if rows:
            pause, ends = FIRST_PAUSE, False
            continue
        if not running:
            stored = await db.load_run(run_id)
            if stored is not None or ends:
                break
            ends = True  # looked at between its claim and its first step
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    if stored is None:
        raise _unknown(run_id)
    last = await _terminal(db, stored)
    if last is not None:
        # Its number is the one after the last that is kept.
        before = [
            event
            for row in await db.load_events(run_id, after=max(0, after - 2))
            for event in events_of(run_id, row)
        ]
        last.seq, last.created_at = 1, stored.created_at
        if before:
            last.seq, last.created_at = before[-1].seq + 1, before[-1].created_at
        if last.seq > after:
            yield last


async def _check_owner(db: Db, journals: JournalDb, run_id: str, user_id: str | None) -> None:
    running = await journals.running_runs(run_id=run_id)
    if running:
        about = running[0].about
        session_id, owner = about.session_id, about.user_id
    else:
        row = await db.load_run(run_id)
        if row is None:
            raise _unknown(run_id)
        session = await db.load_session(row.session_id)
        session_id, owner = row.session_id, None if session is None else session.user_id
    if user_id is not None and owner != user_id:
        raise SessionOwnershipError(session_id)


def _unknown(run_id: str) -> UsageError:
    return UsageError(
        f"there is no run {run_id!r} to follow: it is neither stored nor running with a journal in this "
        "database"
    )


async def _terminal(db: Db, row: RunRow) -> Event | None:
    """The last event of a run that has ended, or that waits for a person."""
    output = await load_output(db, row)
    source = _source(output, row)
    if output.status is RunStatus.completed:
        return RunCompletedEvent(
            source,
            output.content,
            output.content_type,
            output.metrics.to_dict(),
            output.session_state,
            output.metadata or None,
        )
    if output.status is RunStatus.paused:
        return RunPausedEvent(source, output.requirements)
    if output.status is RunStatus.cancelled:
        return RunCancelledEvent(source)
    return RunErrorEvent(source, output.error or "", output.error_type or "KernError")


def _source(output: AnyRunOutput, row: RunRow) -> EventSource:
    if isinstance(output, TeamRunOutput):
        name = output.team_name or output.team_id or row.runner_id
        return EventSource(
            row.run_id,
            row.session_id,
            team_id=output.team_id,
            team_name=output.team_name,
            is_team=True,
            path=(name,),
        )
    name = output.agent_name or output.agent_id or row.runner_id
    return EventSource(
        row.run_id, row.session_id, agent_id=output.agent_id, agent_name=output.agent_name, path=(name,)
    )


async def running_outputs(
    db: Db, *, session_id: str | None, user_id: str | None, limit: int, before: str | None
) -> list[AnyRunOutput]:
    """The runs with a journal that have begun and have not ended, the newest first."""
    if not isinstance(db, JournalDb):
        return []
    rows = await db.running_runs(session_id=session_id, user_id=user_id, limit=limit, before=before)
    return [_running_output(row) for row in rows]


def _running_output(row: RunningRow) -> AnyRunOutput:
    """A run that goes on, as an output."""
    about = row.about
    output: AnyRunOutput
    if about.is_team:
        output = TeamRunOutput(run_id=row.run_id, session_id=about.session_id, team_id=about.runner_id)
    else:
        output = RunOutput(run_id=row.run_id, session_id=about.session_id, agent_id=about.runner_id)
    output.user_id, output.created_at, output.status = about.user_id, int(row.begun_at), RunStatus.running
    return output
