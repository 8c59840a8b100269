"""A database in the memory of this process: for tests, and for applications that need not keep sessions."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, islice
from operator import attrgetter
from typing import Any, ClassVar, NoReturn, Self

from kern.db._memory_cancels import Cancels
from kern.db._memory_journal import Journals
from kern.db.base import ANY_TIME, NOBODY, ChangeRow, Commit, Committed, Db, RunRow, SessionInfo, SessionRow
from kern.db.journals import (
    ClaimedRun,
    EventRow,
    RunAbout,
    RunClaim,
    RunningRow,
    StepRow,
    SubmittedRow,
    TakenRun,
)
from kern.db.rows import applied, check_commit
from kern.errors import StoreError, UsageError


@dataclass(slots=True, frozen=True)
class _Lease:
    owner: str
    expires_at: float
    """By the monotonic clock, which cannot be set back."""


@dataclass(slots=True)
class _Session:
    row: SessionRow
    runs: dict[str, RunRow] = field(default_factory=dict)
    """In the order of their first commits; a replaced row keeps its place."""
    media: dict[str, bytes] = field(default_factory=dict)
    changes: list[ChangeRow] = field(default_factory=list)
    commits: set[str] = field(default_factory=set)
    """The ids of the commits without runs."""
    position: int = 0
    """The number of its last commit, counted over all sessions."""


class InMemoryDb(Db):
    """A database in the memory of this process.

    It behaves like the other databases, transactions and ownership included. Its content is lost with the
    object. Rows are immutable, so callers cannot change what is stored.
    """

    shared: ClassVar[bool] = False

    def __init__(self) -> None:
        # Held for single operations and for the resolver of a commit, never across an await.
        self._mutex = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        """In the order of their last commits."""
        self._commits = 0
        self._runs: dict[str, RunRow] = {}
        """In the order of their first commits; a replaced row keeps its place."""
        self._leases: dict[str, _Lease] = {}
        self._journals = Journals()
        self._cancels = Cancels(self._journals.has)

    def __copy__(self) -> Self:
        """The same object: a copied agent keeps its sessions where the original does."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same object."""
        return self

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "an InMemoryDb belongs to one process and cannot be pickled: for an agent that runs "
            "in another process, use no db, or one that both processes can open, such as "
            "SqliteDb('agents.db')"
        )

    @property
    def identity(self) -> Hashable:
        """The object itself."""
        return self

    async def load_session(self, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""
        with self._mutex:
            session = self._sessions.get(session_id)
            return session.row if session else None

    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit` in one step, or nothing."""
        with self._mutex:
            session = self._sessions.get(commit.session_id)
            stored = session.row if session else None
            check_commit(stored, commit)
            if stored is None:
                self._journals.check_owner(commit)
            repeated = self._check_runs(commit) or (session is not None and commit.id in session.commits)
            if repeated and stored is not None:
                return Committed(stored, repeated=True)
            write = commit.resolve(stored)
            row = applied(stored, commit, write)
            if commit.claim is not None:
                self._journals.run_ended(commit.claim)
            # Nothing from here on can fail, so the commit is made as a whole.
            session = self._sessions.pop(commit.session_id, None) or _Session(row)
            self._sessions[commit.session_id] = session  # as the last one
            session.row = row
            self._commits += 1
            session.position = self._commits
            if not commit.runs:
                session.commits.add(commit.id)
            for run in commit.runs if write.runs is None else write.runs:
                self._put_run(session, run)
            for change in write.changes:
                insort(session.changes, change, key=attrgetter("revision"))
            return Committed(row)

    async def load_runs(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        runner_id: str | None = None,
        top_level: bool = True,
    ) -> list[RunRow]:
        """The session's newest `limit` runs, the oldest of them first; None means all."""
        newest: list[RunRow] = []
        with self._mutex:
            session = self._sessions.get(session_id)
            for run in reversed(session.runs.values() if session else ()):
                if limit is not None and len(newest) >= limit:
                    break
                if top_level and run.parent_run_id is not None:
                    continue
                if runner_id is None or run.runner_id == runner_id:
                    newest.append(run)
        return newest[::-1]

    async def load_run(self, run_id: str) -> RunRow | None:
        """One run, or None."""
        with self._mutex:
            return self._runs.get(run_id)

    async def load_media(self, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these hashes that are stored with the session; the others are left out."""
        with self._mutex:
            session = self._sessions.get(session_id)
            media = session.media if session else {}
            return {name: media[name] for name in hashes if name in media}

    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""
        with self._mutex:
            session = self._sessions.get(session_id)
            return [change for change in (session.changes if session else ()) if change.revision > after]

    async def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """Sessions, the one with the latest commit first."""
        with self._mutex:
            chosen = (
                _info(session)
                for session in reversed(self._sessions.values())
                if (user_id is None or session.row.user_id == user_id)
                and (before is None or session.position < before)
            )
            return list(islice(chosen, limit))

    async def list_runs(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        status: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRow]:
        """Runs of any session that the application started, the newest first."""
        with self._mutex:
            session = None if session_id is None else self._sessions.get(session_id)
            if session is not None and (before is None or before in session.runs):
                known = session.runs  # the cost does not depend on other sessions
            else:
                known = self._runs
            rows: Iterator[RunRow] = reversed(known.values())
            if before is not None:
                rows = islice(dropwhile(lambda run: run.run_id != before, rows), 1, None)
            chosen = (
                run
                for run in rows
                if run.parent_run_id is None
                and (session_id is None or run.session_id == session_id)
                and (status is None or run.status == status)
                and (user_id is None or self._sessions[run.session_id].row.user_id == user_id)
            )
            return list(islice(chosen, limit))

    async def describe_session(
        self, session_id: str, *, name: str | None = None, summary: str | None = None
    ) -> bool:
        """Set what is not None; False if there is no such session."""
        with self._mutex:
            session = self._sessions.get(session_id)
            if session is None:
                return False
            if name is not None:
                session.row = replace(session.row, name=name)
            if summary is not None:
                session.row = replace(session.row, summary=summary)
            return True

    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its runs and its log; False if there is no such session."""
        with self._mutex:
            return self._delete(session_id)

    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of the user."""
        with self._mutex:
            self._cancels.user_deleted(user_id)
            self._journals.deleted(user_id=user_id)
            own = [name for name, session in self._sessions.items() if session.row.user_id == user_id]
            return sum([self._delete(session_id) for session_id in own])

    async def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Give `owner` the lease of that name for `seconds` from now."""
        now = time.monotonic()
        with self._mutex:
            lease = self._leases.get(name)
            if lease is not None and lease.owner != owner and now < lease.expires_at:
                return False
            self._leases[name] = _Lease(owner, now + seconds)
            return True

    async def release_lease(self, name: str, owner: str) -> None:
        """Give the lease back, if it is `owner`'s."""
        with self._mutex:
            lease = self._leases.get(name)
            if lease is not None and lease.owner == owner:
                del self._leases[name]

    async def request_cancel(self, run_id: str, *, user_id: str | None = None) -> None:
        """Ask for the run to be cancelled."""
        with self._mutex:
            self._cancels.request(run_id, user_id)

    async def cancel_requested(
        self,
        run_ids: Sequence[str],
        *,
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Which of these runs were asked to be cancelled; these requests, and older ones, are forgotten."""
        with self._mutex:
            return self._cancels.take(run_ids, owners, since)

    async def claim_run(
        self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
    ) -> ClaimedRun | None:
        """Give `owner` the run for `seconds`; None if another has it. See `kern.db.journals`."""
        with self._mutex:
            return self._journals.claim(run_id, owner, seconds, about, self._waits)

    def _waits(self, run_id: str) -> bool:
        run = self._runs.get(run_id)
        return run is not None and not run.ended

    async def append_steps(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow] = ()
    ) -> bool:
        """Keep steps and events, and renew the claim; False, and nothing is kept, if it does not hold."""
        with self._mutex:
            return self._journals.append(claim, seconds, steps, events)

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The events of the run after that number."""
        with self._mutex:
            return self._journals.events(run_id, after, limit)

    async def running_runs(
        self,
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunningRow]:
        """Runs that have begun and have not ended, the newest first."""
        with self._mutex:
            return self._journals.running(run_id, session_id, user_id, before, limit)

    async def release_claim(self, claim: RunClaim) -> None:
        """Let others have the run at once."""
        with self._mutex:
            self._journals.release(claim)

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Keep what a run is asked, for any process to begin it; False if the id is known."""
        with self._mutex:
            session = self._sessions.get(run.about.session_id)
            row = None if session is None else session.row
            return run.run_id not in self._runs and self._journals.submit(run, row)

    async def load_request(self, run_id: str) -> bytes | None:
        """What a run that has not ended was asked; see `kern.db.journals`."""
        with self._mutex:
            return self._journals.request(run_id)

    async def take_run(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run that nobody has."""
        with self._mutex:
            return self._journals.take(owner, seconds, runner_ids)

    async def forget_run(self, run_id: str, owner: str | None = None) -> bool:
        """Delete the request, the steps and the claim, if it is `owner`'s."""
        with self._mutex:
            return self._journals.forget(run_id, owner)

    async def unfinished_runs(self, *, limit: int = 100) -> list[str]:
        """The runs that were submitted or have steps on record, and that no process has, the oldest first."""
        with self._mutex:
            return self._journals.unfinished(limit)

    async def aclose(self) -> None:
        """Do nothing: there are no connections, and the content stays."""

    def _check_runs(self, commit: Commit) -> bool:
        """Whether the commit was made before.

        Raises:
            StoreError: A run's id is taken by a run of another session.
        """
        for run in commit.runs:
            known = self._runs.get(run.run_id)
            if known is not None and known.session_id != run.session_id:
                raise StoreError(f"run_id {run.run_id!r} belongs to a run of another session")
        first = self._runs.get(commit.runs[0].run_id) if commit.runs else None
        return first is not None and first.generation >= commit.runs[0].generation

    def _delete(self, session_id: str) -> bool:
        session = self._sessions.pop(session_id, None)
        self._journals.deleted(session_id=session_id, run_ids=() if session is None else session.runs)
        if session is None:
            return False
        self._cancels.runs_gone(session.runs)
        for run_id in session.runs:
            del self._runs[run_id]
        return True

    def _put_run(self, session: _Session, row: RunRow) -> None:
        known = self._runs.get(row.run_id)
        if known is None or known.generation < row.generation:
            if row.media:
                session.media |= row.media
                row = replace(row, media={})
            self._runs[row.run_id] = session.runs[row.run_id] = row
            if row.ended and self._cancels.requests:
                self._cancels.runs_gone([row.run_id])


def _info(session: _Session) -> SessionInfo:
    row = session.row
    return SessionInfo(
        session_id=row.session_id,
        user_id=row.user_id,
        name=row.name,
        summary=row.summary,
        created_at=row.created_at,
        updated_at=row.updated_at,
        position=session.position,
    )
