"""A run is submitted to Postgres: of two users who submit into one new session, the second is refused."""

from __future__ import annotations

from kern.db._postgres_pool import Link, Pool, Row
from kern.db.journals import SubmittedRow
from kern.errors import SessionOwnershipError

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


async def submitted(pool: Pool, sql: str, run: SubmittedRow, table: str, wait: float) -> bool:
    """Store the request; False if the run is known.

    One statement is enough if the session is stored. A new session has no row that could be locked, and two
    statements at the same time do not see each other's rows: an advisory lock lets one follow the other.

    Args:
        pool: The connections.
        sql: The statement.
        run: The run.
        table: The name of the sessions' table, a part of the key of the lock.
        wait: Seconds that it may take, repetitions included.

    Raises:
        SessionOwnershipError: The session belongs to another user.
    """
    about = run.about
    who = about.session_id, run.run_id, about.user_id, about.runner_id, about.is_team, run.request

    async def alone(link: Link) -> Row:
        await link.fetch(_LOCK, f"{table}:{about.session_id}")
        return (await link.fetch(sql, *who, True))[0]

    put, known, foreign, stored = (await pool.fetch(sql, *who, False, wait=wait))[0]
    if not (known or foreign or stored):
        put, known, foreign, stored = await pool.transaction(alone, wait=wait)
    if foreign and not known:
        raise SessionOwnershipError(about.session_id)
    return bool(put)
