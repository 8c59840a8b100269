"""`kern db migrate`: tables made by one role, for another that may make none."""

from __future__ import annotations

import asyncio

import pytest

from kern.cli import main
from kern.db._postgres_schema import MIGRATIONS
from kern.db.postgres import PostgresDb
from kern.errors import StoreError
from kern.testing.db import run_row, state_commit
from tests.postgres import Postgres, new_tables

NEWEST = len(MIGRATIONS)


def test_tables_are_made_once_and_told(postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    table = new_tables()
    for _ in range(2):
        assert main(["db", "migrate", postgres.url, "--session-table", table]) == 0
    assert capsys.readouterr().out == (
        f"{table} was brought from version 0 to version {NEWEST}\n{table} already has version {NEWEST}\n"
    )
    assert postgres.psql(f"SELECT version FROM {table}_schema") == "\n".join(
        str(version) for version in range(1, NEWEST + 1)
    )


def test_a_role_that_may_make_no_tables_uses_those_that_another_has_made(postgres: Postgres) -> None:
    schema = new_tables()
    postgres.psql(f"CREATE ROLE {schema}_app LOGIN")
    url = postgres.url.replace("postgres@", f"{schema}_app@")

    async def use(*, create_tables: bool) -> None:
        db = PostgresDb(url, schema=schema, create_tables=create_tables)
        await db.commit(state_commit(b'{"a":1}', runs=[run_row("r")]))
        await db.request_cancel("r")
        assert await db.acquire_lease("s", "a", 1.0)
        assert await db.delete_session("s")

    with pytest.raises(StoreError, match=r"the role may not do this; .*kern db migrate"):
        asyncio.run(use(create_tables=True))
    with pytest.raises(StoreError, match=f"have version 0, and this version of Kern needs {NEWEST}"):
        asyncio.run(use(create_tables=False))
    assert main(["db", "migrate", postgres.url, "--schema", schema]) == 0
    postgres.psql(
        f"GRANT USAGE ON SCHEMA {schema} TO {schema}_app;"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}_app;"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {schema}_app"
    )
    asyncio.run(use(create_tables=False))
    asyncio.run(use(create_tables=True))


@pytest.mark.parametrize("url", ["sqlite:///a.db", "postgresql://ann:secret-word@[::1/db"])
def test_a_url_of_no_use_is_refused_in_one_line_that_does_not_show_it(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", "migrate", url]) == 1
    error = capsys.readouterr().err
    assert error.startswith("kern: db_url ")
    assert error.count("\n") == 1
    assert url not in error
    assert "secret-word" not in error
