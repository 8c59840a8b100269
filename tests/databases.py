"""The databases that what is true of all of them is tested on. A place is a text, so that it can be told to
another process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kern.db import InMemoryDb, SqliteDb
from kern.db.base import Db
from kern.db.postgres import PostgresDb
from tests.postgres import new_tables, psql

SHARED = ["sqlite", "postgres"]
"""The kinds that several processes can use at once."""

KINDS = ["memory", *SHARED]


def place_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """An empty database of that kind: a path, or a URL and the name of its tables."""
    if kind == "sqlite":
        return str(folder / "a.db")
    return f"{request.getfixturevalue('postgres').url}#{new_tables()}"


def opened(place: str | Path, **options: Any) -> Db:
    """The database at that place, as a new object."""
    url, _, table = str(place).partition("#")
    return PostgresDb(url, session_table=table, **options) if table else SqliteDb(place, **options)


def ask(place: str, sql: str) -> str:
    """What the database tells somebody else who asks, columns parted by "|"; "{t}" is the sessions' table."""
    url, _, table = place.partition("#")
    if table:
        return psql(url, sql.replace("{t}", table))
    with closing(sqlite3.connect(place)) as raw, raw:
        rows = raw.execute(sql.replace("{t}", "kern_sessions")).fetchall()
    return "\n".join("|".join(map(str, row)) for row in rows)


def opener(request: pytest.FixtureRequest, folder: Path) -> Callable[[], Db]:
    """Opens one database each time, of the kind that is the fixture's parameter."""
    if request.param == "memory":
        memory = InMemoryDb()
        return lambda: memory
    place = place_of(request.param, folder, request)
    return lambda: opened(place)
