"""The SQL of a `SqliteDb`. `{t}` is the table of sessions; the names of the others begin with its name.

The parameters of a statement that looks for a session's id begin with its place and the id; those of one that
looks for a run's id with its two numbers and the id. See `_sqlite_numbers`.
"""

from __future__ import annotations

from kern.db._sqlite_cancels import NOW

_PARTS = {
    # JSON is stored as TEXT, for people with the sqlite3 shell, and converted from and to bytes in SQL.
    "session": (
        "session_id, user_id, CAST(state AS BLOB), state_version, revision, version,"
        " name, summary, created_at, updated_at, generation"
    ),
    "info": "s.session_id, s.user_id, s.name, s.summary, s.created_at, s.updated_at, s.used",
    "run": (
        "r.run_id, r.session_id, r.runner_id, r.parent_run_id, r.status, r.generation,"
        " CAST(r.data AS BLOB), r.created_at"
    ),
    "change": (
        "?2, revision, CAST(patch AS BLOB), CAST(agent_path AS BLOB), run_id, tool, tool_call_id, created_at"
    ),
    "now": NOW,
}

_SESSION = """(SELECT x.number FROM {t}_session_ids AS i
                CROSS JOIN {t} AS x ON x.number = i.place & 4294967295
            WHERE i.place BETWEEN {place} AND {place} + 4294967295 AND x.session_id = {id})"""

_RUN = """(SELECT i.seq FROM {t}_run_ids AS i CROSS JOIN {t}_runs AS x ON x.seq = i.seq
            WHERE i.number = {number} AND x.run_id = {id})"""


def session_at(table: str, place: str = "?1", session_id: str = "?2") -> str:
    """SQL: the number of a session. A deleted session's number may be used again, so no call keeps one."""
    return _SESSION.format(t=table, place=place, id=session_id)


def run_at(table: str, first: str = "?1", second: str = "?2", run_id: str = "?3") -> str:
    """SQL: the row of a run, by its two numbers and its id.

    `IN` would build a table of the numbers each time.
    """
    found = [_RUN.format(t=table, number=number, id=run_id) for number in (first, second)]
    return f"coalesce({', '.join(found)})"


_NEWER = """
        seq <= {changes} + 4294967295
        AND seq > coalesce((SELECT seq FROM {t}_changes
            WHERE seq BETWEEN {changes} AND {changes} + 4294967295 AND revision <= {after}
            ORDER BY seq DESC LIMIT 1), {changes})"""
"""SQL: the session's changes with a revision above `after`, searched from the end of the log."""

_OF_SESSION = """{t} AS s
            CROSS JOIN {t}_runs_by_age AS a
                ON a.place BETWEEN s.number << 32 AND (s.number << 32) + 4294967295
            CROSS JOIN {t}_runs AS r ON r.seq = a.place & 4294967295"""
"""SQL: sessions with their runs. A run's place is its session's number, and `seq` in the lower 32 bits."""

_NEXT = "(SELECT coalesce(max(used), 0) + 1 FROM {t}_by_use)"
"""SQL: the number of the next commit, counted over all sessions of the table."""

SQL = {
    "load_session": "SELECT {session} FROM {t} WHERE number = {session_at}",
    "session_at": "SELECT {session}, used FROM {t} WHERE number = ?",
    # What a commit has to know before it writes, in one statement: where the session and the first run are,
    # the last `used`, and whether there is anything in tables that are nearly always empty.
    "look": """
        SELECT {session_at}, {run_of_commit}, (SELECT max(used) FROM {t}_by_use),
            EXISTS (SELECT 1 FROM {t}_claims WHERE session_id = ?2),
            EXISTS (SELECT 1 FROM {t}_cancels WHERE rowid > 0)""",
    "insert_session": """
        INSERT INTO {t}
            (session_id, user_id, generation, created_at, used,
            updated_at, revision, summary, version, state_version, state)
        VALUES (?, ?, ?, ?, {next}, ?, ?, ?, ?, ?, CAST(? AS TEXT))""",
    "number_session": "INSERT INTO {t}_session_ids (place) VALUES (?)",
    "use_session": "INSERT INTO {t}_by_use (used, session_number) VALUES ({next}, ?)",
    "touch_session": "UPDATE {t} SET updated_at = ?, revision = ?, summary = ? WHERE number = ?",
    "update_session": """
        UPDATE {t} SET updated_at = ?, revision = ?, summary = ?,
            version = ?, state_version = ?, state = CAST(? AS TEXT)
        WHERE number = ?""",
    # Not for a session that is already the last one, which saves writing pages.
    "to_the_end": "UPDATE {t} SET used = {next} WHERE number = ?",
    "use_at_the_end": "UPDATE {t}_by_use SET used = {next} WHERE used = ?",
    "find_run": "SELECT session_id, generation, seq FROM {t}_runs WHERE seq = {run_at}",
    "run_at": "SELECT session_id, generation, seq FROM {t}_runs WHERE seq = ?",
    "insert_run": """
        INSERT INTO {t}_runs (run_id, session_number, session_id, runner_id,
            parent_run_id, status, generation, created_at, data)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))""",
    "number_run": "INSERT OR IGNORE INTO {t}_run_ids (number, seq) VALUES (?, ?)",
    "number_run_anew": "INSERT INTO {t}_run_ids (number, seq) VALUES (?, ?)",
    "age_run": "INSERT INTO {t}_runs_by_age (place, member, runner_id) VALUES (?, ?, ?)",
    "update_run": """
        UPDATE {t}_runs SET runner_id = ?1, parent_run_id = ?2, status = ?3, generation = ?4,
            created_at = ?5, data = CAST(?6 AS TEXT)
        WHERE seq = ?7 AND generation < ?4""",
    "put_media": """
        INSERT INTO {t}_media (session_id, sha256, data) VALUES (?, ?, ?)
        ON CONFLICT (session_id, sha256) DO NOTHING""",
    "load_media": "SELECT CAST(data AS BLOB) FROM {t}_media WHERE session_id = ? AND sha256 = ?",
    "delete_media": "DELETE FROM {t}_media WHERE session_id = ?",
    "insert_change": """
        INSERT INTO {t}_changes
            (seq, revision, run_id, tool, tool_call_id, agent_path, created_at, patch, commit_id)
        VALUES (coalesce((SELECT max(seq) FROM {t}_changes WHERE seq BETWEEN ?1 AND ?2), ?1) + 1,
            ?3, ?4, ?5, ?6, CAST(?7 AS TEXT), ?8, CAST(?9 AS TEXT), ?10)""",
    "find_commit": "SELECT 1 FROM {t}_changes WHERE {newer_of} AND commit_id = ?3",
    "load_run": "SELECT {run} FROM {t}_runs AS r WHERE seq = {run_at}",
    "load_all_runs": """
        SELECT {run} FROM {of_session} WHERE s.number = {session_at}
        ORDER BY a.place DESC LIMIT ?3""",
    "load_all_runs_of_runner": """
        SELECT {run} FROM {of_session} WHERE s.number = {session_at} AND a.runner_id = ?4
        ORDER BY a.place DESC LIMIT ?3""",
    "load_top_runs": """
        SELECT {run} FROM {of_session} WHERE s.number = {session_at} AND NOT a.member
        ORDER BY a.place DESC LIMIT ?3""",
    "load_top_runs_of_runner": """
        SELECT {run} FROM {of_session} WHERE s.number = {session_at} AND NOT a.member AND a.runner_id = ?4
        ORDER BY a.place DESC LIMIT ?3""",
    "load_changes": """
        SELECT {change} FROM {t}_changes WHERE {newer} ORDER BY seq""",
    "list_sessions": """
        SELECT {info} FROM {t}_by_use AS u CROSS JOIN {t} AS s ON s.number = u.session_number
        WHERE u.used < ? ORDER BY u.used DESC LIMIT ?""",
    "list_sessions_of_user": """
        SELECT {info} FROM {t} AS s WHERE user_id = ? AND used < ? ORDER BY used DESC LIMIT ?""",
    "find_place": "SELECT seq FROM {t}_runs WHERE seq = {run_at}",
    "find_owner": "SELECT user_id FROM {t} WHERE number = {session_at}",
    "list_runs": """
        SELECT {run} FROM {t}_runs AS r
        WHERE seq < :before AND parent_run_id IS NULL AND (:status IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit""",
    "list_runs_of_session": """
        SELECT {run} FROM {of_session}
        WHERE s.number = {session_named} AND a.place < (s.number << 32) + :before AND NOT a.member
            AND (:status IS NULL OR r.status = :status)
        ORDER BY a.place DESC LIMIT :limit""",
    # Sorts all of the user's runs by the table of ages, and reads the rows of one page. The cost depends on
    # the number of the user's own runs, not on those of others.
    "list_runs_of_user": """
        SELECT {run} FROM {t}_runs AS r WHERE seq IN (
            SELECT a.place & 4294967295 FROM {t} AS s CROSS JOIN {t}_runs_by_age AS a
                ON a.place BETWEEN s.number << 32 AND (s.number << 32) + :before - 1
            WHERE s.user_id = :user_id AND NOT a.member AND (:status IS NULL
                OR (SELECT status FROM {t}_runs WHERE seq = a.place & 4294967295) = :status)
            ORDER BY a.place & 4294967295 DESC LIMIT :limit)
        ORDER BY seq DESC""",
    # The condition is that of the partial index: there are few runs that are not completed.
    "list_runs_by_status": """
        SELECT {run} FROM {t}_runs AS r INDEXED BY {t}_runs_by_status
        WHERE status = :status AND status <> 'COMPLETED' AND parent_run_id IS NULL AND seq < :before
        ORDER BY seq DESC LIMIT :limit""",
    "list_runs_by_status_of_user": """
        SELECT {run} FROM {t}_runs AS r WHERE seq IN (
            SELECT r.seq FROM {t}_runs AS r INDEXED BY {t}_runs_by_status
                CROSS JOIN {t} AS s ON s.number = r.session_number
            WHERE r.status = :status AND r.status <> 'COMPLETED' AND r.parent_run_id IS NULL
                AND r.seq < :before AND s.user_id = :user_id
            ORDER BY r.seq DESC LIMIT :limit)
        ORDER BY seq DESC""",
    "describe_session": """
        UPDATE {t} SET name = coalesce(?3, name), summary = coalesce(?4, summary)
        WHERE number = {session_at}""",
    "find_number": "SELECT {session_at}",
    "ids_of_runs": """
        SELECT CAST(r.run_id AS BLOB), r.seq FROM {t}_runs_by_age AS a
            CROSS JOIN {t}_runs AS r ON r.seq = a.place & 4294967295
        WHERE a.place BETWEEN ? AND ?""",
    "delete_run_ids": "DELETE FROM {t}_run_ids WHERE number IN (?, ?) AND seq = ?",
    "delete_run": "DELETE FROM {t}_runs WHERE seq = ?",
    "delete_ages": "DELETE FROM {t}_runs_by_age WHERE place BETWEEN ? AND ?",
    "delete_changes": "DELETE FROM {t}_changes WHERE seq BETWEEN ? AND ?",
    "unnumber_session": "DELETE FROM {t}_session_ids WHERE place = ?",
    "delete_use": "DELETE FROM {t}_by_use WHERE used = (SELECT used FROM {t} WHERE number = ?)",
    "delete_session": "DELETE FROM {t} WHERE number = ?",
    "sessions_of_user": "SELECT session_id FROM {t} WHERE user_id = ?",
    # A lease with more time left than its duration: the clock was set back. Its owner gets the full duration.
    "bound_lease": """
        UPDATE {t}_leases SET expires_at = {now} + seconds WHERE name = ? AND expires_at > {now} + seconds""",
    "acquire_lease": """
        INSERT INTO {t}_leases (name, owner, seconds, expires_at) VALUES (?, ?, ?, {now} + ?)
        ON CONFLICT (name) DO UPDATE SET
            owner = excluded.owner, seconds = excluded.seconds, expires_at = excluded.expires_at
        WHERE owner = excluded.owner OR expires_at <= {now}""",
    "release_lease": "DELETE FROM {t}_leases WHERE name = ? AND owner = ?",
}


def statements(table: str) -> dict[str, str]:
    """The statements on one set of tables, by their names."""
    parts = {**_PARTS, "t": table, "next": _NEXT.format(t=table), "of_session": _OF_SESSION.format(t=table)}
    parts["session_at"] = session_at(table)
    parts["session_named"] = session_at(table, ":place", ":session_id")
    parts["run_at"] = run_at(table)
    parts["run_of_commit"] = run_at(table, "?3", "?4", "?5")
    parts["newer"] = _NEWER.format(t=table, changes=f"({parts['session_at']} << 32)", after="?3")
    parts["newer_of"] = _NEWER.format(t=table, changes="(?1 << 32)", after="?2")
    return {name: text.format(**parts) for name, text in SQL.items()}
