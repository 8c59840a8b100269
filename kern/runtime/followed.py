"""Which run it is that is followed by an id: after its session is deleted, another run may get the id."""

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
    """What tells a run from another one with its id.

    Args:
        session_id: Its session.
        user_id: The owner of the session.
        begun_at: When it was claimed, or continued after a pause; None while nothing drives it.
        generation: The generation of its session; None until that is stored.
    """

    session_id: str
    user_id: str | None
    begun_at: float | None = None
    generation: str | None = None

    def check_owner(self, user_id: str | None) -> None:
        """Check that the run is this user's; None is not checked.

        Raises:
            SessionOwnershipError: It is another user's.
        """
        if user_id is not None and self.user_id != user_id:
            raise SessionOwnershipError(self.session_id)


class Followed:
    """One run that is followed.

    Args:
        db: Where the run is.
        run_id: Its id.
        identity: What it was when it was found.
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
        """What the database has of the run: it goes on, or is stored, or is both while it is continued.

        What was read of the run before this call is of this run.

        Raises:
            SessionDeletedError: Its session was deleted, whoever has its id now.
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

    async def gone(self) -> KernError:
        """The error for a run that is neither stored nor goes on any more."""
        if await self._db.load_events(self._run_id, limit=1):  # only a deletion also deletes the events
            return unknown(self._run_id)
        return SessionDeletedError(self._identity.session_id)


def unknown(run_id: str) -> UsageError:
    """The error for a run that is not there."""
    return UsageError(
        f"there is no run {run_id!r} to follow: it is neither stored nor running with a journal in this "
        "database"
    )


class _Question:
    """Which run it is: asked once for all who ask at the same time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.answer: Identity | None = None


_questions: Final[WeakValueDictionary[Hashable, _Question]] = WeakValueDictionary()


async def identity_of(db: Db, journals: JournalDb, run_id: str) -> Identity:
    """Which run has that id now.

    Raises:
        UsageError: None has.
    """
    key = (asyncio.get_running_loop(), db.identity, run_id)
    question = _questions.get(key)
    if question is None:
        question = _questions[key] = _Question()
    async with question.lock:
        if question.answer is None:
            question.answer = await _asked(db, journals, run_id)
            if _questions.get(key) is question:
                del _questions[key]  # who asks later has another question
    return question.answer


async def _asked(db: Db, journals: JournalDb, run_id: str) -> Identity:
    running = next(iter(await journals.running_runs(run_id=run_id)), None)
    if running is not None and running.about.user_id is not None:
        return Identity(running.about.session_id, running.about.user_id, running.begun_at)
    if running is None:
        row = await db.load_run(run_id)
        session = None if row is None else await db.load_session(row.session_id)
        if session is None:
            raise unknown(run_id)
        return Identity(session.session_id, session.user_id, None, session.generation)
    # Whoever may do everything has begun or continued it, perhaps in a user's session.
    session_id = running.about.session_id
    session = await db.load_session(session_id)
    if session is None:
        return Identity(session_id, None, running.begun_at)
    return Identity(session_id, session.user_id, running.begun_at, session.generation)
