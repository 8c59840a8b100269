"""The operations of a `SqliteDb` as plain functions of a sqlite3 connection, each a whole transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from kern.db._rows import change_of, change_values, info_of, readable, run_of, run_values, session_of
from kern.db._sqlite_cancels import NOW, Cancels
from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_journal import Journals
from kern.db._sqlite_schema import transaction
from kern.db.base import ChangeRow, Commit, Committed, RunRow, SessionInfo, SessionRow, StateWrite
from kern.db.rows import applied, check_commit
from kern.errors import StoreError

_PARTS = {
    # JSON is stored as TEXT, for people with the sqlite3 shell, and converted from and to bytes in SQL.
    "session": (
        "session_id, user_id, CAST(state AS BLOB), state_version, revision, version,"
        " name, summary, created_at, updated_at, generation"
    ),
    "info": "session_id, user_id, name, summary, created_at, updated_at, used",
    "run": "run_id, session_id, runner_id, parent_run_id, status, generation, CAST(data AS BLOB), created_at",
    "change": (
        "session_id, revision, CAST(patch AS BLOB), CAST(agent_path AS BLOB),"
        " run_id, tool, tool_call_id, created_at"
    ),
    "now": NOW,
}

_NEXT = "(SELECT coalesce(max(used), 0) + 1 FROM {t})"
"""SQL: the number of the next commit, counted over all sessions of the table."""

_LAST = 2**63 - 1
"""Greater than every position."""

_SQL = {
    "load_session": "SELECT {session} FROM {t} WHERE session_id = ?",
    "insert_session": """
        INSERT INTO {t}
            (session_id, user_id, generation, created_at, used,
            updated_at, revision, summary, version, state_version, state)
        VALUES (?, ?, ?, ?, {next}, ?, ?, ?, ?, ?, CAST(? AS TEXT))""",
    "touch_session": "UPDATE {t} SET updated_at = ?, revision = ?, summary = ? WHERE session_id = ?",
    "update_session": """
        UPDATE {t} SET updated_at = ?, revision = ?, summary = ?,
            version = ?, state_version = ?, state = CAST(? AS TEXT)
        WHERE session_id = ?""",
    # A session that is already the last one is not changed, which saves writing pages of the indexes.
    "to_the_end": "UPDATE {t} SET used = {next} WHERE session_id = ? AND used < (SELECT max(used) FROM {t})",
    "find_run": "SELECT session_id, generation FROM {t}_runs WHERE run_id = ?",
    "put_run": """
        INSERT INTO {t}_runs
            (run_id, session_id, runner_id, parent_run_id, status, generation, created_at, data)
        VALUES (?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))
        ON CONFLICT (run_id) DO UPDATE SET
            runner_id = excluded.runner_id, parent_run_id = excluded.parent_run_id,
            status = excluded.status, generation = excluded.generation,
            created_at = excluded.created_at, data = excluded.data
        WHERE excluded.generation > generation""",
    "put_media": """
        INSERT INTO {t}_media (session_id, sha256, data) VALUES (?, ?, ?)
        ON CONFLICT (session_id, sha256) DO NOTHING""",
    "load_media": "SELECT CAST(data AS BLOB) FROM {t}_media WHERE session_id = ? AND sha256 = ?",
    "delete_media": "DELETE FROM {t}_media WHERE session_id = ?",
    "insert_change": """
        INSERT INTO {t}_changes
            (session_id, revision, run_id, tool, tool_call_id, agent_path, created_at, patch, commit_id, seq)
        SELECT ?1, ?2, ?3, ?4, ?5, CAST(?6 AS TEXT), ?7, CAST(?8 AS TEXT), ?9, coalesce(max(seq), 0) + 1
        FROM {t}_changes WHERE session_id = ?1 AND revision = ?2""",
    "find_commit": "SELECT 1 FROM {t}_changes WHERE session_id = ? AND revision > ? AND commit_id = ?",
    "load_run": "SELECT {run} FROM {t}_runs WHERE run_id = ?",
    "load_all_runs": """
        SELECT {run} FROM {t}_runs WHERE session_id = ?
        ORDER BY seq DESC LIMIT ?""",
    "load_all_runs_of_runner": """
        SELECT {run} FROM {t}_runs WHERE session_id = ? AND runner_id = ?
        ORDER BY seq DESC LIMIT ?""",
    "load_top_runs": """
        SELECT {run} FROM {t}_runs WHERE session_id = ? AND parent_run_id IS NULL
        ORDER BY seq DESC LIMIT ?""",
    "load_top_runs_of_runner": """
        SELECT {run} FROM {t}_runs WHERE session_id = ? AND runner_id = ? AND parent_run_id IS NULL
        ORDER BY seq DESC LIMIT ?""",
    "load_changes": """
        SELECT {change} FROM {t}_changes WHERE session_id = ? AND revision > ? ORDER BY revision, seq""",
    "list_sessions": "SELECT {info} FROM {t} WHERE used < ? ORDER BY used DESC LIMIT ?",
    "list_sessions_of_user": """
        SELECT {info} FROM {t} WHERE user_id = ? AND used < ? ORDER BY used DESC LIMIT ?""",
    "find_place": "SELECT seq FROM {t}_runs WHERE run_id = ?",
    "find_owner": "SELECT user_id FROM {t} WHERE session_id = ?",
    "list_runs": """
        SELECT {run} FROM {t}_runs
        WHERE seq < :before AND parent_run_id IS NULL AND (:status IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit""",
    "list_runs_of_session": """
        SELECT {run} FROM {t}_runs
        WHERE session_id = :session_id AND seq < :before AND parent_run_id IS NULL
            AND (:status IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit""",
    # Sorts all of the user's runs within the index, and reads the rows of one page. The cost depends on the
    # number of the user's own runs, not on those of others.
    "list_runs_of_user": """
        SELECT {run} FROM {t}_runs WHERE seq IN (
            SELECT r.seq FROM {t} AS s CROSS JOIN {t}_runs AS r ON r.session_id = s.session_id
            WHERE s.user_id = :user_id AND r.seq < :before AND r.parent_run_id IS NULL
                AND (:status IS NULL OR r.status = :status)
            ORDER BY r.seq DESC LIMIT :limit)
        ORDER BY seq DESC""",
    # The condition is that of the partial index: there are few runs that are not completed.
    "list_runs_by_status": """
        SELECT {run} FROM {t}_runs INDEXED BY {t}_runs_by_status
        WHERE status = :status AND status <> 'COMPLETED' AND parent_run_id IS NULL AND seq < :before
        ORDER BY seq DESC LIMIT :limit""",
    "list_runs_by_status_of_user": """
        SELECT {run} FROM {t}_runs WHERE seq IN (
            SELECT r.seq FROM {t}_runs AS r INDEXED BY {t}_runs_by_status
                CROSS JOIN {t} AS s ON s.session_id = r.session_id
            WHERE r.status = :status AND r.status <> 'COMPLETED' AND r.parent_run_id IS NULL
                AND r.seq < :before AND s.user_id = :user_id
            ORDER BY r.seq DESC LIMIT :limit)
        ORDER BY seq DESC""",
    "describe_session": """
        UPDATE {t} SET name = coalesce(?, name), summary = coalesce(?, summary) WHERE session_id = ?""",
    "delete_runs": "DELETE FROM {t}_runs WHERE session_id = ?",
    "delete_changes": "DELETE FROM {t}_changes WHERE session_id = ?",
    "delete_session": "DELETE FROM {t} WHERE session_id = ?",
    "sessions_of_user": "SELECT session_id FROM {t} WHERE user_id = ?",
    # More time left than the lease was given for: the clock was set back. Its owner has time to renew it.
    "bound_lease": """
        UPDATE {t}_leases SET expires_at = {now} + seconds WHERE name = ? AND expires_at > {now} + seconds""",
    "acquire_lease": """
        INSERT INTO {t}_leases (name, owner, seconds, expires_at) VALUES (?, ?, ?, {now} + ?)
        ON CONFLICT (name) DO UPDATE SET
            owner = excluded.owner, seconds = excluded.seconds, expires_at = excluded.expires_at
        WHERE owner = excluded.owner OR expires_at <= {now}""",
    "release_lease": "DELETE FROM {t}_leases WHERE name = ? AND owner = ?",
}


class Queries:
    """The operations on one set of tables.

    Args:
        path: The file, for error messages.
        table: The name of the table of sessions, checked by the caller.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self.cancels: Cancels = Cancels(path, table)
        self.journals: Journals = Journals(path, table)
        parts = {**_PARTS, "t": table, "next": _NEXT.format(t=table)}
        self._sql = {name: text.format(**parts) for name, text in _SQL.items()}

    def load_session(self, raw: sqlite3.Connection, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""
        with store_errors(self._path):
            found = raw.execute(self._sql["load_session"], (session_id,)).fetchone()
        return session_of(found) if found else None

    def commit(self, raw: sqlite3.Connection, commit: Commit) -> Committed:
        """Write all of `commit`, or nothing. Errors of `commit.resolve` are passed on unchanged."""
        with transaction(raw, self._path):
            stored = self.load_session(raw, commit.session_id)
            check_commit(stored, commit)
            if self._repeated(raw, commit) and stored is not None:
                return Committed(stored, repeated=True)
            write = commit.resolve(stored)
            row = applied(stored, commit, write)
            runs = commit.runs if write.runs is None else write.runs
            with store_errors(self._path):
                self._put_session(raw, row, write, new=stored is None)
                raw.executemany(self._sql["put_run"], map(run_values, runs))
                self.cancels.runs_ended(raw, runs)
                if commit.claim is not None:
                    self.journals.run_ended(raw, commit.claim)
                media = [(row.session_id, *item) for run in runs for item in run.media.items()]
                if media:
                    raw.executemany(self._sql["put_media"], media)
                if write.changes:
                    mark = None if runs else commit.id
                    changes = [(*change_values(change), mark) for change in write.changes]
                    raw.executemany(self._sql["insert_change"], changes)
        return Committed(row)

    def load_runs(
        self,
        raw: sqlite3.Connection,
        session_id: str,
        limit: int | None,
        runner_id: str | None,
        top_level: bool,
    ) -> list[RunRow]:
        """The session's newest `limit` runs, the oldest of them first."""
        name = "load_top_runs" if top_level else "load_all_runs"
        values: list[str | int] = [session_id]
        if runner_id is not None:
            name += "_of_runner"
            values.append(runner_id)
        values.append(-1 if limit is None else limit)
        with store_errors(self._path):
            rows = raw.execute(self._sql[name], values).fetchall()
        return readable(run_of, reversed(rows))

    def load_run(self, raw: sqlite3.Connection, run_id: str) -> RunRow | None:
        """One run, or None."""
        with store_errors(self._path):
            found = raw.execute(self._sql["load_run"], (run_id,)).fetchone()
        return run_of(found) if found else None

    def load_media(self, raw: sqlite3.Connection, session_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these hashes that are stored with the session."""
        with store_errors(self._path):
            found = {
                name: raw.execute(self._sql["load_media"], (session_id, name)).fetchone() for name in hashes
            }
        return {name: bytes(row[0]) for name, row in found.items() if row is not None}

    def load_session_and_run(
        self, raw: sqlite3.Connection, session_id: str, run_id: str
    ) -> tuple[SessionRow | None, RunRow | None]:
        """Both of them, or None."""
        return self.load_session(raw, session_id), self.load_run(raw, run_id)

    def load_changes(self, raw: sqlite3.Connection, session_id: str, after: int) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""
        with store_errors(self._path):
            rows = raw.execute(self._sql["load_changes"], (session_id, after)).fetchall()
        return [change_of(row) for row in rows]

    def list_sessions(
        self, raw: sqlite3.Connection, user_id: str | None, limit: int, before: int | None
    ) -> list[SessionInfo]:
        """Sessions, the one with the latest commit first."""
        name = "list_sessions" if user_id is None else "list_sessions_of_user"
        owner = () if user_id is None else (user_id,)
        with store_errors(self._path):
            values = (*owner, _LAST if before is None else before, limit)
            rows = raw.execute(self._sql[name], values).fetchall()
        return readable(info_of, rows)

    def list_runs(
        self,
        raw: sqlite3.Connection,
        session_id: str | None,
        user_id: str | None,
        status: str | None,
        limit: int,
        before: str | None,
    ) -> list[RunRow]:
        """Runs that the application started, the newest first."""
        values: dict[str, str | int | None] = {"status": status, "limit": limit, "before": _LAST}
        name = "list_runs" if status in (None, "COMPLETED") else "list_runs_by_status"
        if session_id is not None:
            name, values["session_id"] = "list_runs_of_session", session_id
        elif user_id is not None:
            name, values["user_id"] = f"{name}_of_user", user_id
        with store_errors(self._path):
            if before is not None:
                place = raw.execute(self._sql["find_place"], (before,)).fetchone()
                if place is None:
                    return []
                values["before"] = place[0]
            if session_id is not None and not self._owns(raw, session_id, user_id):
                return []
            rows = raw.execute(self._sql[name], values).fetchall()
        return readable(run_of, rows)

    def _owns(self, raw: sqlite3.Connection, session_id: str, user_id: str | None) -> bool:
        """Whether the session belongs to the user; None stands for any user."""
        if user_id is None:
            return True
        found: tuple[object] | None = raw.execute(self._sql["find_owner"], (session_id,)).fetchone()
        return found == (user_id,)

    def describe_session(
        self, raw: sqlite3.Connection, session_id: str, name: str | None, summary: str | None
    ) -> bool:
        """Set what is not None; False if there is no such session."""
        with transaction(raw, self._path), store_errors(self._path):
            return raw.execute(self._sql["describe_session"], (name, summary, session_id)).rowcount > 0

    def delete_session(self, raw: sqlite3.Connection, session_id: str) -> bool:
        """Delete the session with its runs, their media and its log; False if there is no such session."""
        with transaction(raw, self._path), store_errors(self._path):
            return self._delete(raw, session_id)

    def delete_user(self, raw: sqlite3.Connection, user_id: str) -> int:
        """Delete all sessions of the user."""
        with transaction(raw, self._path), store_errors(self._path):
            self.cancels.user_deleted(raw, user_id)
            own = raw.execute(self._sql["sessions_of_user"], (user_id,)).fetchall()
            self.journals.deleted(raw, user_id=user_id)
            return sum([self._delete(raw, session_id) for (session_id,) in own])

    def acquire_lease(self, raw: sqlite3.Connection, name: str, owner: str, seconds: float) -> bool:
        """Give `owner` the lease of that name for `seconds` from now."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["bound_lease"], (name,))
            return raw.execute(self._sql["acquire_lease"], (name, owner, seconds, seconds)).rowcount > 0

    def release_lease(self, raw: sqlite3.Connection, name: str, owner: str) -> None:
        """Give the lease back, if it is `owner`'s."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["release_lease"], (name, owner))

    def _repeated(self, raw: sqlite3.Connection, commit: Commit) -> bool:
        """Whether the commit was made before.

        Raises:
            StoreError: A run's id is taken by a run of another session.
        """
        if not commit.runs:
            after = 0 if commit.known is None else commit.known.revision
            with store_errors(self._path):
                values = (commit.session_id, after, commit.id)
                return raw.execute(self._sql["find_commit"], values).fetchone() is not None
        repeated = False
        for index, run in enumerate(commit.runs):
            with store_errors(self._path):
                known = raw.execute(self._sql["find_run"], (run.run_id,)).fetchone()
            if known is None:
                continue
            session_id, generation = known
            if session_id != run.session_id:
                raise StoreError(f"run_id {run.run_id!r} belongs to a run of another session")
            if index == 0:
                repeated = generation >= run.generation
        return repeated

    def _delete(self, raw: sqlite3.Connection, session_id: str) -> bool:
        self.cancels.session_deleted(raw, session_id)
        self.journals.deleted(raw, session_id=session_id)
        for name in ("delete_runs", "delete_media", "delete_changes"):
            raw.execute(self._sql[name], (session_id,))
        return raw.execute(self._sql["delete_session"], (session_id,)).rowcount > 0

    def _put_session(self, raw: sqlite3.Connection, row: SessionRow, write: StateWrite, *, new: bool) -> None:
        told = (row.updated_at, row.revision, row.summary)
        state = (row.version, row.state_version, row.state)
        if new:
            values = (row.session_id, row.user_id, row.generation, row.created_at, *told, *state)
            raw.execute(self._sql["insert_session"], values)
            return
        if write.state is None:
            raw.execute(self._sql["touch_session"], (*told, row.session_id))
        else:
            raw.execute(self._sql["update_session"], (*told, *state, row.session_id))
        raw.execute(self._sql["to_the_end"], (row.session_id,))
