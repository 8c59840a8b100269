"""The numbers of runs, sessions and changes in SQLite: two ids may draw one, and sessions' are given anew."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from kern.db import SqliteDb
from kern.db._sqlite_numbers import run_numbers, session_place
from kern.testing.db import change_row, run_row, state_commit


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDb]:
    db = SqliteDb(tmp_path / "agents.db")
    yield db
    await db.aclose()


def two_ids_of_one_number() -> tuple[str, str]:
    """Two UUIDs of one millisecond whose drawn bits meet."""
    known: dict[int, str] = {}
    for n in range(100_000):
        run_id = f"01900000-0000-7000-8000-{n:012x}"
        first, _ = run_numbers(run_id)
        if first in known:
            return known[first], run_id
        known[first] = run_id
    raise AssertionError("no two ids of one number")


async def test_two_runs_that_draw_one_number_are_two_runs(db: SqliteDb) -> None:
    one, other = two_ids_of_one_number()
    for run_id in (one, other):
        await db.commit(state_commit(runs=[run_row(run_id, status="PAUSED", data=b'"begun"')]))
    for run_id in (one, other):
        await db.commit(state_commit(runs=[run_row(run_id, generation=1, data=f'"{run_id}"'.encode())]))
    for run_id in (one, other):
        found = await db.load_run(run_id)
        assert found is not None
        assert (found.run_id, found.status, found.data) == (run_id, "COMPLETED", f'"{run_id}"'.encode())
    assert [row.run_id for row in await db.load_runs("s")] == [one, other]
    assert [row.run_id for row in await db.list_runs(before=other)] == [one]


def two_sessions_of_one_place() -> tuple[str, str]:
    """The ids of two sessions whose drawn bits meet."""
    known: dict[int, str] = {}
    for n in range(100_000):
        place = session_place(f"session {n}")
        if place in known:
            return known[place], f"session {n}"
        known[place] = f"session {n}"
    raise AssertionError("no two ids of one place")


async def test_two_sessions_that_draw_one_place_are_two_sessions(db: SqliteDb, tmp_path: Path) -> None:
    one, other = two_sessions_of_one_place()
    await db.commit(state_commit(b'"one"', session_id=one, runs=[run_row("r1", session_id=one)]))
    assert await db.load_session(other) is None
    await db.commit(state_commit(b'"other"', session_id=other, runs=[run_row("r2", session_id=other)]))
    for session_id, state, run_id in ((one, b'"one"', "r1"), (other, b'"other"', "r2")):
        found = await db.load_session(session_id)
        assert found is not None
        assert (found.session_id, found.state) == (session_id, state)
        assert [row.run_id for row in await db.load_runs(session_id)] == [run_id]
    assert [row.session_id for row in await db.list_sessions()] == [other, one]
    assert await db.delete_session(one)
    assert await db.load_session(one) is None
    assert [row.run_id for row in await db.list_runs(session_id=other)] == ["r2"]
    assert await db.delete_session(other)
    raw = sqlite3.connect(tmp_path / "agents.db")
    for table in ("session_ids", "by_use", "runs_by_age", "runs", "run_ids", "changes"):
        assert raw.execute(f"SELECT count(*) FROM kern_sessions_{table}").fetchone() == (0,)
    raw.close()


async def test_an_id_that_is_as_long_as_a_uuid_is_one_of_any_text(db: SqliteDb) -> None:
    ids = [
        "no uuid, though 7 is at its place...",
        "ünïcödé-run",
        "x" * 36,
        "zzzzzzzz-zzzz-7zzz-zzzz-zzzzzzzzzzzz",
        "",
    ]
    await db.commit(state_commit(runs=[run_row(run_id) for run_id in ids]))
    assert [row and row.run_id for row in [await db.load_run(run_id) for run_id in ids]] == ids


async def test_what_is_deleted_leaves_nothing_to_a_session_that_is_given_its_number(
    db: SqliteDb, tmp_path: Path
) -> None:
    await db.commit(state_commit(session_id="first", changes=[change_row(1, session_id="first")]))
    runs = [run_row(run_id, session_id="second") for run_id in ("r1", "r2")]
    changes = [change_row(1, session_id="second")]
    await db.commit(state_commit(session_id="second", runs=runs, changes=changes))
    assert await db.delete_session("second")
    await db.commit(state_commit(session_id="third", runs=[run_row("r3", session_id="third")]))

    assert [row.run_id for row in await db.load_runs("third")] == ["r3"]
    assert await db.load_changes("third") == await db.load_changes("second") == []
    assert await db.load_runs("second") == []
    assert [row.session_id for row in await db.load_changes("first")] == ["first"]
    assert [await db.load_run(run_id) for run_id in ("r1", "r2")] == [None, None]
    with closing(sqlite3.connect(tmp_path / "agents.db")) as raw, raw:
        assert raw.execute("SELECT number FROM kern_sessions WHERE session_id = 'third'").fetchall() == [(2,)]
        assert raw.execute("SELECT count(*) FROM kern_sessions_run_ids").fetchone() == (1,)


async def test_changes_are_those_of_their_session_and_after_their_revision(db: SqliteDb) -> None:
    for revision in range(1, 6):
        for session_id in ("a", "b"):
            changes = [change_row(revision, session_id=session_id, patch=b"[%d]" % n) for n in range(2)]
            await db.commit(state_commit(session_id=session_id, changes=changes))
    for after in range(6):
        rows = await db.load_changes("b", after=after)
        expected = [(revision, b"[%d]" % n) for revision in range(after + 1, 6) for n in range(2)]
        assert [(row.revision, row.patch) for row in rows] == expected
        assert {row.session_id for row in rows} <= {"b"}


async def test_a_file_may_be_vacuumed(db: SqliteDb, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        run, change = run_row(f"run {name}", session_id=name), change_row(1, session_id=name)
        await db.commit(state_commit(session_id=name, runs=[run], changes=[change]))
    await db.delete_session("a")
    await db.aclose()
    raw = sqlite3.connect(tmp_path / "agents.db")
    raw.execute("VACUUM")
    raw.close()
    for name in ("b", "c"):
        assert [row.run_id for row in await db.load_runs(name)] == [f"run {name}"]
        assert [row.session_id for row in await db.load_changes(name)] == [name]
        assert await db.load_run(f"run {name}") is not None
