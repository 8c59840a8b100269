"""Identifies the run that a follower named by its id: after a deletion, another run may get the same id."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakValueDictionary

from kern.db.base import Db, RunRow
from kern.db.journals import JournalDb, RunningRow
from kern.errors import KernError, SessionDeletedError, SessionOwnershipError, UsageError


@dataclass(slots=True, frozen=True)
class Identity:
    """Distinguishes a run from another one with the same id.

    Args:
        session_id: The session of the run.
        user_id: The owner of the session.
        begun_at: When the run was claimed, or continued after a pause; None while no process drives it.
        generation: The generation of the session; None until the session is stored.
    """

    session_id: str
    user_id: str | None
    begun_at: float | None = None
    generation: str | None = None

    def check_owner(self, user_id: str | None) -> None:
        """Check that the run belongs to this user; None: no check.

        Raises:
            SessionOwnershipError: It belongs to another user.
        """
        if user_id is not None and self.user_id != user_id:
            raise SessionOwnershipError(self.session_id)


class Followed:
    """A run that is followed.

    Args:
        db: The database of the run.
        run_id: The id of the run.
        identity: The identity of the run when the follower began.
    """

    def __init__(self, db: JournalDb, run_id: str, identity: Identity) -> None:
        self._db = db
        self._run_id = run_id
        self._identity = identity

    @property
    def session_id(self) -> str:
        """The session of the run."""
        return self._identity.session_id

    async def running(self, db: Db) -> tuple[RunningRow | None, RunRow | None]:
        """Read the run from the database: in progress, or stored, or both while it is being continued.

        If this succeeds, rows that were read before this call belong to this run, not to a later one.

        Raises:
            SessionDeletedError: The session was deleted, even if another session has its id now.
        """
        running = next(iter(await self._db.running_runs(run_id=self._run_id)), None)
        known = self._identity
        if running is not None:
            if running.about.session_id != known.session_id:
                raise SessionDeletedError(known.session_id)
            if running.begun_at == known.begun_at:
                return running, None
        stored = await db.load_run(self._run_id)
        if stored is not None:
            await self._check_stored(db, stored)
        elif running is not None:  # a continuation has a stored run
            raise SessionDeletedError(known.session_id)
        if running is not None:
            self._identity = replace(self._identity, begun_at=running.begun_at)
        return running, stored

    async def _check_stored(self, db: Db, stored: RunRow) -> None:
        known = self._identity
        session = await db.load_session(known.session_id) if stored.session_id == known.session_id else None
        if session is None or known.generation not in (None, session.generation):
            raise SessionDeletedError(known.session_id)
        if known.user_id not in (None, session.user_id):
            raise SessionDeletedError(known.session_id)
        self._identity = replace(known, generation=session.generation)

    async def missing_error(self, db: Db) -> KernError:
        """The error for a run that is neither stored nor in progress any more."""
        known = self._identity
        session = await db.load_session(known.session_id)
        if session is not None and session.user_id != known.user_id:  # so the run was refused
            return SessionOwnershipError(known.session_id)
        if await self._db.load_events(self._run_id, limit=1):  # only a deletion also deletes the events
            return unknown(self._run_id)
        return SessionDeletedError(known.session_id)


def unknown(run_id: str) -> UsageError:
    """The error for a run that does not exist."""
    return UsageError(
        f"there is no run {run_id!r} to follow: it is neither stored nor running with a journal in this "
        "database"
    )


class _Lookup:
    """One query for the identity of a run, shared by all callers that need it at the same time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.answer: Identity | None = None


_lookups: Final[WeakValueDictionary[Hashable, _Lookup]] = WeakValueDictionary()


async def identity_of(db: Db, journals: JournalDb, run_id: str) -> Identity:
    """The identity of the run that has this id now.

    Raises:
        UsageError: There is no such run.
    """
    key = (asyncio.get_running_loop(), db.identity, run_id)
    lookup = _lookups.get(key)
    if lookup is None:
        lookup = _lookups[key] = _Lookup()
    async with lookup.lock:
        if lookup.answer is None:
            lookup.answer = await _look_up(db, journals, run_id)
            if _lookups.get(key) is lookup:
                del _lookups[key]  # later callers query again
    return lookup.answer


async def _look_up(db: Db, journals: JournalDb, run_id: str) -> Identity:
    running = next(iter(await journals.running_runs(run_id=run_id)), None)
    if running is not None and running.about.user_id is not None:
        return Identity(running.about.session_id, running.about.user_id, running.begun_at)
    if running is None:
        row = await db.load_run(run_id)
        session = None if row is None else await db.load_session(row.session_id)
        if session is None:
            raise unknown(run_id)
        return Identity(session.session_id, session.user_id, None, session.generation)
    # A call without a user started or continued it, perhaps in a user's session.
    session_id = running.about.session_id
    session = await db.load_session(session_id)
    if session is None:
        return Identity(session_id, None, running.begun_at)
    return Identity(session_id, session.user_id, running.begun_at, session.generation)
