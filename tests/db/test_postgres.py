"""What only a server can do wrong, and what only Postgres does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kern.db.postgres import PostgresDb
from kern.testing.db import DbConformance
from tests.postgres import Postgres, new_tables


class TestPostgresDb(DbConformance):
    @pytest.fixture
    async def db(self, postgres: Postgres) -> AsyncIterator[PostgresDb]:
        db = PostgresDb(postgres.url, session_table=new_tables())
        yield db
        await db.aclose()
