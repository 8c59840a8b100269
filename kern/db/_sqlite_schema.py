"""The tables of a `SqliteDb`, as a list of migrations: a file's version is how many of them it has seen.

JSON is stored as TEXT, so that a person with the sqlite3 shell can read it. `{t}` is the sessions' table, and
the names of all others begin with its name. A migration that was released is never changed; add another.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from kern.db._sqlite_errors import store_errors
from kern.errors import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # The state comes last: an update of what stands before it leaves its pages alone.
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
        # The newest N runs are the end of a range of these, whatever came before; members' runs, which
        # lie between, are passed over in the index.
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
        # One for all: a commit writes a page less, and the runs of others are passed over in the index.
        "CREATE INDEX {t}_runs_by_age ON {t}_runs (session_id, seq, parent_run_id, runner_id)",
        # For commits without runs, which are known by nothing else when they come twice.
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
        # Pictures and other files of a session, each once, however many of its rows name it.
        """CREATE TABLE {t}_media (
            session_id TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (session_id, sha256)
        )""",
    ),
    (
        # Whose name a request to cancel is made in: the process that drives the run checks it. What is lost
        # here is no older than a second.
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
        # Runs that wait for a person, and failed ones, among any number of completed ones. A completed run
        # has no entry, so that its commit writes no page more.
        """CREATE INDEX {t}_runs_by_status ON {t}_runs (status, seq, session_id)
            WHERE parent_run_id IS NULL AND status <> 'COMPLETED'""",
    ),
    (
        # A commit writes whole pages, so a row is in as few trees as can be: the log is its own index, and a
        # session of nobody's has no entry among those of users.
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
        # Runs that outlive their process: who has each, and the steps that are done. Both are empty but for
        # runs with a journal that have not ended.
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
        # Runs that were submitted, for any process to begin them: what they are asked.
        "ALTER TABLE {t}_claims ADD COLUMN before TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN session_id TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN runner_id TEXT",
        "ALTER TABLE {t}_claims ADD COLUMN request TEXT",
    ),
    (
        # What is to be known of a run that goes on, and what it has told.
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
        # Deleting a session, or a user, finds the unfinished runs.
        "CREATE INDEX {t}_claims_by_session ON {t}_claims (session_id) WHERE session_id IS NOT NULL",
        "CREATE INDEX {t}_claims_by_user ON {t}_claims (user_id) WHERE user_id IS NOT NULL",
    ),
)


class transaction:
    """Commit the block, or undo it if it raises.

    Always IMMEDIATE: a transaction that begins by reading and writes later fails at once if another process
    has written in between, whatever the timeout.
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
        if self._raw.in_transaction:  # a full disk has ended it already
            with suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")


def migrate(raw: sqlite3.Connection, path: Path, table: str) -> None:
    """Bring the tables that belong to `table` up to the newest version; safe against other processes.

    Raises:
        StoreError: A newer Kern has written the file, or it has a table of that name that is not Kern's.
    """
    if _version(raw, path, table) == len(MIGRATIONS):
        return
    with transaction(raw, path):
        done = _version(raw, path, table)  # another process may have been quicker
        if done > len(MIGRATIONS):
            raise StoreError(
                f"{path}: the tables of {table!r} have version {done}, written by a newer Kern; "
                f"this one knows versions up to {len(MIGRATIONS)}: update it, or choose another db_file"
            )
        with store_errors(path):
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
