"""What only a file can do wrong: paths, damage, a full disk, an older or newer schema."""

# ruff: noqa: ASYNC240  # the tests' own little files may be read on the loop

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern.db import InMemoryDb, SqliteDb
from kern.db._sqlite_schema import MIGRATIONS
from kern.errors import StoreError, UsageError
from kern.testing.db import (
    DbConformance,
    JournalConformance,
    change_row,
    counting_commit,
    run_row,
    state_commit,
)


class TestSqliteDb(DbConformance, JournalConformance):
    @pytest.fixture
    async def db(self, tmp_path: Path) -> AsyncIterator[SqliteDb]:
        db = SqliteDb(tmp_path / "new" / "folders" / "agents.db")
        yield db
        await db.aclose()


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "agents.db"
    yield path
    await SqliteDb(path).aclose()


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What the file says to somebody else."""
    other = sqlite3.connect(path)
    try:
        rows: list[tuple[object, ...]] = other.execute(sql).fetchall()
        other.commit()
        return rows
    finally:
        other.close()


# Where the file is


def test_the_file_is_named_by_path_or_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here = SqliteDb(tmp_path / "tmp" / "agents.db").identity
    assert SqliteDb("tmp/agents.db").identity == here
    assert SqliteDb(db_file="~/tmp/agents.db").identity == here
    assert SqliteDb(db_url="sqlite:///tmp/agents.db").identity == here
    assert SqliteDb(db_url=f"sqlite:///{tmp_path}/tmp/agents.db").identity == here
    assert SqliteDb(db_url="sqlite+aiosqlite:///tmp/agents.db").identity == here
    assert not (tmp_path / "tmp").exists()


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert SqliteDb(tmp_path / "link" / "a.db").identity == SqliteDb(tmp_path / "real" / "a.db").identity


def test_other_tables_are_another_database(tmp_path: Path) -> None:
    one, two = SqliteDb(tmp_path / "a.db"), SqliteDb(tmp_path / "a.db", session_table="support")
    assert one.identity != two.identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "db_file or db_url"),
        ({"db_file": "a.db", "db_url": "sqlite:///a.db"}, "either db_file or db_url"),
        ({"db_file": ":memory:"}, "InMemoryDb"),
        ({"db_file": ""}, "InMemoryDb"),
        ({"db_url": "sqlite://"}, "InMemoryDb"),
        ({"db_url": "sqlite:///:memory:"}, "InMemoryDb"),
        ({"db_url": "sqlite://tmp/agents.db"}, "names a host"),
        ({"db_url": "sqlite:///a.db?mode=ro"}, r"options, '\?mode=ro'"),
        ({"db_url": "postgresql://localhost/db"}, "not an SQLite URL"),
        ({"db_url": "tmp/agents.db"}, "not an SQLite URL"),
        ({"db_file": "sqlite:///a.db"}, "pass a URL such as sqlite://... as db_url="),
        (
            {"db_file": "postgresql://u:secret@h/db"},
            "^SqliteDb takes a file, not a URL of PostgreSQL",
        ),
        (
            {"db_url": "postgresql://u:secret@h/db"},
            "^db_url is not an SQLite URL; write [^@]*$",
        ),
        ({"db_file": "a.db", "session_table": "a; DROP TABLE b"}, "session_table"),
        ({"db_file": "a.db", "session_table": "sqlite_x"}, "session_table"),
    ],
)
def test_misuse_is_refused_at_construction(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SqliteDb(**arguments)


async def test_two_objects_on_one_file_see_each_other(path: Path) -> None:
    await SqliteDb(path).commit(state_commit(b'{"a":1}', runs=[run_row("r")]))
    row = await SqliteDb(path).load_session("s")
    assert row is not None
    assert row.state == b'{"a":1}'
    assert await SqliteDb(path).load_run("r") == run_row("r")


async def test_two_sets_of_tables_in_one_file_are_apart(path: Path) -> None:
    one, two = SqliteDb(path), SqliteDb(path, session_table="support")
    await one.commit(state_commit(b'{"a":1}', runs=[run_row("r")]))
    assert await two.load_session("s") is None
    assert not (await two.commit(state_commit(user_id="ann", runs=[run_row("r")]))).repeated
    assert [row.user_id for row in await one.list_sessions()] == [None]


# Files that will not do


async def refused(path: Path) -> str:
    """What both a read and a write say; each names the file."""
    db = SqliteDb(path)
    with pytest.raises(StoreError) as read:
        await db.load_session("s")
    with pytest.raises(StoreError) as write:
        await db.commit(state_commit())
    assert str(path) in str(read.value)
    assert str(path) in str(write.value)
    assert write.value.__cause__ is not None
    return str(write.value)


async def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert "it is a folder; db_file must name a file" in await refused(tmp_path)


async def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await refused(tmp_path / "file" / "agents.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    await refused(tmp_path / "agents.db")
    await refused(tmp_path / "folder" / "agents.db")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system where nothing can be made")
async def test_a_file_system_that_takes_no_files() -> None:
    await refused(Path("/proc/kern/agents.db"))
    await refused(Path("/proc/agents.db"))


async def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"These are notes, and they are long enough to be taken for a header." * 100)
    before = path.read_bytes()
    assert "not an SQLite database" in await refused(path)
    assert path.read_bytes() == before


async def test_a_damaged_file(path: Path) -> None:
    await SqliteDb(path).commit(state_commit(b'{"a":"' + b"x" * 50_000 + b'"}'))
    await SqliteDb(path).aclose()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    await refused(path)


async def test_a_database_that_may_only_be_read(path: Path) -> None:
    db = SqliteDb(path)
    before = (await db.commit(state_commit(b'{"a":1}'))).row
    await db._read(lambda raw: raw.execute("PRAGMA query_only = ON").fetchall())
    with pytest.raises(StoreError, match="cannot be written"):
        await db.commit(state_commit(b'{"a":2}', runs=[run_row("r")]))
    assert await db.load_session("s") == before


async def test_a_full_disk_undoes_the_commit_and_the_next_one_fits_again(path: Path) -> None:
    db = SqliteDb(path)
    before = (await db.commit(state_commit(b'{"a":1}'))).row

    async def limit(pages: int) -> None:
        await db._read(lambda raw: raw.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    await limit(40)
    big = b'"' + b"x" * 400_000 + b'"'
    with pytest.raises(StoreError, match=r"agents\.db: the disk is full"):
        await db.commit(state_commit(b'{"a":2}', runs=[run_row("r", data=big)], changes=[change_row(2)]))
    assert await db.load_session("s") == before
    assert await db.load_run("r") is None
    assert await db.load_changes("s") == []
    assert (await db.commit(state_commit(b'{"a":3}'))).row.version == 2
    await limit(10_000)
    assert not (await db.commit(state_commit(runs=[run_row("r", data=big)]))).repeated


async def test_a_value_that_is_no_text_is_refused_and_leaves_nothing_held(path: Path) -> None:
    db = SqliteDb(path)
    with pytest.raises(StoreError, match="cannot be stored"):
        await db.commit(state_commit(session_id="half a pair: \ud83d"))
    with pytest.raises(StoreError, match="cannot be stored"):
        await db.commit(state_commit(state_version=1 << 70))
    assert await db.list_sessions() == []
    assert not (await db.commit(state_commit())).repeated


async def test_a_file_that_is_deleted_while_it_is_open_is_made_again(path: Path) -> None:
    db = SqliteDb(path)
    await db.commit(state_commit(b'{"a":1}'))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    assert await db.load_session("s") is None
    await asyncio.gather(*(db.commit(counting_commit()) for _ in range(5)))
    await db.aclose()
    assert ask(path, "SELECT state FROM kern_sessions") == [('{"count":5}',)]


# What is in the file


async def test_a_person_can_read_the_file(path: Path) -> None:
    text = '{"shopping_list":["Käse"]}'
    await SqliteDb(path).commit(
        state_commit(text.encode(), runs=[run_row("r", data=b'{"x":1}')], changes=[change_row(1)])
    )
    assert ask(path, "SELECT typeof(state), state FROM kern_sessions") == [("text", text)]
    assert ask(path, "SELECT typeof(data), data FROM kern_sessions_runs") == [("text", '{"x":1}')]
    assert ask(path, "SELECT patch, agent_path FROM kern_sessions_changes") == [("[]", '["agent"]')]


async def test_the_file_records_its_version_and_keeps_its_rows_when_opened_again(path: Path) -> None:
    await SqliteDb(path).commit(state_commit(b'{"a":1}'))
    await SqliteDb(path).aclose()
    versions = [(number,) for number in range(1, len(MIGRATIONS) + 1)]
    assert ask(path, "SELECT version FROM kern_sessions_schema") == versions
    assert await SqliteDb(path).load_session("s") is not None
    assert ask(path, "SELECT version FROM kern_sessions_schema") == versions


async def test_a_file_of_a_newer_kern_is_left_alone(path: Path) -> None:
    await SqliteDb(path).commit(state_commit(b'{"a":1}'))
    await SqliteDb(path).aclose()
    ask(path, "INSERT INTO kern_sessions_schema (version) VALUES (99)")
    with pytest.raises(StoreError, match="newer Kern"):
        await SqliteDb(path).commit(state_commit(b'{"a":2}'))
    assert ask(path, "SELECT state FROM kern_sessions") == [('{"a":1}',)]


async def test_a_table_of_somebody_elses_is_left_alone(path: Path) -> None:
    ask(path, "CREATE TABLE kern_sessions (theirs TEXT)")
    with pytest.raises(StoreError, match="already exists"):
        await SqliteDb(path).commit(state_commit())
    assert ask(path, "SELECT name FROM sqlite_master") == [("kern_sessions",)]


async def test_a_closed_database_is_one_file(path: Path) -> None:
    await SqliteDb(path).commit(state_commit())
    await SqliteDb(path).aclose()
    assert [child.name for child in path.parent.iterdir()] == ["agents.db"]


def test_memory_and_file_are_the_same_port() -> None:
    assert {name for name in dir(SqliteDb) if not name.startswith("_")} == {
        name for name in dir(InMemoryDb) if not name.startswith("_")
    }


# Leases, by a clock that somebody sets


async def test_a_clock_that_is_set_back_keeps_a_dead_holders_lease_no_longer_than_it_was_given_for(
    path: Path,
) -> None:
    db = SqliteDb(path)
    assert await db.acquire_lease("s", "dead", 0.2)
    ask(path, "UPDATE kern_sessions_leases SET expires_at = expires_at + 3600")  # as if by a later clock
    assert not await db.acquire_lease("s", "waits", 60.0)
    while not await db.acquire_lease("s", "waits", 60.0):
        await asyncio.sleep(0.01)


async def test_a_clock_that_is_set_back_takes_no_lease_from_a_living_holder(path: Path) -> None:
    db = SqliteDb(path)
    assert await db.acquire_lease("s", "lives", 60.0)
    ask(path, "UPDATE kern_sessions_leases SET expires_at = expires_at + 3600")
    assert not await db.acquire_lease("s", "waits", 60.0)
    assert not await db.acquire_lease("s", "waits", 0.01)
    assert await db.acquire_lease("s", "lives", 60.0)  # its renewal
    assert not await db.acquire_lease("s", "waits", 60.0)
