"""The tables of a `SqliteDb`, as a list of migrations. The version of a file is how many were applied to it.

JSON is stored as TEXT, so that people can read it with the sqlite3 shell. `{t}` is the table of sessions; the
names of the others begin with its name. Never change a migration that was released; add another.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_numbers import run_numbers, session_place
from kern.errors import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # The state is the last column, so that an update of the columns before it does not write its pages.
        """CREATE TABLE {t} (
            session_id TEXT NOT NULL PRIMARY KEY,
            user_id TEXT,
            name TEXT,
            summary TEXT,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            revision INTEGER NOT NULL,
            version INTEGER NOT NULL,
            state_version INTEGER NOT NULL,
            state TEXT NOT NULL
        )""",
        "CREATE INDEX {t}_by_user ON {t} (user_id, updated_at)",
        """CREATE TABLE {t}_runs (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            session_id TEXT NOT NULL,
            runner_id TEXT NOT NULL,
            parent_run_id TEXT,
            status TEXT NOT NULL,
            generation INTEGER NOT NULL,
            created_at REAL NOT NULL,
            data TEXT NOT NULL
        )""",
        # The newest N runs are the end of a range of this index; members' runs are skipped within the index.
        "CREATE INDEX {t}_runs_by_age ON {t}_runs (session_id, created_at, seq, parent_run_id)",
        "CREATE INDEX {t}_runs_by_runner ON {t}_runs (session_id, runner_id, created_at, seq)",
        """CREATE TABLE {t}_changes (
            seq INTEGER PRIMARY KEY,
            session_id TEXT NOT NULL,
            revision INTEGER NOT NULL,
            run_id TEXT,
            tool TEXT,
            tool_call_id TEXT,
            agent_path TEXT NOT NULL,
            created_at REAL NOT NULL,
            patch TEXT NOT NULL
        )""",
        "CREATE INDEX {t}_changes_by_revision ON {t}_changes (session_id, revision)",
        """CREATE TABLE {t}_leases (
            session_id TEXT NOT NULL PRIMARY KEY,
            owner TEXT NOT NULL,
            expires_at REAL NOT NULL
        )""",
        """CREATE TABLE {t}_cancels (
            run_id TEXT NOT NULL PRIMARY KEY,
            requested_at REAL NOT NULL
        )""",
    ),
    (
        # Order by sequence, since clocks are set back: sessions by their last commit, runs by their first.
        "ALTER TABLE {t} RENAME TO {t}_before",
        """CREATE TABLE {t} (
            session_id TEXT NOT NULL PRIMARY KEY,
            user_id TEXT,
            name TEXT,
            summary TEXT,
            generation TEXT NOT NULL,
            used INTEGER NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            revision INTEGER NOT NULL,
            version INTEGER NOT NULL,
            state_version INTEGER NOT NULL,
            state TEXT NOT NULL
        )""",
        """INSERT INTO {t}
            SELECT session_id, user_id, name, summary, '', row_number() OVER (ORDER BY updated_at, rowid),
                created_at, updated_at, revision, version, state_version, state
            FROM {t}_before ORDER BY rowid""",
        "DROP TABLE {t}_before",
        "CREATE INDEX {t}_by_user ON {t} (user_id, used)",
        "CREATE INDEX {t}_by_use ON {t} (used)",
        "DROP INDEX {t}_runs_by_age",
        "DROP INDEX {t}_runs_by_runner",
        # One index for all queries, so that a commit writes a page less.
        "CREATE INDEX {t}_runs_by_age ON {t}_runs (session_id, seq, parent_run_id, runner_id)",
        # Identifies commits without runs, so that one that comes twice is recognised.
        "ALTER TABLE {t}_changes ADD COLUMN commit_id TEXT",
        "DROP TABLE {t}_leases",
        """CREATE TABLE {t}_leases (
            name TEXT NOT NULL PRIMARY KEY,
            owner TEXT NOT NULL,
            seconds REAL NOT NULL,
            expires_at REAL NOT NULL
        )""",
    ),
    (
        # Images and other files of a session; each is stored once, however many rows refer to it.
        """CREATE TABLE {t}_media (
            session_id TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (session_id, sha256)
        )""",
    ),
    (
        # The user in whose name a request to cancel is made; the process that drives the run checks it. The
        # requests that this drops are at most some seconds old.
        "DROP TABLE {t}_cancels",
        """CREATE TABLE {t}_cancels (
            run_id TEXT NOT NULL,
            trusted INTEGER NOT NULL,
            user_id TEXT NOT NULL,
            requested_at REAL NOT NULL,
            PRIMARY KEY (run_id, trusted, user_id)
        )""",
    ),
    (
        # Finds paused and failed runs among any number of completed ones. A completed run has no entry, so
        # that its commit does not write another page.
        """CREATE INDEX {t}_runs_by_status ON {t}_runs (status, seq, session_id)
            WHERE parent_run_id IS NULL AND status <> 'COMPLETED'""",
    ),
    (
        # A commit writes whole pages, so each row is in as few B-trees as possible: the log is its own index,
        # and a session without a user has no entry in the index of users.
        "ALTER TABLE {t}_changes RENAME TO {t}_changes_before",
        """CREATE TABLE {t}_changes (
            session_id TEXT NOT NULL,
            revision INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            run_id TEXT,
            tool TEXT,
            tool_call_id TEXT,
            agent_path TEXT NOT NULL,
            created_at REAL NOT NULL,
            patch TEXT NOT NULL,
            commit_id TEXT,
            PRIMARY KEY (session_id, revision, seq)
        ) WITHOUT ROWID""",
        """INSERT INTO {t}_changes
            SELECT session_id, revision, seq, run_id, tool, tool_call_id, agent_path, created_at, patch,
                commit_id
            FROM {t}_changes_before ORDER BY session_id, revision, seq""",
        "DROP TABLE {t}_changes_before",
        "DROP INDEX {t}_by_user",
        "CREATE INDEX {t}_by_user ON {t} (user_id, used) WHERE user_id IS NOT NULL",
    ),
    (
        # Durable runs: which process has each, and the steps that are done. Both tables hold only runs with a
        # journal that have not ended.
        """CREATE TABLE {t}_claims (
            run_id TEXT NOT NULL PRIMARY KEY,
            owner TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            seconds REAL NOT NULL,
            expires_at REAL NOT NULL
        )""",
        """CREATE TABLE {t}_steps (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL,
            key TEXT NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL
        )""",
        "CREATE UNIQUE INDEX {t}_steps_by_run ON {t}_steps (run_id, key)",
    ),
    (
        # Submitted runs, which any process may begin, with their requests.
        "ALTER TABLE {t}_claims ADD COLUMN before TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN session_id TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN runner_id TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN request TEXT",
    ),
    (
        # What listings show of runs that have not ended, and the events of runs.
        "ALTER TABLE {t}_claims ADD COLUMN user_id TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN is_team INTEGER",
        "ALTER TABLE {t}_claims ADD COLUMN begun_at REAL NOT NULL DEFAULT 0",
        """CREATE TABLE {t}_events (
            run_id TEXT NOT NULL,
            last_seq INTEGER NOT NULL,
            written_at REAL NOT NULL,
            data TEXT NOT NULL,
            PRIMARY KEY (run_id, last_seq)
        )""",
        "CREATE INDEX {t}_events_by_age ON {t}_events (written_at)",
    ),
    (
        # For deleting sessions and users: finds their unfinished runs.
        "CREATE INDEX {t}_claims_by_session ON {t}_claims (session_id) WHERE session_id IS NOT NULL",
        "CREATE INDEX {t}_claims_by_user ON {t}_claims (user_id) WHERE user_id IS NOT NULL",
    ),
    (
        # Tables of numbers in place of indexes: a table whose numbers grow is written at its end, and its
        # pages are never split; an index moves the entries of up to four pages when the last one is full.
        # A session's changes, and the places of its runs, are numbered from 2**32 times its number; see
        # `_sqlite_numbers`.
        "ALTER TABLE {t} RENAME TO {t}_before",
        """CREATE TABLE {t} (
            number INTEGER PRIMARY KEY,
            session_id TEXT NOT NULL,
            user_id TEXT,
            name TEXT,
            summary TEXT,
            generation TEXT NOT NULL,
            used INTEGER NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            revision INTEGER NOT NULL,
            version INTEGER NOT NULL,
            state_version INTEGER NOT NULL,
            state TEXT NOT NULL
        )""",
        """INSERT INTO {t}
            SELECT rowid, session_id, user_id, name, summary, generation,
                row_number() OVER (ORDER BY used, rowid), created_at, updated_at, revision, version,
                state_version, state
            FROM {t}_before ORDER BY rowid""",
        "DROP TABLE {t}_before",
        "CREATE INDEX {t}_by_user ON {t} (user_id, used) WHERE user_id IS NOT NULL",
        "CREATE TABLE {t}_by_use (used INTEGER PRIMARY KEY, session_number INTEGER NOT NULL)",
        "INSERT INTO {t}_by_use SELECT used, number FROM {t} ORDER BY used",
        "CREATE TABLE {t}_session_ids (place INTEGER PRIMARY KEY)",
        """INSERT INTO {t}_session_ids
            SELECT kern_session_place(CAST(session_id AS BLOB)) + number AS place FROM {t} ORDER BY place""",
        "ALTER TABLE {t}_runs RENAME TO {t}_runs_before",
        """CREATE TABLE {t}_runs (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL,
            session_number INTEGER NOT NULL,
            session_id TEXT NOT NULL,
            runner_id TEXT NOT NULL,
            parent_run_id TEXT,
            status TEXT NOT NULL,
            generation INTEGER NOT NULL,
            created_at REAL NOT NULL,
            data TEXT NOT NULL
        )""",
        """INSERT INTO {t}_runs
            SELECT seq, run_id, s.number, r.session_id, runner_id, parent_run_id, status, r.generation,
                r.created_at, data
            FROM {t}_runs_before AS r CROSS JOIN {t} AS s ON s.session_id = r.session_id ORDER BY seq""",
        "DROP TABLE {t}_runs_before",
        """CREATE TABLE {t}_runs_by_age (
            place INTEGER PRIMARY KEY,
            member INTEGER NOT NULL,
            runner_id TEXT NOT NULL
        )""",
        """INSERT INTO {t}_runs_by_age
            SELECT (session_number << 32) + seq AS place, parent_run_id IS NOT NULL, runner_id
            FROM {t}_runs ORDER BY place""",
        """CREATE INDEX {t}_runs_by_status ON {t}_runs (status, seq, session_number)
            WHERE parent_run_id IS NULL AND status <> 'COMPLETED'""",
        "CREATE TABLE {t}_run_ids (number INTEGER PRIMARY KEY, seq INTEGER NOT NULL)",
        """INSERT OR IGNORE INTO {t}_run_ids
            SELECT kern_run_number(CAST(run_id AS BLOB), 0), seq FROM {t}_runs ORDER BY seq""",
        """INSERT INTO {t}_run_ids
            SELECT kern_run_number(CAST(run_id AS BLOB), 1), seq FROM {t}_runs
            WHERE seq NOT IN (SELECT seq FROM {t}_run_ids) ORDER BY seq""",
        "ALTER TABLE {t}_changes RENAME TO {t}_changes_before",
        """CREATE TABLE {t}_changes (
            seq INTEGER PRIMARY KEY,
            revision INTEGER NOT NULL,
            run_id TEXT,
            tool TEXT,
            tool_call_id TEXT,
            agent_path TEXT NOT NULL,
            created_at REAL NOT NULL,
            patch TEXT NOT NULL,
            commit_id TEXT
        )""",
        """INSERT INTO {t}_changes
            SELECT (s.number << 32) + row_number() OVER (PARTITION BY s.number ORDER BY c.revision, c.seq),
                c.revision, run_id, tool, tool_call_id, agent_path, c.created_at, patch, commit_id
            FROM {t}_changes_before AS c CROSS JOIN {t} AS s ON s.session_id = c.session_id""",
        "DROP TABLE {t}_changes_before",
    ),
)


class transaction:
    """Commits the block, or rolls it back if it raises.

    The transaction is IMMEDIATE. A transaction that begins by reading fails at its first write if another
    process has written in between, and the busy timeout does not help.
    """

    __slots__ = ("_path", "_raw")

    def __init__(self, raw: sqlite3.Connection, path: Path) -> None:
        self._raw = raw
        self._path = path

    def __enter__(self) -> None:
        with store_errors(self._path):
            self._raw.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._undo()
            return
        try:
            with store_errors(self._path):
                self._raw.execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._raw.in_transaction:  # SQLite has already rolled back after an error such as a full disk
            with suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")


def migrate(raw: sqlite3.Connection, path: Path, table: str) -> None:
    """Create the tables, or upgrade them to the newest version. Several processes may try at the same time.

    Args:
        raw: The connection.
        path: The file, for error messages.
        table: The name of the table of sessions.

    Raises:
        StoreError: The tables belong to a newer version of Kern, or another program made this table.
    """
    if _version(raw, path, table) == len(MIGRATIONS):
        return
    with transaction(raw, path):
        done = _version(raw, path, table)  # another process may have done it in the meantime
        if done > len(MIGRATIONS):
            raise StoreError(
                f"{path}: the tables of {table!r} have version {done}, written by a newer Kern; "
                f"this one knows versions up to {len(MIGRATIONS)}: update Kern, or choose another db_file"
            )
        with store_errors(path):
            raw.create_function("kern_run_number", 2, lambda run_id, which: run_numbers(run_id)[which])
            raw.create_function("kern_session_place", 1, session_place)
            if done == 0:
                raw.execute(f"CREATE TABLE {table}_schema (version INTEGER PRIMARY KEY, applied_at REAL)")
            for version, statements in enumerate(MIGRATIONS[done:], done + 1):
                for statement in statements:
                    raw.execute(statement.format(t=table))
                raw.execute(_RECORD.format(t=table), (version,))


_VERSION = "SELECT max(version) FROM {t}_schema"
_RECORD = "INSERT INTO {t}_schema (version, applied_at) VALUES (?, (julianday('now') - 2440587.5) * 86400.0)"
_EXISTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"


def _version(raw: sqlite3.Connection, path: Path, table: str) -> int:
    with store_errors(path):
        if raw.execute(_EXISTS, (f"{table}_schema",)).fetchone() is None:
            return 0
        version: int = raw.execute(_VERSION.format(t=table)).fetchone()[0] or 0
        return version
