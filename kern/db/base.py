"""The database port: what Kern needs of a database to store sessions, runs and the log of state changes.

A new database implements `Db`; `kern.testing.db` has the conformance suite for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

from kern._keywords import ChecksArguments
from kern.db.rows import (
    ChangeRow,
    Commit,
    Committed,
    RunRow,
    SessionInfo,
    SessionRow,
    StateResolver,
    StateWrite,
    applied,
    check_commit,
)

__all__ = [
    "ANY_TIME",
    "NOBODY",
    "ChangeRow",
    "Commit",
    "Committed",
    "Db",
    "RunRow",
    "SessionInfo",
    "SessionRow",
    "StateResolver",
    "StateWrite",
    "applied",
    "check_commit",
]

NOBODY: Mapping[str, str | None] = {}
"""By run id: the user of the run. Empty: no owner is known."""

ANY_TIME: Mapping[str, float] = {}
"""By run id: when the run was asked for. Empty: a request to cancel counts, however old it is."""


class Db(ChecksArguments, ABC):
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
        that lost the answer and asked again, is written once. A row of a run that is stored with the same
        generation, or with a later one, stays as it is. For runs that have ended, delete the requests to
        cancel them: a request that was meant for one attempt must not reach the next.

        Raises:
            SessionOwnershipError: The stored session belongs to another user; nothing is written.
            SessionDeletedError: The session that the caller knows was deleted; nothing is written.
            RunLostError: The commit's claim does not hold any more; nothing is written.
            StoreError: The commit could not be written, such as because one of its runs has the id of a run
                of another session; as far as the database knows, nothing was written.
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

        Processes look for requests every second, so a request may be dropped after a while, but not because
        of requests of other users. The number of requests of one user that are kept must be bounded. A
        request for a run that has a claim, or was submitted (see `kern.db.journals`), is never dropped: a
        process that takes the run later has to see it.

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
        """Find requests to cancel these runs, and delete those that were made for them.

        A request that is too old is deleted as well, so that it does not reach a later run with the same id.
        A request in the name of another user than the run's is neither found nor deleted: it may be for that
        user's own run of this id, in another process.

        Args:
            run_ids: Runs that the asking process drives.
            owners: The users of the runs, by run id; without one, a run is of trusted code. A request that
                trusted code made counts for every user's run.
            since: When each run was asked for, by run id, in `time.monotonic()` of this process. A request
                that was made before that, by the database's clock, does not count. A run that is missing here
                has no such bound.

        Returns:
            The ids of the runs that are to be cancelled.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections of the running event loop. The object can be used again afterwards."""
