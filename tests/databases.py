"""The databases that what is true of all of them is tested on. A place is a text, so that it can be told to
another process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kern.db import InMemoryDb, SqliteDb
from kern.db.base import Db
from kern.db.postgres import PostgresDb
from tests.postgres import new_tables

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


def opener(request: pytest.FixtureRequest, folder: Path) -> Callable[[], Db]:
    """Opens one database each time, of the kind that is the fixture's parameter."""
    if request.param == "memory":
        memory = InMemoryDb()
        return lambda: memory
    place = place_of(request.param, folder, request)
    return lambda: opened(place)
