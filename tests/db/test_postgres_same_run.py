"""Two callers name one run at the same instant: the second waits for what the first has not committed yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kern.db._postgres_pool import Link
from kern.db.journals import RunAbout, SubmittedRow
from kern.db.postgres import PostgresDb
from tests.postgres import Postgres, new_tables

ABOUT = RunAbout(session_id="s", user_id="ann", runner_id="desk", is_team=False)
RUN = SubmittedRow(run_id="r", about=ABOUT, request=b'{"input":"q"}')


@pytest.fixture
async def db(postgres: Postgres) -> AsyncIterator[PostgresDb]:
    db = PostgresDb(postgres.url, session_table=new_tables())
    await db.load_session("s")
    yield db
    await db.aclose()


@asynccontextmanager
async def uncommitted(db: PostgresDb, statement: str, *values: object) -> AsyncIterator[list[Any]]:
    """Carry the statement out in a transaction that is committed at the end of the block."""
    done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    goes_on = asyncio.Event()

    async def job(link: Link) -> None:
        done.set_result(await link.fetch(db._sql[statement], *values))
        await goes_on.wait()

    transaction = asyncio.create_task(db._pool.transaction(job, wait=30.0))
    try:
        yield await done
    finally:
        goes_on.set()
        await transaction


async def waits_for(db: PostgresDb, call: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    """Start the call, and return when the server has it wait for a lock."""

    async def call_it() -> Any:
        return await call()

    task = asyncio.create_task(call_it())
    table = db._names["claims"]
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{table}%'"
    while not await db._pool.fetch(waiting, wait=30.0):
        assert not task.done()
        await asyncio.sleep(0.01)
    return task


async def test_a_run_is_begun_while_its_submission_is_uncommitted(db: PostgresDb) -> None:
    submission = "s", "r", "ann", "desk", False, RUN.request, True
    async with uncommitted(db, "submit_run", *submission) as rows:
        assert rows[0][0] is True
        claiming = await waits_for(db, lambda: db.claim_run("r", "me", 60.0, ABOUT))
    claimed = await claiming
    assert claimed is not None
    assert claimed.claim.attempt == 1
    assert await db.load_request("r") == RUN.request
    assert await db.take_run("worker", 60.0, ["desk"]) is None


async def test_a_run_is_submitted_while_its_claim_is_uncommitted(db: PostgresDb) -> None:
    claim = "r", "me", 60.0, "s", "ann", "desk", False, 3600.0
    async with uncommitted(db, "claim_run", *claim) as rows:
        assert rows[0][0] == 1
        submitting = await waits_for(db, lambda: db.submit_run(RUN))
    assert await submitting is False
    assert await db.load_request("r") is None
    assert await db.take_run("worker", 60.0, ["desk"]) is None


async def test_of_two_uncommitted_submissions_one_is_stored(db: PostgresDb) -> None:
    submission = "s", "r", "ann", "desk", False, b'{"input":"theirs"}', True
    async with uncommitted(db, "submit_run", *submission):
        submitting = await waits_for(db, lambda: db.submit_run(RUN))
    assert await submitting is False
    taken = await db.take_run("worker", 60.0, ["desk"])
    assert taken is not None
    assert taken.request == b'{"input":"theirs"}'
    assert await db.take_run("another", 60.0, ["desk"]) is None
