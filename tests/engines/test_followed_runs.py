"""Runs that an engine drives are followed as any other: piece by piece, from the database or a stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kern.db import Db, SqliteDb
from kern.durable import DeltaStream, InMemoryDeltas
from kern.durable.redis import RedisDeltas
from kern.engines import Worker, submission, submit
from tests.durable.test_deltas import Desk, Follower, rows


@pytest.fixture
def db(tmp_path: Path) -> Db:
    return SqliteDb(tmp_path / "a.db")


@pytest.mark.parametrize("way", ["database", "memory", "redis"])
async def test_a_run_that_a_worker_drives_is_heard_piece_by_piece(
    db: Db, way: str, request: pytest.FixtureRequest
) -> None:
    deltas: DeltaStream | None = None
    if way == "memory":
        deltas = InMemoryDeltas()
    elif way == "redis":
        deltas = RedisDeltas(request.getfixturevalue("shared_redis").url)
    desk = Desk(db, deltas)
    await submit(desk.agent, submission(desk.agent, "go", session_id="s", run_id="r"))
    follower = Follower(desk.agent.follow("r"))
    worker = Worker(desk.agent, poll_seconds=0.05, claim_seconds=600)
    working = asyncio.create_task(worker.work())
    for piece, text in (("It is", "It is"), (" a fine", "It is a fine"), (" day", "It is a fine day")):
        desk.model.say(piece)
        await follower.until("r", text)
    assert any('"RunContent"' in row for row in await rows(db, "r")) is (deltas is None)
    desk.model.say(None)
    assert (await follower.task).texts["r"] == "It is a fine day"
    worker.stop()
    await working
    await db.aclose()
    if isinstance(deltas, RedisDeltas):
        await deltas.aclose()
