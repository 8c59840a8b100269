"""The operations of a `SqliteDb` as plain functions of a sqlite3 connection, each a whole transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from kern.db._rows import change_of, change_values, info_of, readable, run_of, run_values, session_of
from kern.db._sqlite_cancels import Cancels
from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_journal import Journals
from kern.db._sqlite_numbers import changes_of, run_numbers
from kern.db._sqlite_schema import transaction
from kern.db._sqlite_sql import statements
from kern.db.base import ChangeRow, Commit, Committed, RunRow, SessionInfo, SessionRow, StateWrite
from kern.db.rows import applied, check_commit
from kern.errors import StoreError

_LAST = 2**63 - 1
"""Greater than every position."""


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
        self._sql = statements(table)

    def load_session(self, raw: sqlite3.Connection, session_id: str) -> SessionRow | None:
        """The session as it is stored, or None."""
        return self._find_session(raw, session_id)[0]

    def _find_session(self, raw: sqlite3.Connection, session_id: str) -> tuple[SessionRow | None, int]:
        """The session and its number."""
        with store_errors(self._path):
            found = raw.execute(self._sql["load_session"], (session_id,)).fetchone()
        return (session_of(found[:-1]), found[-1]) if found else (None, 0)

    def commit(self, raw: sqlite3.Connection, commit: Commit) -> Committed:
        """Write all of `commit`, or nothing. Errors of `commit.resolve` are passed on unchanged."""
        with transaction(raw, self._path):
            stored, number = self._find_session(raw, commit.session_id)
            check_commit(stored, commit)
            if stored is None:
                self.journals.check_owner(raw, commit)
            places: dict[str, int] = {}
            if self._repeated(raw, commit, places) and stored is not None:
                return Committed(stored, repeated=True)
            write = commit.resolve(stored)
            row = applied(stored, commit, write)
            runs = commit.runs if write.runs is None else write.runs
            with store_errors(self._path):
                if stored is None:
                    number = self._insert_session(raw, row)
                else:
                    self._update_session(raw, row, write)
                for run in runs:
                    self._put_run(raw, run, number, places)
                self.cancels.runs_ended(raw, runs)
                if commit.claim is not None:
                    self.journals.run_ended(raw, commit.claim)
                media = [(row.session_id, *item) for run in runs for item in run.media.items()]
                if media:
                    raw.executemany(self._sql["put_media"], media)
                if write.changes:
                    mark = None if runs else commit.id
                    first, last = changes_of(number)
                    (newest,) = raw.execute(self._sql["last_change"], (first, last)).fetchone()
                    changes = [
                        (seq, *change_values(change)[1:], mark)
                        for seq, change in enumerate(write.changes, (newest or first) + 1)
                    ]
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
            found = raw.execute(self._sql["load_run"], (*run_numbers(run_id), run_id)).fetchone()
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
        """The session and the run; None for each that is not stored."""
        return self.load_session(raw, session_id), self.load_run(raw, run_id)

    def load_changes(self, raw: sqlite3.Connection, session_id: str, after: int) -> list[ChangeRow]:
        """The log of state changes with a revision above `after`, oldest first."""
        with store_errors(self._path):
            values = {"session_id": session_id, "after": after}
            rows = raw.execute(self._sql["load_changes"], values).fetchall()
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
                place = raw.execute(self._sql["find_place"], (*run_numbers(before), before)).fetchone()
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
        """Set the values that are not None; False if there is no such session."""
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
        """End the lease, if `owner` has it."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["release_lease"], (name, owner))

    def _repeated(self, raw: sqlite3.Connection, commit: Commit, places: dict[str, int]) -> bool:
        """Whether the commit was made before. `places` receives the rows of its runs that are stored already.

        Raises:
            StoreError: A run of another session has the id of a run.
        """
        if not commit.runs:
            after = 0 if commit.known is None else commit.known.revision
            values = {"session_id": commit.session_id, "after": after, "id": commit.id}
            with store_errors(self._path):
                return raw.execute(self._sql["find_commit"], values).fetchone() is not None
        repeated = False
        for index, run in enumerate(commit.runs):
            found = self._find_run(raw, run.run_id)
            if found is None:
                continue
            session_id, generation, places[run.run_id] = found
            if session_id != run.session_id:
                raise StoreError(f"run_id {run.run_id!r} belongs to a run of another session")
            if index == 0:
                repeated = generation >= run.generation
        return repeated

    def _find_run(self, raw: sqlite3.Connection, run_id: str) -> tuple[str, int, int] | None:
        """The run's session, its generation and its row."""
        with store_errors(self._path):
            values = (*run_numbers(run_id), run_id)
            found: tuple[str, int, int] | None = raw.execute(self._sql["find_run"], values).fetchone()
        return found

    def _put_run(
        self, raw: sqlite3.Connection, run: RunRow, session_number: int, places: dict[str, int]
    ) -> None:
        """Store a run, unless it is stored in this generation or a later one."""
        run_id, session_id, *values = run_values(run)
        if run.run_id in places:
            raw.execute(self._sql["update_run"], (*values, places[run.run_id]))
            return
        place = raw.execute(self._sql["insert_run"], (run_id, session_number, session_id, *values)).lastrowid
        assert place is not None
        first, second = run_numbers(run.run_id)
        if raw.execute(self._sql["number_run"], (first, place)).rowcount == 0:
            raw.execute(self._sql["number_run"], (second, place))
        places[run.run_id] = place

    def _delete(self, raw: sqlite3.Connection, session_id: str) -> bool:
        self.cancels.session_deleted(raw, session_id)
        self.journals.deleted(raw, session_id=session_id)
        found = raw.execute(self._sql["find_number"], (session_id,)).fetchone()
        if found is None:
            return False
        (number,) = found
        runs = raw.execute(self._sql["ids_of_runs"], (number,)).fetchall()
        raw.executemany(self._sql["delete_run_ids"], [(*run_numbers(run_id), seq) for run_id, seq in runs])
        raw.execute(self._sql["delete_runs"], (number,))
        raw.execute(self._sql["delete_changes"], changes_of(number))
        raw.execute(self._sql["delete_media"], (session_id,))
        raw.execute(self._sql["delete_session"], (session_id,))
        return True

    def _insert_session(self, raw: sqlite3.Connection, row: SessionRow) -> int:
        columns = (row.updated_at, row.revision, row.summary)
        values = (row.session_id, row.user_id, row.generation, row.created_at, *columns)
        state = (row.version, row.state_version, row.state)
        number = raw.execute(self._sql["insert_session"], (*values, *state)).lastrowid
        assert number is not None
        return number

    def _update_session(self, raw: sqlite3.Connection, row: SessionRow, write: StateWrite) -> None:
        columns = (row.updated_at, row.revision, row.summary)
        if write.state is None:
            raw.execute(self._sql["touch_session"], (*columns, row.session_id))
        else:
            state = (row.version, row.state_version, row.state)
            raw.execute(self._sql["update_session"], (*columns, *state, row.session_id))
        raw.execute(self._sql["to_the_end"], (row.session_id,))
