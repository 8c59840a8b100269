"""Numbered parameters, of which Python 3.12.0 to 3.12.3 warn: `SqliteDb` works with such a Python, too."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern.db import SqliteDb, _sqlite_connection
from kern.db._sqlite_numbered import NumberedConnection
from kern.testing.db import DbConformance, JournalConformance


@pytest.fixture
async def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteDb]:
    monkeypatch.setattr(_sqlite_connection, "CONNECTION", NumberedConnection)
    db = SqliteDb(tmp_path / "agents.db")
    yield db
    await db.aclose()


class TestNumberedParameters(DbConformance, JournalConformance):
    pass


def test_values_get_to_their_parameters_whatever_the_form() -> None:
    raw = sqlite3.connect(":memory:", factory=NumberedConnection)
    assert raw.execute("SELECT ?2, ?1, ?2", ("a", "b")).fetchone() == ("b", "a", "b")
    assert raw.execute("SELECT ?, ?", ("a", "b")).fetchone() == ("a", "b")
    assert raw.execute("SELECT :x", {"x": "a"}).fetchone() == ("a",)
    raw.execute("CREATE TABLE t (x, y)")
    raw.executemany("INSERT INTO t VALUES (?2, ?1)", [(1, 2), (3, 4)])
    assert raw.execute("SELECT x, y FROM t").fetchall() == [(2, 1), (4, 3)]
    raw.close()
