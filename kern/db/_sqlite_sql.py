"""The SQL of a `SqliteDb`. `{t}` is the table of sessions; the names of the others begin with its name."""

from __future__ import annotations

from kern.db._sqlite_cancels import NOW

_PARTS = {
    # JSON is stored as TEXT, for people with the sqlite3 shell, and converted from and to bytes in SQL.
    "session": (
        "session_id, user_id, CAST(state AS BLOB), state_version, revision, version,"
        " name, summary, created_at, updated_at, generation"
    ),
    "info": "session_id, user_id, name, summary, created_at, updated_at, used",
    "run": "run_id, session_id, runner_id, parent_run_id, status, generation, CAST(data AS BLOB), created_at",
    "change": (
        ":session_id, revision, CAST(patch AS BLOB), CAST(agent_path AS BLOB),"
        " run_id, tool, tool_call_id, created_at"
    ),
    "now": NOW,
}

_NUMBER = "(SELECT number FROM {t} WHERE session_id = ?)"
"""SQL: the number of a session. A deleted session's number may be used again, so no call keeps one."""

_RUN_AT = """(SELECT i.seq FROM {t}_run_ids AS i CROSS JOIN {t}_runs AS r ON r.seq = i.seq
            WHERE i.number = ?{which} AND r.run_id = ?3)"""

_PLACE = f"coalesce({_RUN_AT.replace('{which}', '1')}, {_RUN_AT.replace('{which}', '2')})"
"""SQL: the row of a run, by its two numbers and its id. `IN` would build a table of the numbers each time."""

_CHANGES = "(SELECT number << 32 FROM {t} WHERE session_id = :session_id)"
"""SQL: the number before the first of a session's changes."""

_NEWER = """
        seq <= {changes} + 4294967295
        AND seq > coalesce((SELECT seq FROM {t}_changes
            WHERE seq BETWEEN {changes} AND {changes} + 4294967295 AND revision <= :after
            ORDER BY seq DESC LIMIT 1), {changes})"""
"""SQL: the session's changes with a revision above `after`, searched from the end of the log."""

_NEXT = "(SELECT coalesce(max(used), 0) + 1 FROM {t})"
"""SQL: the number of the next commit, counted over all sessions of the table."""

SQL = {
    "load_session": "SELECT {session}, number FROM {t} WHERE session_id = ?",
    "find_number": "SELECT number FROM {t} WHERE session_id = ?",
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
    "find_run": "SELECT session_id, generation, seq FROM {t}_runs WHERE seq = {place}",
    "insert_run": """
        INSERT INTO {t}_runs (run_id, session_number, session_id, runner_id,
            parent_run_id, status, generation, created_at, data)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))""",
    "number_run": "INSERT OR IGNORE INTO {t}_run_ids (number, seq) VALUES (?, ?)",
    "update_run": """
        UPDATE {t}_runs SET runner_id = ?1, parent_run_id = ?2, status = ?3, generation = ?4,
            created_at = ?5, data = CAST(?6 AS TEXT)
        WHERE seq = ?7 AND generation < ?4""",
    "put_media": """
        INSERT INTO {t}_media (session_id, sha256, data) VALUES (?, ?, ?)
        ON CONFLICT (session_id, sha256) DO NOTHING""",
    "load_media": "SELECT CAST(data AS BLOB) FROM {t}_media WHERE session_id = ? AND sha256 = ?",
    "delete_media": "DELETE FROM {t}_media WHERE session_id = ?",
    "last_change": "SELECT max(seq) FROM {t}_changes WHERE seq BETWEEN ? AND ?",
    "insert_change": """
        INSERT INTO {t}_changes
            (seq, revision, run_id, tool, tool_call_id, agent_path, created_at, patch, commit_id)
        VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, CAST(? AS TEXT), ?)""",
    "find_commit": "SELECT 1 FROM {t}_changes WHERE {newer} AND commit_id = :id",
    "load_run": "SELECT {run} FROM {t}_runs WHERE seq = {place}",
    "load_all_runs": """
        SELECT {run} FROM {t}_runs WHERE session_number = {number}
        ORDER BY seq DESC LIMIT ?""",
    "load_all_runs_of_runner": """
        SELECT {run} FROM {t}_runs WHERE session_number = {number} AND runner_id = ?
        ORDER BY seq DESC LIMIT ?""",
    "load_top_runs": """
        SELECT {run} FROM {t}_runs WHERE session_number = {number} AND parent_run_id IS NULL
        ORDER BY seq DESC LIMIT ?""",
    "load_top_runs_of_runner": """
        SELECT {run} FROM {t}_runs WHERE session_number = {number} AND runner_id = ? AND parent_run_id IS NULL
        ORDER BY seq DESC LIMIT ?""",
    "load_changes": """
        SELECT {change} FROM {t}_changes WHERE {newer} ORDER BY seq""",
    "list_sessions": "SELECT {info} FROM {t} WHERE used < ? ORDER BY used DESC LIMIT ?",
    "list_sessions_of_user": """
        SELECT {info} FROM {t} WHERE user_id = ? AND used < ? ORDER BY used DESC LIMIT ?""",
    "find_place": "SELECT seq FROM {t}_runs WHERE seq = {place}",
    "find_owner": "SELECT user_id FROM {t} WHERE session_id = ?",
    "list_runs": """
        SELECT {run} FROM {t}_runs
        WHERE seq < :before AND parent_run_id IS NULL AND (:status IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit""",
    "list_runs_of_session": """
        SELECT {run} FROM {t}_runs
        WHERE session_number = (SELECT number FROM {t} WHERE session_id = :session_id)
            AND seq < :before AND parent_run_id IS NULL AND (:status IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit""",
    # Sorts all of the user's runs within the index, and reads the rows of one page. The cost depends on the
    # number of the user's own runs, not on those of others.
    "list_runs_of_user": """
        SELECT {run} FROM {t}_runs WHERE seq IN (
            SELECT r.seq FROM {t} AS s CROSS JOIN {t}_runs AS r ON r.session_number = s.number
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
                CROSS JOIN {t} AS s ON s.number = r.session_number
            WHERE r.status = :status AND r.status <> 'COMPLETED' AND r.parent_run_id IS NULL
                AND r.seq < :before AND s.user_id = :user_id
            ORDER BY r.seq DESC LIMIT :limit)
        ORDER BY seq DESC""",
    "describe_session": """
        UPDATE {t} SET name = coalesce(?, name), summary = coalesce(?, summary) WHERE session_id = ?""",
    "ids_of_runs": "SELECT CAST(run_id AS BLOB), seq FROM {t}_runs WHERE session_number = ?",
    "delete_run_ids": "DELETE FROM {t}_run_ids WHERE number IN (?, ?) AND seq = ?",
    "delete_runs": "DELETE FROM {t}_runs WHERE session_number = ?",
    "delete_changes": "DELETE FROM {t}_changes WHERE seq BETWEEN ? AND ?",
    "delete_session": "DELETE FROM {t} WHERE session_id = ?",
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
    parts = {**_PARTS, "t": table, "next": _NEXT.format(t=table), "number": _NUMBER.format(t=table)}
    parts |= {"place": _PLACE.format(t=table), "changes": _CHANGES.format(t=table)}
    parts["newer"] = _NEWER.format(**parts)
    return {name: text.format(**parts) for name, text in SQL.items()}
