"""A database in an SQLite file."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kern._numbers import check_seconds
from kern.db._sqlite_file import SqliteFile
from kern.db._sqlite_queries import Queries
from kern.db._sqlite_schema import migrate
from kern.db.base import (
    ANY_TIME,
    NOBODY,
    ChangeRow,
    Commit,
    Committed,
    Db,
    RunRow,
    SessionInfo,
    SessionRow,
)
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
from kern.errors import UsageError

T = TypeVar("T")


class SqliteDb(Db):
    """A database in an SQLite file.

    The file, its folders and its tables are created on first use. Any number of objects, event loops, threads
    and processes may use one file at the same time; within a process they share one writer and, per event
    loop, one connection. You need not close anything: a loop closes its connections when it ends.

    A commit that has returned survives the death of the process (kill -9). A power failure may undo the last
    commits, but never a part of one. The file must be on a local disk: SQLite's locks do not work on most
    network file systems.

    Args:
        db_file: The path of the file; "~" is the home folder.
        db_url: The same as a URL: "sqlite:///relative/path.db" or "sqlite:////absolute/path.db".
        session_table: The name of the table of sessions. The names of the other tables begin with it
            ("kern_sessions_runs", "kern_sessions_changes"...), so one file can hold several sets of tables.
        busy_timeout: Seconds that a call waits for other writers, in this process or in others, before it
            fails with a `StoreBusyError`.

    Raises:
        UsageError: Both or neither of `db_file` and `db_url` are given, or the value does not name a file.
    """

    def __init__(
        self,
        db_file: str | os.PathLike[str] | None = None,
        *,
        db_url: str | None = None,
        session_table: str = "kern_sessions",
        busy_timeout: float = 30.0,
    ) -> None:
        if (db_file is None) == (db_url is None):
            raise UsageError("SqliteDb takes either db_file or db_url, such as SqliteDb('tmp/agents.db')")
        if db_file is not None and (url := re.match(r"([A-Za-z][A-Za-z0-9+]*)://", str(db_file))):
            if url[1].lower().startswith("postgres"):  # without the rest, which may hold a password
                raise UsageError("SqliteDb takes a file, not a URL of PostgreSQL; use PostgresDb for that")
            raise UsageError(f"SqliteDb takes a file; pass a URL such as {url[1]}://... as db_url=")
        if re.fullmatch(r"(?!sqlite_)[A-Za-z_][A-Za-z0-9_]*", session_table) is None:
            raise UsageError(f"session_table may contain letters, digits and _ only, not {session_table!r}")
        self._path = _real_path(_path_of(db_url or "") if db_file is None else db_file)
        self._table = session_table
        check_seconds("busy_timeout", busy_timeout, zero=True)
        self._busy_timeout = busy_timeout
        self._file = SqliteFile.at(self._path)
        self._queries = Queries(self._path, session_table)
        self._prepare = partial(migrate, path=self._path, table=session_table)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are new objects on the same file, also in another process."""
        made = partial(type(self), session_table=self._table, busy_timeout=self._busy_timeout)
        return made, (str(self._path),)

    @property
    def identity(self) -> Hashable:
        """The real path and the tables."""
        return ("sqlite", str(self._path), self._table)

    async def load_session(self, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""
        return await self._read(partial(self._queries.load_session, session_id=session_id))

    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit` in one transaction, or nothing.

        A cancellation is raised after the transaction has ended, with all or nothing written.
        """
        return await self._write(partial(self._queries.commit, commit=commit))

    async def load_runs(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        runner_id: str | None = None,
        top_level: bool = True,
    ) -> list[RunRow]:
        """The session's newest `limit` runs, the oldest of them first; None means all."""
        return await self._read(
            partial(
                self._queries.load_runs,
                session_id=session_id,
                limit=limit,
                runner_id=runner_id,
                top_level=top_level,
            )
        )

    async def load_run(self, run_id: str) -> RunRow | None:
        """One run, or None."""
        return await self._read(partial(self._queries.load_run, run_id=run_id))

    async def load_session_and_run(
        self, session_id: str, run_id: str
    ) -> tuple[SessionRow | None, RunRow | None]:
        """Both of them, in one trip to the thread of the connection."""
        return await self._read(
            partial(self._queries.load_session_and_run, session_id=session_id, run_id=run_id)
        )

    async def load_media(self, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these hashes that are stored with the session; the others are left out."""
        return await self._read(partial(self._queries.load_media, session_id=session_id, hashes=hashes))

    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""
        return await self._read(partial(self._queries.load_changes, session_id=session_id, after=after))

    async def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """Sessions, the one with the latest commit first; with `user_id`, only that user's."""
        return await self._read(
            partial(self._queries.list_sessions, user_id=user_id, limit=limit, before=before)
        )

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
        return await self._read(
            partial(
                self._queries.list_runs,
                session_id=session_id,
                user_id=user_id,
                status=status,
                limit=limit,
                before=before,
            )
        )

    async def describe_session(
        self, session_id: str, *, name: str | None = None, summary: str | None = None
    ) -> bool:
        """Set what is not None; False if there is no such session."""
        return await self._write(
            partial(self._queries.describe_session, session_id=session_id, name=name, summary=summary)
        )

    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its runs, their media and its log; False if there is no such session."""
        return await self._write(partial(self._queries.delete_session, session_id=session_id))

    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of the user, in one transaction; how many there were."""
        return await self._write(partial(self._queries.delete_user, user_id=user_id))

    async def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Give `owner` the lease of that name for `seconds` from now, by the clock of the machine."""
        return await self._write(
            partial(self._queries.acquire_lease, name=name, owner=owner, seconds=seconds)
        )

    async def release_lease(self, name: str, owner: str) -> None:
        """Give the lease back, if it is `owner`'s."""
        await self._write(partial(self._queries.release_lease, name=name, owner=owner))

    async def request_cancel(self, run_id: str, *, user_id: str | None = None) -> None:
        """Ask the process that drives the run, whichever it is, to cancel it."""
        await self._write(partial(self._queries.cancels.request, run_id=run_id, user_id=user_id))

    async def cancel_requested(
        self,
        run_ids: Sequence[str],
        *,
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Which of these runs were asked to be cancelled; these requests, and older ones, are forgotten."""
        asked = [(run_id, owners.get(run_id), since.get(run_id)) for run_id in run_ids]
        found = await self._read(partial(self._queries.cancels.find, asked=asked))
        return await self._write(partial(self._queries.cancels.take, asked=found)) if found else set()

    async def claim_run(
        self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
    ) -> ClaimedRun | None:
        """Give `owner` the run for `seconds`; None if another has it. See `kern.db.journals`."""
        return await self._write(
            partial(self._queries.journals.claim, run_id=run_id, owner=owner, seconds=seconds, about=about)
        )

    async def append_steps(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow] = ()
    ) -> bool:
        """Keep steps and events, and renew the claim; False, and nothing is kept, if it does not hold."""
        append = self._queries.journals.append
        return await self._write(partial(append, claim=claim, seconds=seconds, steps=steps, events=events))

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The events of the run after that number."""
        events = self._queries.journals.events
        return await self._read(partial(events, run_id=run_id, after=after, limit=limit))

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
        return await self._read(
            partial(
                self._queries.journals.running,
                run_id=run_id,
                session_id=session_id,
                user_id=user_id,
                before=before,
                limit=limit,
            )
        )

    async def release_claim(self, claim: RunClaim) -> None:
        """Let others have the run at once."""
        await self._write(partial(self._queries.journals.release, claim=claim))

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Keep what a run is asked, for any process to begin it; False if the id is known."""
        return await self._write(partial(self._queries.journals.submit, run=run))

    async def load_request(self, run_id: str) -> bytes | None:
        """What a run that has not ended was asked; see `kern.db.journals`."""
        return await self._read(partial(self._queries.journals.request, run_id=run_id))

    async def take_run(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run that nobody has."""
        free = partial(self._queries.journals.free, runner_ids=runner_ids)
        if await self._read(free) is None:  # workers that poll must not take the write lock
            return None
        return await self._write(
            partial(self._queries.journals.take, owner=owner, seconds=seconds, runner_ids=runner_ids)
        )

    async def forget_run(self, run_id: str, owner: str | None = None) -> bool:
        """Delete the request, the steps and the claim, if it is `owner`'s."""
        return await self._write(partial(self._queries.journals.forget, run_id=run_id, owner=owner))

    async def unfinished_runs(self, *, limit: int = 100) -> list[str]:
        """The runs that were submitted or have steps on record, and that no process has, the oldest first."""
        return await self._read(partial(self._queries.journals.unfinished, limit=limit))

    async def aclose(self) -> None:
        """Close the running loop's connection to the file, which all objects on the same file share.

        The next call opens it again.
        """
        await self._file.aclose()

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(job, write=False)

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(job, write=True)

    async def _run(self, job: Callable[[sqlite3.Connection], T], *, write: bool) -> T:
        return await self._file.run(
            job, schema=self._table, prepare=self._prepare, write=write, wait=self._busy_timeout
        )

    def __repr__(self) -> str:
        return f"SqliteDb({str(self._path)!r})"


def _path_of(url: str) -> str:
    """The path in an SQLite URL, by SQLAlchemy's convention: three slashes, then the path."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?://(?P<host>[^/]*)(?:/(?P<path>[^?]*))?(?P<query>\?.*)?", url)
    if match is None:
        # The URL is not repeated: it may hold a password.
        raise UsageError("db_url is not an SQLite URL; write 'sqlite:///tmp/agents.db'")
    if match["host"]:
        raise UsageError("db_url names a host; for a file write three slashes: 'sqlite:///tmp/agents.db'")
    if match["query"]:
        raise UsageError(f"db_url has options, {match['query']!r}, which SqliteDb does not know; remove them")
    return match["path"] or ""


def _real_path(given: object) -> Path:
    """The path, absolute and without symbolic links, so that two objects on one file have the same path."""
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(path, str):
        raise UsageError(f"db_file must be a path (str or pathlib.Path), not {given!r}")
    try:
        unusable = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        unusable = True
    if unusable:
        raise UsageError(f"{path!r} is not a valid file name; choose another db_file")
    if path in ("", ":memory:"):
        raise UsageError(f"SqliteDb needs a file, not {path!r}; to keep sessions in memory, use InMemoryDb()")
    return Path(os.path.realpath(os.path.expanduser(path)))
