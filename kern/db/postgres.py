"""A database on a Postgres server, for any number of processes on any number of machines."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from kern._numbers import check_seconds, check_whole
from kern.db._postgres_commit import Committer, shown
from kern.db._postgres_errors import asyncpg
from kern.db._postgres_pool import Link, Pool, Row
from kern.db._postgres_schema import check, migrate, names_of
from kern.db._postgres_server import Server
from kern.db._postgres_sql import statements
from kern.db._postgres_submit import submitted
from kern.db._rows import change_of, info_of, readable, run_of, session_of
from kern.db.base import ANY_TIME, NOBODY, ChangeRow, Commit, Committed, Db, RunRow, SessionInfo, SessionRow
from kern.db.journals import (
    ClaimedRun,
    EventRow,
    OldEvents,
    RunAbout,
    RunClaim,
    RunningRow,
    StepRow,
    SubmittedRow,
    TakenRun,
    run_about,
    running_row,
)
from kern.errors import StoreError, UsageError

_LAST = 2**63 - 1
"""Comes after every position."""

_LONGEST_NAME = 40
"""The maximum length of the name of a table or schema. Names that are derived from it have up to 63
characters, which is the limit of Postgres."""

_KEEP_SECONDS = 3600.0
"""How long a request to cancel a run without a claim is kept. A run looks for requests every second."""

_MOST_CANCELS = 10_000
"""How many requests of one user are kept, if the runs have no claims; the oldest are dropped first."""

_SESSION_COLUMNS = 12


class PostgresDb(Db):
    """A database on a Postgres server, version 14 or newer.

    A run sends two statements to the server, one at its beginning and one at its end, however many members a
    team has, and a third if it reads the history. Each is a transaction of its own, so that no process holds
    a lock while it does anything else. After a failure that may be temporary (a connection breaks, the server
    restarts or fails over to another one) a statement is sent again, for up to `busy_timeout`. A commit that
    arrives twice is made once.

    The tables are created on first use. Any number of objects, event loops, threads and processes may use one
    database at the same time. The objects of a process share one pool of connections per event loop; the loop
    closes it when it ends.

    Args:
        db_url: "postgresql://user:password@host:5432/database". Options of libpq may follow after "?", such
            as "sslmode=verify-full". Several hosts are possible, with "target_session_attrs=read-write".
        session_table: The name of the table of sessions. The names of the other tables begin with it.
        schema: The schema of the tables; None: the server's search path decides.
        pool_size: The maximum number of connections per event loop.
        statement_cache_size: How many prepared statements a connection keeps. Pass 0 behind PgBouncer before
            version 1.21 in transaction mode, and behind other poolers that give each statement another
            connection.
        create_tables: Pass False if the role may not create tables; create them with `kern db migrate` and
            another role.
        busy_timeout: Seconds that a call waits for the server before it fails with a `StoreError`.

    Raises:
        UsageError: A value is not valid.
        MissingExtraError: The extra `postgres` is not installed.
    """

    def __init__(
        self,
        db_url: str,
        *,
        session_table: str = "kern_sessions",
        schema: str | None = None,
        pool_size: int = 8,
        statement_cache_size: int = 100,
        create_tables: bool = True,
        busy_timeout: float = 30.0,
    ) -> None:
        asyncpg()  # fails now, and not at the first run, if the extra is missing
        for option, name in (("session_table", session_table), ("schema", schema)):
            if name is not None and re.fullmatch(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]*", name) is None:
                raise UsageError(f"{option} may contain letters, digits and _ only, not {name!r}")
            if name is not None and len(name) > _LONGEST_NAME:
                raise UsageError(
                    f"{option} may have {_LONGEST_NAME} characters at most; {name!r} has {len(name)}"
                )
        check_whole("pool_size", pool_size, 1)
        check_whole("statement_cache_size", statement_cache_size)
        self._server = Server.of(db_url)
        self._url = db_url
        self._schema = schema
        check_seconds("busy_timeout", busy_timeout, zero=True)
        self._busy_timeout = busy_timeout
        self._create_tables = create_tables
        self._options: dict[str, Any] = {
            "session_table": session_table,
            "schema": schema,
            "pool_size": pool_size,
            "statement_cache_size": statement_cache_size,
            "create_tables": create_tables,
            "busy_timeout": busy_timeout,
        }
        self._names = names_of(session_table, schema)
        self._pool = Pool.at(self._server, pool_size, statement_cache_size)
        self._sql = statements(self._names)
        self._committer = Committer(self._pool, self._sql, busy_timeout)
        self._ready = False
        self._old_events = OldEvents()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are new objects on the same database, also in another process."""
        return partial(type(self), **self._options), (self._url,)

    @property
    def identity(self) -> Hashable:
        """The hosts, the database and the tables."""
        return ("postgres", self._server.place, self._names["t"])

    async def migrate(self) -> tuple[int, int]:
        """Create the tables, or upgrade them to this version of Kern.

        The first use does this by itself, unless `create_tables` is False.

        Returns:
            The versions of the tables before and after; 0 if there were none.

        Raises:
            StoreError: The tables cannot be created, or belong to a newer version of Kern.
        """
        return await migrate(self._pool, self._names, self._server.shown, self._busy_timeout, self._schema)

    async def load_session(self, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""
        rows = await self._fetch("load_session", session_id)
        return session_of(tuple(rows[0])) if rows else None

    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit` in one statement, or nothing.

        The first attempt is based on what the caller knows. If the stored session is different, it is read
        and the commit is made on that basis.
        """
        await self._prepared()
        return await self._committer.commit(commit)

    async def load_runs(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        runner_id: str | None = None,
        top_level: bool = True,
    ) -> list[RunRow]:
        """The session's newest `limit` runs, the oldest of them first; None means all."""
        rows = await self._fetch("load_runs", session_id, runner_id, top_level, limit)
        return readable(run_of, (tuple(row) for row in reversed(rows)))

    async def load_run(self, run_id: str) -> RunRow | None:
        """One run, or None."""
        rows = await self._fetch("load_run", run_id)
        return run_of(tuple(rows[0])) if rows else None

    async def load_session_and_run(
        self, session_id: str, run_id: str
    ) -> tuple[SessionRow | None, RunRow | None]:
        """Both of them, in one round trip."""
        row = tuple((await self._fetch("load_session_and_run", session_id, run_id))[0])
        session, run = row[:_SESSION_COLUMNS], row[_SESSION_COLUMNS:]
        return None if session[0] is None else session_of(session), None if run[0] is None else run_of(run)

    async def load_media(self, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these hashes that are stored with the session; the others are left out."""
        if not hashes:
            return {}
        return {row[0]: row[1] for row in await self._fetch("load_media", session_id, list(hashes))}

    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""
        return [change_of(tuple(row)) for row in await self._fetch("load_changes", session_id, after)]

    async def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """Sessions, the one with the latest commit first; with `user_id`, only that user's."""
        name, owner = ("list_sessions", ()) if user_id is None else ("list_sessions_of_user", (user_id,))
        rows = await self._fetch(name, _LAST if before is None else before, limit, *owner)
        return readable(info_of, map(tuple, rows))

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
        name = "list_runs" if status in (None, "COMPLETED") else "list_runs_by_status"
        chosen: Sequence[str | None] = ()
        if session_id is not None:
            name, chosen = "list_runs_of_session", [session_id, user_id]
        elif user_id is not None:
            name, chosen = f"{name}_of_user", [user_id]
        rows = await self._fetch(name, status, before, limit, *chosen)
        return readable(run_of, map(tuple, rows))

    async def describe_session(
        self, session_id: str, *, name: str | None = None, summary: str | None = None
    ) -> bool:
        """Set what is not None; False if there is no such session."""
        return bool(await self._fetch("describe_session", session_id, shown(name), shown(summary)))

    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its runs, their media and its log; False if there is no such session."""
        return await self._delete("lock_session", session_id, [session_id]) > 0

    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of the user, in one transaction; how many there were."""
        return await self._delete("lock_sessions_of_user", user_id, None)

    async def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Give `owner` the lease of that name for `seconds` from now, by the server's clock."""
        rows = await self._fetch("acquire_lease", name, owner, seconds)
        return bool(rows) and rows[0][0] is True

    async def release_lease(self, name: str, owner: str) -> None:
        """Give the lease back, if it is `owner`'s."""
        await self._fetch("release_lease", name, owner)

    async def claim_run(
        self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
    ) -> ClaimedRun | None:
        """Give `owner` the run for `seconds`; None if another has it. See `kern.db.journals`."""
        more: tuple[object, ...] = (None,) * 4
        if about is not None:
            more = (about.session_id, about.user_id, about.runner_id, about.is_team)
        rows = await self._fetch("claim_run", run_id, owner, seconds, *more, self._old_events.seconds())
        if not rows:
            return None
        attempt, before, *noted, last_seq = rows[0]
        steps = await self._fetch("load_steps", run_id)
        claim = RunClaim(run_id=run_id, owner=owner, attempt=attempt, before=before)
        found = [StepRow(key=key, kind=kind, data=data) for key, kind, data in steps]
        return ClaimedRun(claim, found, last_seq, run_about(*noted))

    async def append_steps(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow] = ()
    ) -> bool:
        """Keep steps and events, and renew the claim; False, and nothing is kept, if it does not hold."""
        columns = [step.key for step in steps], [step.kind for step in steps], [step.data for step in steps]
        event_columns = [row.last_seq for row in events], [row.data for row in events]
        rows = await self._fetch("append_steps", claim.run_id, claim.owner, seconds, *columns, *event_columns)
        return bool(rows[0][0])

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The events of the run after that number."""
        rows = await self._fetch("load_events", run_id, after, limit)
        return [EventRow(last_seq=last_seq, data=data) for last_seq, data in rows]

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
        rows = await self._fetch("running_runs", run_id, session_id, user_id, before, limit)
        return [running_row(*row) for row in rows]

    async def release_claim(self, claim: RunClaim) -> None:
        """Let others have the run at once."""
        await self._fetch("release_claim", claim.run_id, claim.owner)

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Keep what a run is asked, for any process to begin it; False if the id is known."""
        await self._prepared()
        return await submitted(self._pool, self._sql["submit_run"], run, self._names["t"], self._busy_timeout)

    async def load_request(self, run_id: str) -> bytes | None:
        """What a run that has not ended was asked; see `kern.db.journals`."""
        rows = await self._fetch("load_request", run_id)
        return rows[0][0] if rows else None

    async def take_run(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run that nobody has."""
        rows = await self._fetch("take_run", owner, seconds, list(runner_ids))
        if not rows:
            return None
        run_id, attempt, before, request = rows[0]
        return TakenRun(RunClaim(run_id=run_id, owner=owner, attempt=attempt, before=before), request)

    async def forget_run(self, run_id: str, owner: str | None = None) -> bool:
        """Delete the request, the steps and the claim, if it is `owner`'s."""
        return bool(await self._fetch("forget_run", run_id, owner))

    async def unfinished_runs(self, *, limit: int = 100) -> list[str]:
        """The runs that were submitted or have steps on record, and that no process has, the oldest first."""
        return [row[0] for row in await self._fetch("unfinished_runs", limit)]

    async def request_cancel(self, run_id: str, *, user_id: str | None = None) -> None:
        """Ask the process that drives the run, whichever it is, to cancel it."""
        trusted, name = user_id is None, user_id or ""
        await self._fetch("request_cancel", run_id, trusted, name, _KEEP_SECONDS, _MOST_CANCELS)

    async def cancel_requested(
        self,
        run_ids: Sequence[str],
        *,
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Which of these runs were asked to be cancelled; these requests, and older ones, are forgotten."""
        if not run_ids:
            return set()
        named = [owners.get(run_id) for run_id in run_ids]
        found = await self._fetch("find_cancels", list(run_ids), named)
        now = time.monotonic()
        if found:  # two statements, so that no request is lost with a lost answer
            await self._fetch("take_cancels", *map(list, zip(*(row[:4] for row in found), strict=True)))
        return {run_id for run_id, _, _, _, age in found if now - age >= since.get(run_id, -math.inf)}

    async def aclose(self) -> None:
        """Close the running loop's connections, which all objects on the same database share.

        The next call opens new ones.
        """
        await self._pool.aclose()

    async def _fetch(self, name: str, *values: object) -> list[Row]:
        await self._prepared()
        try:
            return await self._pool.fetch(self._sql[name], *values, wait=self._busy_timeout)
        except StoreError as error:
            if getattr(error.__cause__, "sqlstate", None) == "42P01":  # undefined_table: they were dropped
                self._ready = False
            raise

    async def _delete(self, lock: str, whose: str, sessions: list[str] | None) -> int:
        """Lock sessions, then delete them, so that commits made at the same time are deleted as well."""
        await self._prepared()
        there = 0

        async def job(link: Link) -> None:
            nonlocal there
            locked = await link.fetch(self._sql[lock], whose)
            there = max(
                there, len(locked)
            )  # an earlier attempt, whose answer was lost, may have deleted them
            if sessions is None:
                await link.fetch(self._sql["delete_cancels_of_user"], whose)
            own = [row[0] for row in locked] if sessions is None else sessions
            user_id = whose if sessions is None else None
            await link.fetch(self._sql["delete_sessions"], own, user_id)

        await self._pool.transaction(job, wait=self._busy_timeout)
        return there

    async def _prepared(self) -> None:
        if self._ready:
            return
        if self._create_tables:
            await self.migrate()
        else:
            await check(self._pool, self._names, self._server.shown, self._busy_timeout)
        self._ready = True

    def __repr__(self) -> str:
        return f"PostgresDb({self._server.shown!r})"
