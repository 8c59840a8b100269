"""What only a server can do wrong, and what only Postgres does."""

# the tests ask the server by themselves

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern.db import InMemoryDb, SqliteDb, _postgres_pool
from kern.db._postgres_schema import MIGRATIONS
from kern.db._postgres_sql import _SQL
from kern.db.journals import JournalDb
from kern.db.postgres import PostgresDb
from kern.errors import MissingExtraError, StoreBusyError, StoreError, UsageError
from kern.testing.db import (
    DbConformance,
    JournalConformance,
    change_row,
    counting_commit,
    run_row,
    state_commit,
)
from tests.postgres import WITH_PASSWORD, Postgres, new_tables, server

SECRET = "correct/horse@battery#staple"
QUOTED = "correct%2Fhorse%40battery%23staple"


class TestPostgresDb(DbConformance, JournalConformance):
    @pytest.fixture
    async def db(self, postgres: Postgres) -> AsyncIterator[PostgresDb]:
        db = PostgresDb(postgres.url, session_table=new_tables())
        yield db
        await db.aclose()


@pytest.fixture
def table() -> str:
    return new_tables()


@pytest.fixture
async def db(postgres: Postgres, table: str) -> AsyncIterator[PostgresDb]:
    db = PostgresDb(postgres.url, session_table=table)
    yield db
    await db.aclose()


# Where it is


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"db_url": "sqlite:///a.db"}, "not a URL of Postgres"),
        ({"db_url": 5}, "not a int"),
        ({"db_url": f"postgresql://u:{SECRET}@h/db"}, "write %40 for @"),
        ({"db_url": "postgresql://u:secretword@[::1/db"}, "cannot be parsed"),
        ({"session_table": "a; DROP TABLE b"}, "session_table may contain letters"),
        ({"session_table": "a" * 41}, "40 characters at most"),
        ({"schema": 'a"b'}, "schema may contain letters"),
        ({"pool_size": 0}, "pool_size must be a whole number, 1 or more, not 0"),
        ({"statement_cache_size": -1}, "statement_cache_size must be a whole number, 0 or more, not -1"),
    ],
)
def test_misuse_is_refused_at_construction_and_no_password_shown(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        PostgresDb(**{"db_url": "postgresql://h/db", **options})
    told = "".join(traceback.format_exception(caught.value))
    assert "horse" not in told.replace(repr(options), "")
    assert "secretword" not in told


def test_the_driver_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "asyncpg", None)
    with pytest.raises(MissingExtraError, match=r"kern-agents\[postgres\]"):
        PostgresDb("postgresql://h/db")


def test_one_database_has_one_identity_however_it_is_named() -> None:
    here = PostgresDb("postgresql://ann:secretword@db.example/app").identity
    for url in (
        "postgres://db.example:5432/app",
        "postgresql+asyncpg://bob@DB.example/app?sslmode=require",
        "postgresql://?host=db.example&dbname=app",
    ):
        assert PostgresDb(url).identity == here
    assert PostgresDb("postgresql://ann@db.example/other").identity != here
    assert PostgresDb("postgresql://ann@db.example:5433/app").identity != here
    assert PostgresDb("postgresql://db.example/app", session_table="support").identity != here
    assert PostgresDb("postgresql://db.example/app", schema="support").identity != here
    sockets = [PostgresDb(f"postgresql:///app?host=/tmp/{folder}").identity for folder in ("a", "A")]
    assert sockets[0] != sockets[1]


def test_what_is_shown_of_it_is_no_password() -> None:
    for url in (
        "postgresql://ann:secretword@db.example/app",
        "postgresql://ann@db.example/app?password=secretword&sslmode=require",
    ):
        db = PostgresDb(url)
        assert repr(db) == "PostgresDb('postgresql://ann@db.example/app')"
        assert "secretword" not in repr(db._server)
        assert "secretword" not in repr(db.identity)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda db: pickle.loads(pickle.dumps(db))])
async def test_a_copy_is_the_same_database_with_the_same_options(postgres: Postgres, way: object) -> None:
    original = PostgresDb(postgres.url, session_table=new_tables(), pool_size=3, busy_timeout=7)
    await original.commit(state_commit(b'{"a":1}'))
    twin = way(original)
    assert twin.identity == original.identity
    assert twin._options == original._options
    assert await twin.load_session("s") == await original.load_session("s")


async def test_two_sets_of_tables_are_apart(postgres: Postgres, db: PostgresDb) -> None:
    schema = new_tables()
    others = [PostgresDb(postgres.url, schema=schema), PostgresDb(postgres.url, session_table="User")]
    await db.commit(state_commit(b'{"a":1}', runs=[run_row("r")]))
    for other in others:
        assert await other.load_session("s") is None
        assert not (await other.commit(state_commit(user_id="ann", runs=[run_row("r")]))).repeated
        assert await other.delete_user("ann") == 1
    assert [row.user_id for row in await db.list_sessions()] == [None]
    assert postgres.psql(f"SELECT count(*) FROM {schema}.kern_sessions") == "0"


# Passwords


def with_password(postgres: Postgres) -> str:
    name = new_tables()
    postgres.psql(
        f"DO $$ BEGIN CREATE ROLE {WITH_PASSWORD}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}' IN ROLE {WITH_PASSWORD};"
        f"GRANT CREATE ON SCHEMA public TO {name}"
    )
    return name


async def test_a_password_lets_in(postgres: Postgres) -> None:
    role = with_password(postgres)
    for url in (
        postgres.url.replace("postgres@", f"{role}:{QUOTED}@", 1),
        postgres.url.replace("postgres@", f"{role}@", 1) + f"&password={QUOTED}",
    ):
        db = PostgresDb(url, session_table=new_tables())
        await db.commit(state_commit())
        assert await db.load_session("s") is not None


async def test_a_wrong_password_is_told_at_once_and_not_shown(postgres: Postgres) -> None:
    role = with_password(postgres)
    db = PostgresDb(postgres.url.replace("postgres@", f"{role}:wrong-password@", 1))
    with pytest.raises(StoreError, match="refuses this user's password") as caught:
        await db.load_session("s")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "wrong-password" not in shown


# A server that is not there, or goes


async def test_a_server_that_is_not_there_is_a_store_error_after_the_timeout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_pool, "_WARN_SECONDS", 0.0)
    db = PostgresDb(f"postgresql://ann:secretword@/app?host={tmp_path}", busy_timeout=1.5)
    with pytest.raises(StoreError, match=r"gave up after \d+\.\d s") as caught:
        await db.load_session("s")
    assert isinstance(caught.value.__cause__, OSError)
    assert "retrying for up to" in caplog.text
    assert "secretword" not in str(caught.value) + caplog.text


async def test_a_server_that_starts_again_loses_no_commit() -> None:
    with server({"synchronous_commit": "on"}) as own:
        db = PostgresDb(own.url)
        await db.commit(counting_commit())

        async def work() -> None:
            for _ in range(20):
                await db.commit(state_commit(None, session_id="s"))
                await db.commit(counting_commit())
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(own.stop)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own.start)
        await asyncio.gather(*tasks)
        row = await db.load_session("s")
        await db.aclose()
    assert row is not None
    assert row.state == b'{"count":%d}' % row.version


async def test_a_server_that_takes_no_writes_for_a_while_is_asked_again(postgres: Postgres) -> None:
    role, table = new_tables(), new_tables()
    postgres.psql(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")
    db = PostgresDb(postgres.url.replace("postgres@", f"{role}@", 1), session_table=table)
    await db.commit(state_commit())
    await db.aclose()
    postgres.psql(f"ALTER ROLE {role} SET default_transaction_read_only = on")  # as a replica does
    assert await db.load_session("s") is not None
    commit = asyncio.create_task(db.commit(state_commit(b'{"a":2}')))
    await asyncio.sleep(0.2)
    assert not commit.done()
    postgres.psql(f"ALTER ROLE {role} SET default_transaction_read_only = off")
    assert (await commit).row.version == 2
    await db.aclose()


async def test_a_server_that_answers_too_late_is_busy(postgres: Postgres, db: PostgresDb, table: str) -> None:
    await db.commit(state_commit())
    impatient = PostgresDb(postgres.url, session_table=table, busy_timeout=0.3)
    async with db._pool._pools.get()._pool.acquire() as other, other.transaction():
        await other.execute(f"SELECT 1 FROM {table} FOR UPDATE")
        with pytest.raises(StoreBusyError, match="no answer, or no connection was free, in time"):
            await impatient.commit(state_commit(b'{"a":2}'))
    assert (await db.commit(state_commit(b'{"a":3}'))).row.version == 2


async def test_more_tasks_than_connections_wait_for_one(postgres: Postgres, table: str) -> None:
    db = PostgresDb(postgres.url, session_table=table, pool_size=2)
    await asyncio.gather(*(db.commit(counting_commit(f"s{n % 5}")) for n in range(60)))
    assert sum(info.position > 0 for info in await db.list_sessions()) == 5
    served = (
        f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kern' AND query LIKE '%{table}%'"
    )
    assert int(postgres.psql(served)) <= 2
    await db.aclose()


def test_loops_that_are_closed_without_their_shutdown_keep_no_connections(
    postgres: Postgres, table: str
) -> None:
    db = PostgresDb(postgres.url, session_table=table)
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(db.commit(counting_commit()))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    served = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{table}%' AND pid <> pg_backend_pid()"
    assert postgres.psql(served) == "0"


# What is in the tables


async def test_a_person_can_read_the_tables(postgres: Postgres, db: PostgresDb, table: str) -> None:
    text = '{"shopping_list": ["Käse"]}'
    await db.commit(
        state_commit(text.encode(), runs=[run_row("r", data=b'{"x":1}')], changes=[change_row(1)])
    )
    assert postgres.psql(f"SELECT state, state -> 'shopping_list' ->> 0 FROM {table}") == f"{text}|Käse"
    assert postgres.psql(f"SELECT data ->> 'x' FROM {table}_runs") == "1"
    assert postgres.psql(f"SELECT patch, agent_path FROM {table}_changes") == '[]|["agent"]'


async def test_a_value_that_cannot_be_stored_is_refused_and_leaves_nothing(db: PostgresDb) -> None:
    bad = [
        state_commit(session_id="nul: \0"),
        state_commit(session_id="half a pair: \ud83d"),
        state_commit(state_version=1 << 70),
        state_commit(b"no JSON"),
        state_commit(b'"\xff"'),
        state_commit(runs=[run_row("nul: \0")]),
    ]
    for commit in bad:
        with pytest.raises(StoreError, match="a value cannot be stored"):
            await db.commit(commit)
    assert await db.list_sessions() == []
    assert not (await db.commit(state_commit())).repeated


async def test_the_character_nul_in_what_is_for_people_is_replaced(db: PostgresDb) -> None:
    await db.commit(state_commit())
    assert await db.describe_session("s", name="a\0b", summary="c\0d")
    row = await db.load_session("s")
    assert row is not None
    assert (row.name, row.summary) == ("a\ufffdb", "c\ufffdd")


async def test_tables_that_somebody_has_dropped_are_made_again(
    postgres: Postgres, db: PostgresDb, table: str
) -> None:
    await db.commit(state_commit())
    for name in (
        "",
        "_runs",
        "_changes",
        "_media",
        "_leases",
        "_cancels",
        "_claims",
        "_steps",
        "_events",
        "_schema",
    ):
        postgres.psql(f"DROP TABLE {table}{name}")
    postgres.psql(f"DROP SEQUENCE {table}_order")
    with pytest.raises(StoreError, match="the next call creates them"):
        await db.load_session("s")
    assert (await db.commit(state_commit())).row.version == 1


@pytest.mark.parametrize(("encoding", "takes"), [("LATIN1", False), ("SQL_ASCII", True), ("UTF8", True)])
async def test_a_database_that_cannot_store_every_text_is_refused_at_the_first_use(
    postgres: Postgres, encoding: str, takes: bool
) -> None:
    name = new_tables()
    postgres.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    db = PostgresDb(postgres.url.replace("/postgres?", f"/{name}?"))
    text = '{"a":"\u4e2d \U0001f389"}'.encode()
    try:
        if takes:
            assert (await db.commit(state_commit(text))).row.state == text
            row = await db.load_session("s")
            assert row is not None
            assert row.state == text
        else:
            with pytest.raises(StoreError, match="encoding LATIN1, which cannot store every character"):
                await db.commit(state_commit())
    finally:
        await db.aclose()
        postgres.psql(f"DROP DATABASE {name} WITH (FORCE)")


async def test_tables_of_a_newer_kern_are_left_alone(postgres: Postgres, db: PostgresDb, table: str) -> None:
    await db.commit(state_commit(b'{"a":1}'))
    postgres.psql(f"INSERT INTO {table}_schema (version) VALUES (99)")
    for create_tables in (True, False):
        newer = PostgresDb(postgres.url, session_table=table, create_tables=create_tables)
        with pytest.raises(StoreError, match=f"version 99, written by a newer .* to {len(MIGRATIONS)}:"):
            await newer.commit(state_commit(b'{"a":2}'))
    assert postgres.psql(f"SELECT state FROM {table}") == '{"a":1}'


async def test_a_table_of_somebody_elses_is_left_alone(
    postgres: Postgres, db: PostgresDb, table: str
) -> None:
    postgres.psql(f"CREATE TABLE {table} (theirs text)")
    with pytest.raises(StoreError, match="already exists"):
        await db.commit(state_commit())
    told = postgres.psql(f"SELECT count(*) FROM pg_tables WHERE tablename LIKE '{table}%'")
    assert told == "1"


async def test_what_is_committed_while_its_session_is_deleted_is_gone_too(
    postgres: Postgres, db: PostgresDb, table: str
) -> None:
    known = (await db.commit(state_commit())).row
    for n in range(20):
        commit = state_commit(None, runs=[run_row(f"r{n}")], known=known)
        done = await asyncio.gather(db.commit(commit), db.delete_session("s"), return_exceptions=True)
        assert done[1] is True
        known = (await db.commit(state_commit())).row
        await db.delete_session("s")
        known = (await db.commit(state_commit())).row
    assert postgres.psql(f"SELECT count(*) FROM {table}_runs") == "0"


async def test_of_two_sessions_that_take_one_run_id_at_once_one_gets_it(db: PostgresDb) -> None:
    for n in range(20):
        commits = [
            db.commit(state_commit(session_id=name, runs=[run_row(f"r{n}", session_id=name)]))
            for name in (f"a{n}", f"b{n}")
        ]
        done = await asyncio.gather(*commits, return_exceptions=True)
        (error,) = [each for each in done if isinstance(each, BaseException)]
        assert f"run_id 'r{n}' belongs to a run of another session" in str(error)
    assert len(await db.list_sessions()) == 20


def test_all_databases_are_the_same_port() -> None:
    def verbs(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")} - set(
            dir(JournalDb)
        )  # which is a part

    assert verbs(PostgresDb) - {"migrate"} == verbs(SqliteDb) == verbs(InMemoryDb)


# What a statement costs

VALUES = {
    "list_sessions": (5, 5),
    "list_sessions_of_user": (5, 5, "ann"),
    "list_runs": (None, None, 5),
    "list_runs_of_session": (None, None, 5, "s", None),
    "list_runs_by_status": ("PAUSED", None, 5),
    "load_runs": ("s", None, True, 5),
    "load_changes": ("s", 3),
    "read_for_commit": ("s", ["r"], 3, "c"),
    "load_session_and_run": ("s", "r"),
    "load_media": ("s", ["aa"]),
    "delete_sessions": (["s"], None),
    "lock_sessions_of_user": ("ann",),
    "acquire_lease": ("l", "a", 1.0),
    "take_cancels": (["r"], [True], [""], [None]),
}


@pytest.mark.parametrize("name", sorted({*VALUES}))
async def test_no_query_scans_or_sorts_more_than_it_returns(db: PostgresDb, name: str) -> None:
    assert name in _SQL
    await db.commit(state_commit())
    async with db._pool._pools.get()._pool.acquire() as raw:
        await raw.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        rows = await raw.fetch(f"EXPLAIN {db._sql[name]}", *VALUES[name])
        await raw.execute("RESET ALL")
    plan = "\n".join(row[0] for row in rows)
    assert re.findall(r"Seq Scan on t\w+", plan) == [], plan
    assert "Sort" not in plan or name in ("delete_sessions", "lock_sessions_of_user"), plan
