"""Answers that need several reads, between which a run may end, or a session be stored."""

from __future__ import annotations

from typing import NamedTuple

from kern.db.base import Db, RunRow
from kern.db.journals import JournalDb, RunningRow
from kern.errors import SessionOwnershipError
from kern.run.output import RunStatus


class KnownRun(NamedTuple):
    """What the database has of a run.

    Args:
        running: The run, if it has a journal and was begun or submitted and has not ended.
        stored: Its stored row: it has ended, or paused. A run that is continued, or repeated, has both.
    """

    running: RunningRow | None
    stored: RunRow | None

    def check_owner(self, user_id: str | None) -> None:
        """Check that the run in progress is this user's; None is not checked.

        Raises:
            SessionOwnershipError: It is another user's.
        """
        if user_id is not None and self.running is not None and self.running.about.user_id != user_id:
            raise SessionOwnershipError(self.running.about.session_id)


async def running_run(db: Db, run_id: str) -> RunningRow | None:
    """The run with a journal that was begun or submitted and has not ended; None if there is none."""
    if not isinstance(db, JournalDb):
        return None
    return next(iter(await db.running_runs(run_id=run_id)), None)


async def known_run(db: Db, run_id: str) -> KnownRun:
    """Look a run up among the stored ones and among those in progress.

    One transaction stores the end of a run and removes it from the runs in progress. So the stored run is
    read last: a run that is no longer in progress is stored by then, or was deleted. The first read spares
    the others for a run that has completed, and will not be in progress again.
    """
    stored = await db.load_run(run_id)
    if stored is not None and stored.status == RunStatus.completed.value:
        return KnownRun(None, stored)
    running = await running_run(db, run_id)
    return KnownRun(running, stored if running is not None else await db.load_run(run_id))


async def check_owner_again(db: Db, session_id: str, user_id: str | None) -> None:
    """Check the owner after reading a session that was not stored before, so that it could not be checked.

    Raises:
        SessionOwnershipError: It has been stored since, for another user.
    """
    row = await db.load_session(session_id)
    if row is not None and row.user_id != user_id:
        raise SessionOwnershipError(session_id)
