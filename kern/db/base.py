"""The database port: sessions, runs, the log of state changes. Seventeen verbs, all of them async."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from kern.db.journals import RunClaim
from kern.errors import SessionDeletedError, SessionOwnershipError
from kern.run.output import RunStatus

NOBODY: Mapping[str, str | None] = {}
"""No owners are known."""

ANY_TIME: Mapping[str, float] = {}
"""A request to cancel counts, however old it is."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionRow:
    """A session as it is stored.

    Args:
        state: The session state as JSON text (UTF-8).
        state_version: The application's own version of the state's shape, for its migrations.
        revision: How many commits the state has seen.
        version: How many times this row's state was written; what optimistic writers compare.
        name: What a person calls it.
        summary: What was said so far, in short.
        created_at, updated_at: Seconds since the epoch, by the clock of the process that wrote; for people.
            Nothing is ordered by them, since a clock may be set back.
        generation: Tells the session from an earlier one of the same id that was deleted; set by the first
            commit.
        position: The session's place in the order of last commits, if the database knows a row again by it;
            else 0.
    """

    session_id: str
    user_id: str | None
    state: bytes = b"{}"
    state_version: int = 0
    revision: int = 0
    version: int = 0
    name: str | None = None
    summary: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    generation: str = field(default="", compare=False)
    position: int = field(default=0, compare=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionInfo:
    """A session as a listing shows it: everything but its state, which may be large.

    Args:
        session_id: The session.
        user_id: Its owner; None if it has none.
        name: What a person calls it.
        summary: What was said so far, in short.
        created_at, updated_at: Seconds since the epoch, by the clock of the process that wrote; for people.
        position: Its place in the order of last commits, which the next page is asked for with (`before=`).
            It rises with every commit to the session. No two sessions have the same, whatever clocks say.
    """

    session_id: str
    user_id: str | None = None
    name: str | None = None
    summary: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    position: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class RunRow:
    """A run as it is stored.

    Args:
        runner_id: The agent or team that ran.
        parent_run_id: None for a run that the application started.
        status: A `RunStatus` value.
        generation: 0 for the first write of a run; one more each time a paused run is continued, or a failed
            one is tried again. A row that is present with this generation or a later one makes the whole
            commit a no-op.
        data: The output as JSON text (UTF-8).
        created_at: Seconds since the epoch, by the clock of the process that ran it; for people. Runs of a
            session are in the order in which they were first stored.
        media: The bytes that `data` names by their SHA-256 in hex. They are stored with the session, once,
            and come back by `load_media`; a row that is loaded holds none.
    """

    run_id: str
    session_id: str
    runner_id: str
    parent_run_id: str | None = None
    status: str
    generation: int = 0
    data: bytes
    created_at: float
    media: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def ended(self) -> bool:
        """It does not wait for a person."""
        return self.status != RunStatus.paused.value


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeRow:
    """One commit to a session's state: who changed what.

    Args:
        revision: The revision that the commit made.
        patch: JSON text: a list of RFC 6902 operations, each with the value that it replaced as "old".
        agent_path: JSON text: a list of the names from the top-level run down.
    """

    session_id: str
    revision: int
    patch: bytes
    agent_path: bytes
    run_id: str | None
    tool: str | None
    tool_call_id: str | None
    created_at: float


@dataclass(slots=True, frozen=True)
class StateWrite:
    """What the resolver of a commit wants written.

    Args:
        state: The new state; None leaves the stored one and its version as they are.
        revision: The state's revision after this commit.
        changes: Rows for the log, their revisions final.
        runs: Rows to write in place of the commit's, of the same runs, where what the resolver found belongs
            in them; None for the commit's own.
    """

    state: bytes | None
    revision: int
    state_version: int = 0
    changes: Sequence[ChangeRow] = ()
    runs: Sequence[RunRow] | None = None


StateResolver = Callable[[SessionRow | None], StateWrite]
"""Pure; called on the event loop or in a thread, with the session as it is stored right then. A database that
tries a commit again calls it again: what the last call says is written. The first call may be with what the
caller knows (`Commit.known`), if nothing is written unless that is what is stored."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Commit:
    """What one transaction is to write: the end of a run, or a change made from outside of runs.

    Args:
        resolve: Decides the state with the stored row at hand: the place where processes are merged.
        runs: The rows of the run and of its members' runs; the first is the top-level one.
        summary: What was said so far, in short; None leaves what is stored.
        known: The session as the caller last saw it stored; None if it was not. The commit is for that
            generation of the session, and no other. A database may try to write from it without reading.
        id: What a commit without runs is recognised by if it comes twice; others are by their first run.
        claim: The claim to the run that ends, if it has a journal; see `kern.db.journals`.
    """

    session_id: str
    user_id: str | None
    resolve: StateResolver
    runs: Sequence[RunRow] = field(default=())
    summary: str | None = None
    known: SessionRow | None = None
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    claim: RunClaim | None = None
    now: float


@dataclass(slots=True, frozen=True)
class Committed:
    """What a commit did.

    Args:
        row: The session as it is stored now.
        repeated: The commit was there already; nothing was written.
    """

    row: SessionRow
    repeated: bool = False


class Db(ABC):
    """Where sessions are kept.

    Any number of event loops and threads of a process may use one object at once. Every verb raises
    `StoreError` when the database cannot do it, with the original error as the cause.
    """

    shared: ClassVar[bool] = True
    """Other processes may reach the same sessions. False spares the questions that only they could answer."""

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """Equal for two objects of this process that reach the same sessions (path, URL and tables)."""

    @abstractmethod
    async def load_session(self, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""

    @abstractmethod
    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit` in one transaction, or nothing.

        The stored row is read inside the transaction, `commit.resolve` called with it, and the session row
        inserted or updated as `applied` says, after `check_commit`. A commit that is made twice, such as by
        a database that has lost the answer and asks again, is written once. Runs that have ended take the
        requests to cancel them along: what was meant for one attempt does not reach the next.

        Raises:
            SessionOwnershipError: The stored session belongs to another user; nothing is written.
            SessionDeletedError: The session that the caller knows was deleted; nothing is written. The same
                of `RunLostError`: the commit's claim does not hold any more.
            StoreError: It could not be written; nothing is, as far as the database knows.
        """

    @abstractmethod
    async def load_runs(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        runner_id: str | None = None,
        top_level: bool = True,
    ) -> list[RunRow]:
        """The session's newest `limit` runs, the oldest of them first; None means all.

        A run is as old as its first commit, whatever a clock said; of one commit, in the order of its rows.
        `top_level` leaves out members' runs; `runner_id` leaves out other agents' and teams' runs.
        """

    @abstractmethod
    async def load_run(self, run_id: str) -> RunRow | None:
        """One run, or None."""

    @abstractmethod
    async def load_media(self, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these hashes that are stored with the session; the others are left out."""

    async def load_session_and_run(
        self, session_id: str, run_id: str
    ) -> tuple[SessionRow | None, RunRow | None]:
        """`load_session` and `load_run`; a database that is asked over a network does it in one question."""
        return await self.load_session(session_id), await self.load_run(run_id)

    @abstractmethod
    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""

    @abstractmethod
    async def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """Sessions, the one with the latest commit first, whatever a clock said. Their states are not read.

        Args:
            user_id: Only this user's sessions; None for all users.
            limit: At most so many.
            before: Only sessions whose `position` is below this: the position of the last one of the page
                before.
        """

    @abstractmethod
    async def list_runs(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        status: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRow]:
        """Runs of any session that the application started, the newest first. Members' runs are left out.

        A run is as old as its first commit, whatever a clock said: one that is continued keeps its place.
        The runs of one status other than COMPLETED have to be found without reading the completed ones.

        Args:
            session_id: Only this session's runs.
            user_id: Only runs in this user's sessions; None for all users.
            status: Only runs with this `RunStatus` value, such as "PAUSED".
            limit: At most so many.
            before: Only runs that are older than this one: the id of the last run of the page before. If
                that run is not stored any more, nothing is listed.
        """

    @abstractmethod
    async def describe_session(
        self, session_id: str, *, name: str | None = None, summary: str | None = None
    ) -> bool:
        """Set what is not None; False if there is no such session. The state's version stays."""

    @abstractmethod
    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its runs, their media and its log; False if there is no such session.

        A new session of that id is another generation.
        """

    @abstractmethod
    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of the user, as `delete_session` does, in one transaction.

        Returns how many there were. Requests to cancel in the user's name are deleted, too.
        """

    @abstractmethod
    async def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Give `owner` the lease of that name for `seconds` from now, by the database's clock.

        True if it was free, had expired, or is the owner's already (a renewal). A lease that seems to have
        longer left than it was given for, since the clock was set back, has that long from now.
        """

    @abstractmethod
    async def release_lease(self, name: str, owner: str) -> None:
        """Give the lease back, if it is `owner`'s."""

    @abstractmethod
    async def request_cancel(self, run_id: str, *, user_id: str | None = None) -> None:
        """Ask the process that drives the run, whichever it is, to cancel it.

        A request is kept for as long as a process may need to look, and no longer; nor without bound.

        Args:
            run_id: The run, which need not be stored.
            user_id: In whose name; None is trusted code. That process checks it.
        """

    @abstractmethod
    async def cancel_requested(
        self,
        run_ids: Sequence[str],
        *,
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Which of these runs were asked to be cancelled. The requests are forgotten, older ones too: a run
        is not cancelled by what was meant for an earlier one of its id.

        Args:
            run_ids: Runs that the asking process drives.
            owners: Whose they are, by run id; a request in the name of another user does not count.
            since: When a run was asked for, by run id, in `time.monotonic()` of this process; a request that
                was made before, by the database's clock, does not count. Without it every request does.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connections of the running event loop. The object can be used again afterwards."""


def check_commit(stored: SessionRow | None, commit: Commit) -> None:
    """See that `commit` may be made on `stored`: the same for every database.

    Raises:
        SessionDeletedError: It is not the session that the caller knows.
        SessionOwnershipError: It belongs to another user.
    """
    known = commit.known
    if known is not None and (stored is None or stored.generation != known.generation):
        raise SessionDeletedError(commit.session_id)
    if stored is not None and stored.user_id != commit.user_id:
        raise SessionOwnershipError(commit.session_id)


def applied(stored: SessionRow | None, commit: Commit, write: StateWrite) -> SessionRow:
    """The row that `write` makes of `stored`: the same for every database."""
    row = stored or SessionRow(
        session_id=commit.session_id,
        user_id=commit.user_id,
        created_at=commit.now,
        version=0,
        generation=commit.id,
    )
    summary = row.summary if commit.summary is None else commit.summary
    if write.state is None:
        return replace(row, updated_at=commit.now, revision=write.revision, summary=summary)
    return replace(
        row,
        updated_at=commit.now,
        revision=write.revision,
        summary=summary,
        state=write.state,
        state_version=write.state_version,
        version=row.version + 1,
    )
