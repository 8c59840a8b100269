"""Requests to cancel runs in SQLite. A request waits until the process that drives the run looks for it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_numbers import part_of
from kern.db._sqlite_schema import transaction
from kern.db.base import RunRow

NOW = "((julianday('now') - 2440587.5) * 86400.0)"
"""Seconds since the epoch, by the database's clock; unixepoch('subsec') needs SQLite 3.42."""

_MILLISECONDS = 0.002
"""The precision of times in the database, in seconds."""

_KEEP_SECONDS = 3600.0
"""How long a request for a run without a claim is kept. A run in progress looks for requests every second."""

_MOST = 10_000
"""How many requests of one user are kept, if the runs have no claims; the oldest are dropped first."""

Asked = Sequence[tuple[str, str | None, float | None]]
"""Runs, each with its user and the monotonic time at which it was asked for; None: at any time."""

_SQL = {
    "forget": """
        DELETE FROM {t}_cancels
        WHERE (requested_at < {now} - ?3 OR (trusted = ?1 AND user_id = ?2 AND rowid <= (
            SELECT rowid FROM {t}_cancels WHERE trusted = ?1 AND user_id = ?2
            ORDER BY rowid DESC LIMIT 1 OFFSET ?4)))
        AND NOT EXISTS (SELECT 1 FROM {t}_claims AS c WHERE c.run_id = {t}_cancels.run_id)""",
    "request": """
        INSERT INTO {t}_cancels (run_id, trusted, user_id, requested_at) VALUES (?, ?, ?, {now})
        ON CONFLICT (run_id, trusted, user_id) DO UPDATE SET requested_at = excluded.requested_at""",
    "find": """
        SELECT max(requested_at) >= {now} - coalesce(?, {now}) FROM {t}_cancels
        WHERE run_id = ? AND (trusted OR user_id = ?)""",
    "take": "DELETE FROM {t}_cancels WHERE run_id = ? AND (trusted OR user_id = ?)",
    "ended": "DELETE FROM {t}_cancels WHERE run_id = ?",
    "session": """
        DELETE FROM {t}_cancels WHERE run_id IN (
            SELECT r.run_id FROM {t}_runs_by_age AS a CROSS JOIN {t}_runs AS r ON r.seq = a.place & 4294967295
            WHERE a.place BETWEEN ? AND ?)""",
    "user": "DELETE FROM {t}_cancels WHERE user_id = ? AND NOT trusted",
}


class Cancels:
    """The queries on requests to cancel. `runs_ended` and the following ones are part of another transaction.

    Args:
        path: The file, for error messages.
        table: The name of the sessions' table, checked by the caller.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._sql = {name: text.format(t=table, now=NOW) for name, text in _SQL.items()}

    def request(self, raw: sqlite3.Connection, run_id: str, user_id: str | None) -> None:
        """Ask for the run to be cancelled."""
        with transaction(raw, self._path), store_errors(self._path):
            name = (user_id is None, user_id or "")
            raw.execute(self._sql["request"], (run_id, *name))
            raw.execute(self._sql["forget"], (*name, _KEEP_SECONDS, _MOST))

    def find(self, raw: sqlite3.Connection, asked: Asked) -> Asked:
        """The runs for which there are requests, of whatever age."""
        with store_errors(self._path):
            return [run for run in asked if self._counts(raw, *run) is not None]

    def take(self, raw: sqlite3.Connection, asked: Asked) -> set[str]:
        """Delete the requests for these runs; return the ids of the runs for which a request counts."""
        wanted: set[str] = set()
        with transaction(raw, self._path), store_errors(self._path):
            for run_id, owner, since in asked:
                if self._counts(raw, run_id, owner, since):
                    wanted.add(run_id)
                raw.execute(self._sql["take"], (run_id, owner))
        return wanted

    def runs_ended(self, raw: sqlite3.Connection, runs: Sequence[RunRow]) -> None:
        """Delete the requests for those of the runs that have ended."""
        raw.executemany(self._sql["ended"], [(run.run_id,) for run in runs if run.ended])

    def session_deleted(self, raw: sqlite3.Connection, session_number: int) -> None:
        """Delete the requests for the runs of a session, before the runs are deleted."""
        raw.execute(self._sql["session"], part_of(session_number))

    def user_deleted(self, raw: sqlite3.Connection, user_id: str) -> None:
        """Delete the requests in the user's name."""
        raw.execute(self._sql["user"], (user_id,))

    def _counts(
        self, raw: sqlite3.Connection, run_id: str, owner: str | None, since: float | None
    ) -> int | None:
        """Whether a request for the run counts (1 or 0); None if there is none."""
        age = None if since is None else time.monotonic() - since + _MILLISECONDS
        found: tuple[int | None] = raw.execute(self._sql["find"], (age, run_id, owner)).fetchone()
        return found[0]
