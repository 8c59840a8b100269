"""One file, many at once in one process: other writers, tasks that are cancelled, loops that stop."""

# ruff: noqa: ASYNC240  # the tests' own little files may be looked at on the loop

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kern.db import SqliteDb
from kern.db.base import SessionRow
from kern.errors import StoreError
from kern.testing.db import counting_commit, run_row, state_commit


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "agents.db"
    yield path
    await SqliteDb(path).aclose()


@contextmanager
def another_writer(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody outside of Kern who is writing to the file."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")
    finally:
        other.close()


class Halt:
    """A resolver's callback that stops inside the transaction until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, row: SessionRow | None) -> None:
        self.reached.set()
        assert self.go.wait(20)

    async def wait(self) -> None:
        while not self.reached.is_set():
            await asyncio.sleep(0.001)


# Another writer


async def test_a_commit_waits_for_another_process(path: Path) -> None:
    db = SqliteDb(path)
    await db.commit(counting_commit())
    with another_writer(path):
        task = asyncio.create_task(db.commit(counting_commit()))
        row = await db.load_session("s")  # a reader does not wait
        assert row is not None
        assert row.version == 1
        assert not task.done()
    assert (await task).row.version == 2


async def test_a_database_that_stays_busy_is_a_store_error(path: Path) -> None:
    db = SqliteDb(path, busy_timeout=0.3)
    await db.commit(counting_commit())
    with another_writer(path):
        with pytest.raises(StoreError, match=r"agents\.db: the database is busy"):
            await db.commit(counting_commit())
        assert await db.load_session("s") is not None
    assert (await db.commit(counting_commit())).row.version == 2


async def test_a_new_file_that_stays_busy_is_a_store_error(path: Path) -> None:
    with another_writer(path) as other:
        other.execute("CREATE TABLE theirs (x)")
        with pytest.raises(StoreError, match="the database is busy"):
            await SqliteDb(path, busy_timeout=0.3).load_session("s")
    assert await SqliteDb(path).load_session("s") is None


async def test_another_process_may_write_between_a_read_and_a_commit(path: Path) -> None:
    db = SqliteDb(path)
    await db.commit(counting_commit())
    await db.load_session("s")
    with another_writer(path) as other:
        other.execute("UPDATE kern_sessions SET state = '{\"count\":41}', version = 41")
        other.execute("COMMIT")
    done = await db.commit(counting_commit())
    assert (done.row.state, done.row.version) == (b'{"count":42}', 42)


# Tasks


async def test_a_cancelled_commit_ends_when_its_transaction_has_ended(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()
    task = asyncio.create_task(db.commit(state_commit(b'{"a":1}', runs=[run_row("r")], seen=halt)))
    await halt.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    behind = asyncio.create_task(db.commit(state_commit(b'{"a":2}')))
    halt.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.load_run("r") is not None
    assert (await behind).row.version == 2


async def test_a_commit_that_is_cancelled_in_the_queue_writes_nothing(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()
    first = asyncio.create_task(db.commit(state_commit(b'{"a":1}', seen=halt)))
    await halt.wait()
    queued = asyncio.create_task(db.commit(state_commit(b'{"a":2}', runs=[run_row("r")])))
    await asyncio.sleep(0.01)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    halt.go.set()
    assert (await first).row.version == 1
    assert (await db.commit(state_commit(b'{"a":3}'))).row.version == 2
    assert await db.load_run("r") is None


async def test_a_commit_that_fails_after_its_cancellation_leaves_nothing_behind(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()

    def fail(row: SessionRow | None) -> None:
        halt(row)
        raise LookupError

    task = asyncio.create_task(db.commit(state_commit(seen=fail)))
    await halt.wait()
    task.cancel()
    await asyncio.sleep(0)
    halt.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.load_session("s") is None
    assert (await db.commit(state_commit())).row.version == 1


async def test_a_deadline_ends_a_commit_as_a_timeout(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()

    task = asyncio.current_task()
    assert task is not None

    async def late() -> None:
        async with asyncio.timeout(None) as deadline:
            ending = asyncio.create_task(end(deadline))
            try:
                await db.commit(state_commit(seen=halt))
            finally:
                await ending

    async def end(deadline: asyncio.Timeout) -> None:
        await halt.wait()
        deadline.reschedule(asyncio.get_running_loop().time())
        while not task.cancelling():
            await asyncio.sleep(0)
        halt.go.set()

    with pytest.raises(TimeoutError):
        await late()
    assert task.cancelling() == 0
    assert await db.load_session("s") is not None


# Event loops


@pytest.mark.parametrize("close", [False, True])
def test_a_loop_that_stops_in_the_middle_of_a_commit_does_not_keep_the_writer(
    tmp_path: Path, close: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, halt = tmp_path / "agents.db", Halt()
    db = SqliteDb(path)
    stopped = asyncio.new_event_loop()
    reading = stopped.create_task(db.load_session("s"))
    stopped.run_until_complete(reading)
    first = stopped.create_task(db.commit(state_commit(b'{"count":1}', seen=halt)))
    stopped.run_until_complete(halt.wait())
    second = stopped.create_task(db.commit(counting_commit()))
    stopped.run_until_complete(asyncio.sleep(0.01))
    if close:
        stopped.close()

    async def elsewhere() -> int:
        halt.go.set()
        return (await db.commit(counting_commit())).row.version

    assert asyncio.run(elsewhere()) == 2
    assert not first.done()
    assert not second.done()
    if not close:
        assert stopped.run_until_complete(second).row.version == 3
        assert stopped.run_until_complete(first).row.version == 1
        stopped.run_until_complete(stopped.shutdown_asyncgens())
        stopped.close()
    del reading, first, second
    gc.collect()
    caplog.clear()  # asyncio says that pending tasks were destroyed, which they were


def test_a_connection_is_open_until_its_loop_ends(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"

    async def main() -> None:
        await SqliteDb(path).commit(counting_commit())
        gc.collect()  # nobody has the database any more
        assert Path(f"{path}-wal").exists()
        threads = set(threading.enumerate())
        await SqliteDb(path).commit(counting_commit())
        assert set(threading.enumerate()) <= threads

    for _ in range(2):
        asyncio.run(main())
        assert [child.name for child in tmp_path.iterdir()] == ["agents.db"]
