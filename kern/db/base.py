"""The database port: what Kern needs of a database to store sessions, runs and the log of state changes.

A new database implements `Db`; `kern.testing.db` has the conformance suite for it.
"""

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
"""By run id: the user of the run. Empty: no owner is known."""

ANY_TIME: Mapping[str, float] = {}
"""By run id: when the run was asked for. Empty: a request to cancel counts, however old it is."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionRow:
    """A session as it is stored.

    Args:
        session_id: The session.
        user_id: The owner; None if it has none.
        state: The session state as JSON text (UTF-8).
        state_version: The number of the application's migrations that the state has seen.
        revision: The number of commits to the state.
        version: How often the state was written to this row. Optimistic writers compare it.
        name: A name for people.
        summary: The summary of the conversation.
        created_at, updated_at: Seconds since the epoch, by the clock of the writing process; for people only.
            Nothing is ordered by them, since a clock may be set back.
        generation: Differs from that of an earlier, deleted session with the same id. Set by the first
            commit.
        position: The session's place in the order of last commits, if the database uses it to recognise a
            row; otherwise 0.
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
    """A session as a listing shows it: without the state, which may be large.

    Args:
        session_id: The session.
        user_id: Its owner; None if it has none.
        name: A name for people.
        summary: The summary of the conversation.
        created_at, updated_at: Seconds since the epoch, by the clock of the writing process; for people only.
        position: Its place in the order of last commits; pass it as `before=` to get the next page. It rises
            with every commit to the session, and no two sessions have the same one.
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
        run_id: The run.
        session_id: Its session.
        runner_id: The id of the agent or team that ran.
        parent_run_id: The run that delegated to this one; None for a run that the application started.
        status: A `RunStatus` value.
        generation: 0 for the first write of a run. It rises by one each time a paused run is continued, or a
            failed one is tried again. If the row is already stored with this generation or a later one, the
            whole commit is a repetition and writes nothing.
        data: The output as JSON text (UTF-8).
        created_at: Seconds since the epoch, by the clock of the process that ran it; for people only. The
            runs of a session are in the order in which they were first stored.
        media: Bytes of images and other files, by their SHA-256 in hex, to which `data` refers. Each is
            stored once per session and loaded by `load_media`; a row that was loaded has none.
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
        """Whether the run has ended: it is not paused, waiting for a person."""
        return self.status != RunStatus.paused.value


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeRow:
    """One commit to a session's state: who changed what.

    Args:
        session_id: The session.
        revision: The revision that the commit made.
        patch: JSON text: a list of RFC 6902 operations, each with the value that it replaced as "old".
        agent_path: JSON text: a list of the names from the top-level run down.
        run_id: The run that wrote; None for the application itself.
        tool: The tool or function that wrote.
        tool_call_id: The model's id of that call.
        created_at: Seconds since the epoch.
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
    """What the resolver of a commit decides to write.

    Args:
        state: The new state as JSON text (UTF-8); None leaves the stored state and its version as they are.
        revision: The state's revision after this commit.
        state_version: As in `SessionRow`.
        changes: Rows for the log, with their final revisions.
        runs: Replacement rows for the commit's runs, if conflicts that the resolver found must be stored in
            them; None writes the commit's own rows.
    """

    state: bytes | None
    revision: int
    state_version: int = 0
    changes: Sequence[ChangeRow] = ()
    runs: Sequence[RunRow] | None = None


StateResolver = Callable[[SessionRow | None], StateWrite]
"""A pure function of the stored session that decides what a commit writes. A database calls it inside the
transaction, on the event loop or in a thread, and again whenever it tries the commit again; the last call
counts. A database may first call it with `Commit.known` instead of the stored session, if it then writes only
on condition that the stored session is still the known one."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Commit:
    """What one transaction writes: the end of a run, or a change from outside of runs.

    Args:
        session_id: The session.
        user_id: Its owner. A stored session of another user refuses the commit.
        resolve: Decides what is written, given the stored row. This is where the changes of several processes
            are merged.
        runs: The rows of the run and of its members' runs; the first is the top-level run.
        summary: The new summary of the conversation; None leaves the stored one.
        known: The session as the caller last saw it; None if it was not stored. The commit applies to that
            generation of the session only. A database may write on the basis of it without reading first.
        id: Identifies a commit without runs, so that a repetition of it is recognised. A commit with runs is
            recognised by its first run.
        claim: The claim to the run that ends, if it has a journal; see `kern.db.journals`.
        now: Seconds since the epoch, by the clock of this process.
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
        repeated: The commit had been made before; nothing was written.
    """

    row: SessionRow
    repeated: bool = False


class Db(ABC):
    """Stores sessions, their runs and the log of their state changes.

    Any number of event loops and threads of a process may use one object at the same time. Every method
    raises `StoreError` if the database fails, with the original error as the cause.
    """

    shared: ClassVar[bool] = True
    """Whether other processes may reach the same sessions. False saves queries about what those do."""

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """A value that is equal for two objects of this process that reach the same sessions.

        Usually the path or URL with the names of the tables.
        """

    @abstractmethod
    async def load_session(self, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""

    @abstractmethod
    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit` in one transaction, or nothing.

        Inside the transaction, read the stored row, call `check_commit`, call `commit.resolve` with the row,
        and insert or update the session as `applied` says. A commit that comes twice, such as from a client
        that lost the answer and asked again, is written once. For runs that have ended, delete the requests
        to
        cancel them: a request that was meant for one attempt must not reach the next.

        Raises:
            SessionOwnershipError: The stored session belongs to another user; nothing is written.
            SessionDeletedError: The session that the caller knows was deleted; nothing is written.
            RunLostError: The commit's claim does not hold any more; nothing is written.
            StoreError: The commit could not be written; as far as the database knows, nothing was.
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
        """The session's newest runs, the oldest of them first.

        Runs are ordered by their first commits, not by clocks; runs of the same commit by the order of its
        rows.

        Args:
            session_id: The session.
            limit: How many of the newest runs; None: all.
            runner_id: Only runs of this agent or team.
            top_level: Leave out members' runs.
        """

    @abstractmethod
    async def load_run(self, run_id: str) -> RunRow | None:
        """The run as it is stored, or None."""

    @abstractmethod
    async def load_media(self, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The media of a session.

        Args:
            session_id: The session.
            hashes: SHA-256 hashes in hex.

        Returns:
            The bytes by hash. Hashes that are not stored with the session are left out.
        """

    async def load_session_and_run(
        self, session_id: str, run_id: str
    ) -> tuple[SessionRow | None, RunRow | None]:
        """`load_session` and `load_run` together; a database on a network does it in one round trip."""
        return await self.load_session(session_id), await self.load_run(run_id)

    @abstractmethod
    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        """The session's log of state changes with revisions above `after`, oldest first."""

    @abstractmethod
    async def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """List sessions, the one with the latest commit first, without reading their states.

        Args:
            user_id: Only this user's sessions; None: those of all users.
            limit: The maximum number of sessions.
            before: Only sessions whose `position` is below this one. For the next page pass the position of
                the last session of the present page.
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
        """List runs that the application started, the newest first. Members' runs are left out.

        Runs are ordered by their first commits, not by clocks: a run that is continued keeps its place. A
        query for a status other than COMPLETED must not read the completed runs, of which there are many.

        Args:
            session_id: Only this session's runs.
            user_id: Only runs in this user's sessions; None: those of all users.
            status: Only runs with this `RunStatus` value, such as "PAUSED".
            limit: The maximum number of runs.
            before: Only runs that are older than the run with this id. For the next page pass the id of the
                last run of the present page. If that run is no longer stored, the list is empty.
        """

    @abstractmethod
    async def describe_session(
        self, session_id: str, *, name: str | None = None, summary: str | None = None
    ) -> bool:
        """Set the name and the summary, where they are not None. The row's `version` does not change.

        Returns:
            False if the session does not exist.
        """

    @abstractmethod
    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its runs, their media and its log.

        A new session with the same id has another `generation`.

        Returns:
            False if the session does not exist.
        """

    @abstractmethod
    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of the user, as `delete_session` does, in one transaction.

        Requests to cancel in the user's name are deleted as well.

        Returns:
            How many sessions were deleted.
        """

    @abstractmethod
    async def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Try to take or renew a lease, by the database's clock.

        If a lease seems to have more time left than it was given for, the clock was set back. It then expires
        that long from now.

        Args:
            name: The lease.
            owner: Who takes it.
            seconds: For how long, from now.

        Returns:
            True if the lease was free, had expired, or already belongs to `owner`.
        """

    @abstractmethod
    async def release_lease(self, name: str, owner: str) -> None:
        """Release the lease, if it belongs to `owner`."""

    @abstractmethod
    async def request_cancel(self, run_id: str, *, user_id: str | None = None) -> None:
        """Ask the process that drives the run, whichever it is, to cancel it.

        Processes look for requests every second, so a request may be dropped after a while. The number of
        requests that are kept must be bounded.

        Args:
            run_id: The run, which need not be stored.
            user_id: The user in whose name the request is made; None for trusted code. The process that
                drives the run checks it.
        """

    @abstractmethod
    async def cancel_requested(
        self,
        run_ids: Sequence[str],
        *,
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Find requests to cancel these runs, and delete them.

        Requests that do not count are deleted as well, so that they do not reach a later run with the same
        id.

        Args:
            run_ids: Runs that the asking process drives.
            owners: The users of the runs, by run id. A request in the name of another user does not count.
            since: When each run was asked for, by run id, in `time.monotonic()` of this process. A request
                that was made before that, by the database's clock, does not count. A run that is missing here
                has no such bound.

        Returns:
            The ids of the runs that are to be cancelled.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections of the running event loop. The object can be used again afterwards."""


def check_commit(stored: SessionRow | None, commit: Commit) -> None:
    """Check whether `commit` may be made on the stored row. Every database calls this.

    Raises:
        SessionDeletedError: The session that the caller knows was deleted.
        SessionOwnershipError: The session belongs to another user.
    """
    known = commit.known
    if known is not None and (stored is None or stored.generation != known.generation):
        raise SessionDeletedError(commit.session_id)
    if stored is not None and stored.user_id != commit.user_id:
        raise SessionOwnershipError(commit.session_id)


def applied(stored: SessionRow | None, commit: Commit, write: StateWrite) -> SessionRow:
    """The session's row after the commit. Every database calls this.

    Args:
        stored: The row as it is stored; None for a new session.
        commit: The commit.
        write: What its resolver decided.
    """
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
