"""The tables of a `PostgresDb`, as a list of migrations. The version of the tables is how many were applied.

`{t}` is the table of sessions; the names of the others begin with its name. JSON is stored as `json`, not
`jsonb`: it keeps every byte, and people can read it with psql. Never change a migration that was released;
add another.
"""

from __future__ import annotations

from collections.abc import Mapping

from kern.db._postgres_pool import Link, Pool
from kern.errors import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # Sessions are ordered by their last commits: by numbers of this sequence, since clocks may be wrong.
        "CREATE SEQUENCE {order}",
        """CREATE TABLE {t} (
            session_id text PRIMARY KEY,
            user_id text,
            name text,
            summary text,
            generation text NOT NULL,
            used bigint NOT NULL,
            created_at float8 NOT NULL,
            updated_at float8 NOT NULL,
            revision bigint NOT NULL,
            version bigint NOT NULL,
            state_version bigint NOT NULL,
            state json NOT NULL
        )""",
        "CREATE INDEX ON {t} (user_id, used)",
        "CREATE INDEX ON {t} (used)",
        # Runs are in the order of their first commits.
        """CREATE TABLE {runs} (
            seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run_id text NOT NULL UNIQUE,
            session_id text NOT NULL,
            runner_id text NOT NULL,
            parent_run_id text,
            status text NOT NULL,
            generation bigint NOT NULL,
            created_at float8 NOT NULL,
            data json NOT NULL
        )""",
        "CREATE INDEX ON {runs} (session_id, seq, parent_run_id, runner_id)",
        # Runs that wait for a person, and failed ones, among any number of completed ones.
        "CREATE INDEX ON {runs} (status, seq) WHERE parent_run_id IS NULL AND status <> 'COMPLETED'",
        """CREATE TABLE {changes} (
            session_id text NOT NULL,
            revision bigint NOT NULL,
            seq bigint GENERATED ALWAYS AS IDENTITY,
            run_id text,
            tool text,
            tool_call_id text,
            agent_path json NOT NULL,
            created_at float8 NOT NULL,
            patch json NOT NULL,
            commit_id text,
            PRIMARY KEY (session_id, revision, seq)
        )""",
        """CREATE TABLE {media} (
            session_id text NOT NULL,
            sha256 text NOT NULL,
            data bytea NOT NULL,
            PRIMARY KEY (session_id, sha256)
        )""",
        "ALTER TABLE {media} ALTER COLUMN data SET STORAGE EXTERNAL",  # pictures do not get smaller
        """CREATE TABLE {leases} (
            name text PRIMARY KEY,
            owner text NOT NULL,
            seconds float8 NOT NULL,
            expires_at timestamptz NOT NULL
        ) WITH (fillfactor = 50)""",
        """CREATE TABLE {cancels} (
            run_id text NOT NULL,
            trusted boolean NOT NULL,
            user_id text NOT NULL,
            seq bigint GENERATED ALWAYS AS IDENTITY,
            requested_at timestamptz NOT NULL,
            PRIMARY KEY (run_id, trusted, user_id)
        )""",
    ),
    (
        # Runs that outlive their process: who has each, and the steps that are done. Both are empty but for
        # runs with a journal that have not ended.
        """CREATE TABLE {claims} (
            run_id text PRIMARY KEY,
            seq bigint GENERATED ALWAYS AS IDENTITY,
            owner text NOT NULL,
            before text,
            attempt bigint NOT NULL,
            seconds float8 NOT NULL,
            expires_at timestamptz NOT NULL
        ) WITH (fillfactor = 50)""",
        """CREATE TABLE {steps} (
            run_id text NOT NULL,
            key text NOT NULL,
            seq bigint GENERATED ALWAYS AS IDENTITY,
            kind text NOT NULL,
            data json NOT NULL,
            PRIMARY KEY (run_id, key)
        )""",
    ),
    (
        # Runs that were submitted, for any process to begin them: what they are asked.
        "ALTER TABLE {claims} ADD COLUMN session_id text, ADD COLUMN runner_id text, ADD COLUMN request json",
    ),
    (
        # What listings show of runs that have not ended, and the events of runs.
        """ALTER TABLE {claims} ADD COLUMN user_id text, ADD COLUMN is_team boolean,
            ADD COLUMN begun_at timestamptz NOT NULL DEFAULT now()""",
        """CREATE TABLE {events} (
            run_id text NOT NULL,
            last_seq bigint NOT NULL,
            written_at timestamptz NOT NULL,
            data json NOT NULL,
            PRIMARY KEY (run_id, last_seq)
        )""",
        "CREATE INDEX ON {events} (written_at)",
    ),
    (
        # Deleting a session, or a user, finds the unfinished runs.
        "CREATE INDEX ON {claims} (session_id) WHERE session_id IS NOT NULL",
        "CREATE INDEX ON {claims} (user_id) WHERE user_id IS NOT NULL",
    ),
)

_TABLES = ("runs", "changes", "media", "leases", "cancels", "claims", "steps", "events", "order", "schema")


def names_of(table: str, schema: str | None) -> dict[str, str]:
    """The quoted names of the tables, by their placeholders in the statements; "t" is the table of sessions.

    Args:
        table: The name of the table of sessions, checked by the caller.
        schema: The schema, checked by the caller; None: the server's search path decides.
    """
    prefix = f'"{schema}".' if schema else ""
    names = {name: f'{prefix}"{table}_{name}"' for name in _TABLES}
    return {**names, "t": f'{prefix}"{table}"'}


async def check(pool: Pool, names: Mapping[str, str], shown: str, wait: float) -> None:
    """Check that the tables exist and have the version of this Kern.

    Raises:
        StoreError: They do not exist, or have another version.
    """
    done = await pool.run(lambda link: _checked_version(link, names, shown), wait=wait)
    _refuse_newer(done, names, shown)
    if done < len(MIGRATIONS):
        raise StoreError(
            f"{shown}: the tables of {names['t']} have version {done}, and this version of Kern needs "
            f"{len(MIGRATIONS)}: upgrade them with `kern db migrate URL`, or remove create_tables=False"
        )


async def migrate(
    pool: Pool, names: Mapping[str, str], shown: str, wait: float, schema: str | None = None
) -> tuple[int, int]:
    """Create the tables, or upgrade them to the newest version. If several processes try, one of them does
    it.

    Returns:
        The versions before and after.

    Raises:
        StoreError: The tables cannot be created, or belong to a newer version of Kern.
    """
    done = await pool.run(lambda link: _checked_version(link, names, shown), wait=wait)
    _refuse_newer(done, names, shown)
    if done == len(MIGRATIONS):
        return done, done

    async def job(link: Link) -> int:
        await link.fetch("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", names["t"])
        done = await _version(link, names)  # another process may have done it in the meantime
        _refuse_newer(done, names, shown)
        if schema is not None and not await _exists(link, _NAMESPACE, f'"{schema}"'):
            await link.execute(f'CREATE SCHEMA "{schema}"')
        if done == 0:
            await link.execute(_SCHEMA.format_map(names))
        for version, statements in enumerate(MIGRATIONS[done:], done + 1):
            for statement in statements:
                await link.execute(statement.format_map(names))
            await link.fetch(_RECORD.format_map(names), version)
        return done

    return await pool.transaction(job, wait=wait), len(MIGRATIONS)


_SCHEMA = "CREATE TABLE {schema} (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
_RECORD = "INSERT INTO {schema} (version) VALUES ($1)"
# They read from pg_class because to_regclass alone may use a cached catalog and miss new tables of others.
_TABLE = "SELECT to_regclass($1) IS NOT NULL FROM pg_catalog.pg_class LIMIT 1"
_NAMESPACE = "SELECT to_regnamespace($1) IS NOT NULL FROM pg_catalog.pg_class LIMIT 1"
_ENCODING = "SELECT current_setting('server_encoding')"
_KEEPS_ALL_TEXT = {"UTF8", "SQL_ASCII"}
"""The encodings of databases that keep any text; SQL_ASCII stores the bytes as they come."""
_VERSION = "SELECT coalesce(max(version), 0) FROM {schema}"


async def _checked_version(link: Link, names: Mapping[str, str], shown: str) -> int:
    """The version of the tables, in a database that can store what models write.

    Raises:
        StoreError: It cannot.
    """
    encoding = (await link.fetch(_ENCODING))[0][0]
    if encoding not in _KEEPS_ALL_TEXT:
        raise StoreError(
            f"{shown}: the database has the encoding {encoding}, which cannot store every character; create "
            "one with `createdb --encoding=UTF8 --template=template0`, and name it in db_url"
        )
    return await _version(link, names)


async def _version(link: Link, names: Mapping[str, str]) -> int:
    if not await _exists(link, _TABLE, names["schema"]):
        return 0
    version: int = (await link.fetch(_VERSION.format_map(names)))[0][0]
    return version


async def _exists(link: Link, question: str, name: str) -> bool:
    return (await link.fetch(question, name))[0][0] is True


def _refuse_newer(done: int, names: Mapping[str, str], shown: str) -> None:
    if done > len(MIGRATIONS):
        raise StoreError(
            f"{shown}: the tables of {names['t']} have version {done}, written by a newer Kern; this one "
            f"knows versions up to {len(MIGRATIONS)}: update Kern, or choose another session_table"
        )
