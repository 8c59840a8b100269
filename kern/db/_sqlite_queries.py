"""The operations of a `SqliteDb` as plain functions of a sqlite3 connection, each a whole transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kern.db._rows import change_of, change_values, info_of, readable, run_of, run_values, session_of
from kern.db._sqlite_cancels import Cancels
from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_journal import Journals
from kern.db._sqlite_numbers import part_of, run_key, run_numbers, session_key, session_place
from kern.db._sqlite_schema import transaction
from kern.db._sqlite_sql import statements
from kern.db.base import ChangeRow, Commit, Committed, RunRow, SessionInfo, SessionRow, StateWrite
from kern.db.rows import applied, check_commit
from kern.errors import StoreError

_LAST = 2**63 - 1
"""Greater than every position of a session."""

_LAST_RUN = 2**32
"""Greater than the place of every run."""


class _Seen(NamedTuple):
    """What a commit finds.

    The session, its number, and its place in the order of use: whether that is the last one. The place of the
    first run. Whether there are claims to runs of the session, and requests to cancel any runs.
    """

    session: SessionRow | None
    number: int
    run_place: int | None
    is_last: bool
    claimed: int
    cancels: int
    used: int = 0


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
        with store_errors(self._path):
            found = raw.execute(self._sql["load_session"], session_key(session_id)).fetchone()
        return session_of(found) if found else None

    def commit(self, raw: sqlite3.Connection, commit: Commit) -> Committed:
        """Write all of `commit`, or nothing. Errors of `commit.resolve` are passed on unchanged."""
        with transaction(raw, self._path):
            seen = self._look(raw, commit)
            stored = seen.session
            check_commit(stored, commit)
            if stored is None and seen.claimed:
                self.journals.check_owner(raw, commit)
            places: dict[str, int] = {}
            if self._repeated(raw, commit, seen, places) and stored is not None:
                return Committed(stored, repeated=True)
            write = commit.resolve(stored)
            row = applied(stored, commit, write)
            runs = commit.runs if write.runs is None else write.runs
            with store_errors(self._path):
                if stored is None:
                    number = self._insert_session(raw, row)
                else:
                    number = seen.number
                    self._update_session(raw, row, write, seen)
                for run in runs:
                    self._put_run(raw, run, number, places)
                if seen.cancels:
                    self.cancels.runs_ended(raw, runs)
                if commit.claim is not None:
                    self.journals.run_ended(raw, commit.claim)
                for run in runs:
                    if run.media:
                        media = [(row.session_id, *item) for item in run.media.items()]
                        raw.executemany(self._sql["put_media"], media)
                if write.changes:
                    mark = None if runs else commit.id
                    part = part_of(number)
                    changes = [(*part, *change_values(change)[1:], mark) for change in write.changes]
                    raw.executemany(self._sql["insert_change"], changes)
        return Committed(row)

    def _look(self, raw: sqlite3.Connection, commit: Commit) -> _Seen:
        """Read what a commit has to know before it writes."""
        run = run_key(commit.runs[0].run_id) if commit.runs else (None, None, None)
        with store_errors(self._path):
            seen = raw.execute(self._sql["look"], (*session_key(commit.session_id), *run)).fetchone()
            number, run_place, last_used, claimed, cancels = seen
            if number is None:
                return _Seen(None, 0, run_place, False, claimed, cancels)
            (*found, used) = raw.execute(self._sql["session_at"], (number,)).fetchone()
        return _Seen(session_of(tuple(found)), number, run_place, used == last_used, claimed, cancels, used)

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
        values: list[str | int] = [*session_key(session_id), -1 if limit is None else limit]
        if runner_id is not None:
            name += "_of_runner"
            values.append(runner_id)
        with store_errors(self._path):
            rows = raw.execute(self._sql[name], values).fetchall()
        return readable(run_of, reversed(rows))

    def load_run(self, raw: sqlite3.Connection, run_id: str) -> RunRow | None:
        """One run, or None."""
        with store_errors(self._path):
            found = raw.execute(self._sql["load_run"], run_key(run_id)).fetchone()
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
            rows = raw.execute(self._sql["load_changes"], (*session_key(session_id), after)).fetchall()
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
        values: dict[str, str | int | None] = {"status": status, "limit": limit, "before": _LAST_RUN}
        name = "list_runs" if status in (None, "COMPLETED") else "list_runs_by_status"
        if session_id is not None:
            name = "list_runs_of_session"
            values["place"], values["session_id"] = session_key(session_id)
        elif user_id is not None:
            name, values["user_id"] = f"{name}_of_user", user_id
        with store_errors(self._path):
            if before is not None:
                place = raw.execute(self._sql["find_place"], run_key(before)).fetchone()
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
        found: tuple[object] | None = raw.execute(self._sql["find_owner"], session_key(session_id)).fetchone()
        return bool(found == (user_id,))

    def describe_session(
        self, raw: sqlite3.Connection, session_id: str, name: str | None, summary: str | None
    ) -> bool:
        """Set the values that are not None; False if there is no such session."""
        with transaction(raw, self._path), store_errors(self._path):
            values = (*session_key(session_id), name, summary)
            return raw.execute(self._sql["describe_session"], values).rowcount > 0

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

    def _repeated(self, raw: sqlite3.Connection, commit: Commit, seen: _Seen, places: dict[str, int]) -> bool:
        """Whether the commit was made before. `places` receives the rows of its runs that are stored already.

        Raises:
            StoreError: A run of another session has the id of a run.
        """
        if not commit.runs:
            after = 0 if commit.known is None else commit.known.revision
            with store_errors(self._path):
                values = (seen.number, after, commit.id)
                return raw.execute(self._sql["find_commit"], values).fetchone() is not None
        repeated = False
        for index, run in enumerate(commit.runs):
            found = self._find_run(raw, run.run_id) if index else self._run_at(raw, seen.run_place)
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
            found: tuple[str, int, int] | None = raw.execute(
                self._sql["find_run"], run_key(run_id)
            ).fetchone()
        return found

    def _run_at(self, raw: sqlite3.Connection, place: int | None) -> tuple[str, int, int] | None:
        """The same, if the place is known."""
        if place is None:
            return None
        with store_errors(self._path):
            found: tuple[str, int, int] | None = raw.execute(self._sql["run_at"], (place,)).fetchone()
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
            raw.execute(self._sql["number_run_anew"], (second, place))
        at = (session_number << 32) + place
        raw.execute(self._sql["age_run"], (at, run.parent_run_id is not None, run.runner_id))
        places[run.run_id] = place

    def _delete(self, raw: sqlite3.Connection, session_id: str) -> bool:
        (number,) = raw.execute(self._sql["find_number"], session_key(session_id)).fetchone()
        self.journals.deleted(raw, session_id=session_id, session_number=number)
        if number is None:
            return False
        self.cancels.session_deleted(raw, number)
        part = part_of(number)
        runs = raw.execute(self._sql["ids_of_runs"], part).fetchall()
        raw.executemany(self._sql["delete_run_ids"], [(*run_numbers(run_id), seq) for run_id, seq in runs])
        raw.executemany(self._sql["delete_run"], [(seq,) for _, seq in runs])
        raw.execute(self._sql["delete_ages"], part)
        raw.execute(self._sql["delete_changes"], part)
        raw.execute(self._sql["delete_media"], (session_id,))
        raw.execute(self._sql["unnumber_session"], (session_place(session_id) + number,))
        raw.execute(self._sql["delete_use"], (number,))
        raw.execute(self._sql["delete_session"], (number,))
        return True

    def _insert_session(self, raw: sqlite3.Connection, row: SessionRow) -> int:
        columns = (row.updated_at, row.revision, row.summary)
        values = (row.session_id, row.user_id, row.generation, row.created_at, *columns)
        state = (row.version, row.state_version, row.state)
        number = raw.execute(self._sql["insert_session"], (*values, *state)).lastrowid
        assert number is not None
        raw.execute(self._sql["number_session"], (session_place(row.session_id) + number,))
        raw.execute(self._sql["use_session"], (number,))
        return number

    def _update_session(
        self, raw: sqlite3.Connection, row: SessionRow, write: StateWrite, seen: _Seen
    ) -> None:
        columns = (row.updated_at, row.revision, row.summary)
        if write.state is None:
            raw.execute(self._sql["touch_session"], (*columns, seen.number))
        else:
            state = (row.version, row.state_version, row.state)
            raw.execute(self._sql["update_session"], (*columns, *state, seen.number))
        if not seen.is_last:
            raw.execute(self._sql["to_the_end"], (seen.number,))
            raw.execute(self._sql["use_at_the_end"], (seen.used,))
