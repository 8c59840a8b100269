"""Following a run from any process: its events are read from the database, where its steps are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kern.db.base import Db
from kern.db.journals import LAST_NUMBER, JournalDb, RunningRow
from kern.durable.deltas import DeltaStream
from kern.errors import UsageError
from kern.run.events import Event
from kern.run.output import AnyRunOutput, RunOutput, RunStatus, TeamRunOutput
from kern.runtime.known_runs import running_run
from kern.runtime.tail import Tail


async def follow(
    db: Db, run_id: str, *, after: int, user_id: str | None, deltas: DeltaStream | None = None
) -> AsyncIterator[Event]:
    """Iterate over the events of a run, as they come, until it has ended or pauses.

    Args:
        db: The database of the run.
        run_id: The id of the run.
        after: Yield only events with a `seq` above this; 0: all.
        user_id: The user who asks, who must own the session. None is trusted code: no check.
        deltas: The stream of the events between steps; None: they are in the database.

    Raises:
        UsageError: There is no such run, or `after` is not a valid `seq`.
        SessionOwnershipError: The run belongs to another user.
        SessionDeletedError: The session was deleted meanwhile.
        StoreError: The database cannot be read.
    """
    if type(after) is not int or not 0 <= after <= LAST_NUMBER:
        raise UsageError(f"after must be the seq of the last event that you received, or 0, not {after!r}")
    tail = await Tail.of(db, run_id, deltas, after, user_id)
    seen = after
    while True:
        events, up_to = await tail.after(seen)
        if up_to <= seen:
            return
        seen = up_to
        for event in events:
            yield event


async def running_outputs(
    db: Db, *, session_id: str | None, user_id: str | None, limit: int, before: str | None
) -> list[AnyRunOutput]:
    """Return the runs with a journal that have begun and not ended, the newest first.

    Raises:
        UsageError: The run `before` is not in progress any more.
    """
    if not isinstance(db, JournalDb):
        return []
    rows = await db.running_runs(session_id=session_id, user_id=user_id, limit=limit, before=before)
    if before is not None and not rows and await running_run(db, before) is None:
        raise UsageError(
            f"list_runs: before={before!r} is not in progress any more; start again from the first page"
        )
    return [running_output(row) for row in rows]


def running_output(row: RunningRow) -> AnyRunOutput:
    """Make the output of a run in progress, with status RUNNING."""
    about = row.about
    output: AnyRunOutput
    if about.is_team:
        output = TeamRunOutput(run_id=row.run_id, session_id=about.session_id, team_id=about.runner_id)
    else:
        output = RunOutput(run_id=row.run_id, session_id=about.session_id, agent_id=about.runner_id)
    output.user_id, output.created_at, output.status = about.user_id, int(row.begun_at), RunStatus.running
    return output
