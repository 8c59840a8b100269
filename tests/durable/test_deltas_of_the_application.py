"""A stream of deltas, or a database, of the application's own that fails costs no run, claim or follower."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunStatus, tool
from kern.db import SqliteDb
from kern.durable import DbJournal, Delta, InMemoryDeltas
from kern.run.events import RunCompletedEvent
from kern.runtime import lease
from kern.testing import ScriptedModel, tool_call


def gone(*_: object) -> Any:
    raise ConnectionError("the broker is gone")


def cancelled(*_: object) -> Any:
    raise asyncio.CancelledError


class Broker(InMemoryDeltas):
    """A stream that fails: `published` and `reads` count the calls."""

    def __init__(
        self,
        publish: Callable[..., Any] | None = None,
        read: Callable[[str, int], Any] | None = None,
    ) -> None:
        super().__init__()
        self.published = self.reads = 0
        self._publish, self._read = publish, read

    def publish(self, name: str, delta: Delta) -> None:
        self.published += 1
        if self._publish is not None:
            self._publish(name, delta)
        super().publish(name, delta)

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        self.reads += 1
        if self._read is not None:
            found: Sequence[Delta] = self._read(name, after)
            return found
        return await super().read(name, after, seconds)


class Desk:
    """An agent whose tool waits until it may go on."""

    def __init__(self, db: SqliteDb, broker: Broker | None = None, *, claim_seconds: float = 0.6) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.agent = Agent(
            id="desk",
            model=ScriptedModel([tool_call("slow"), "the end of it"]),
            tools=[tool(self.slow, effect="read")],
            db=db,
            journal=DbJournal(db, claim_seconds=claim_seconds, deltas=broker),
        )

    async def slow(self) -> str:
        self.calls += 1
        await self.go.wait()
        return "ok"


@pytest.mark.parametrize("fault", [gone, cancelled])
async def test_a_claim_is_renewed_although_nothing_can_be_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Callable[..., Any]
) -> None:
    db, other = SqliteDb(tmp_path / "a.db"), SqliteDb(tmp_path / "a.db")
    broker = Broker(publish=fault)
    desk = Desk(db, broker)
    run = await desk.agent.astart("q", session_id="s", run_id="R")
    while not broker.published:
        await asyncio.sleep(0.01)
    renewed = await heartbeat(other)
    while await heartbeat(other) <= renewed:  # it would stand still for ever
        await asyncio.sleep(0.05)
    assert await DbJournal(other).unfinished() == []
    desk.go.set()
    output = await run.result()
    assert (output.status, desk.calls) == (RunStatus.completed, 1)
    assert sum("failed to publish events" in record.message for record in caplog.records) == 1
    await db.aclose()
    await other.aclose()


async def heartbeat(db: SqliteDb) -> float:
    [running] = await db.running_runs(run_id="R")
    return running.heartbeat_at


@pytest.mark.parametrize(
    "answer",
    [
        gone,
        lambda *_: None,
        lambda *_: ["no delta"],
        lambda _, after: [Delta(after=after, last_seq="5", data=b"[]")],
    ],
    ids=["raises", "None", "no deltas", "no numbers"],
)
async def test_who_follows_hears_all_from_the_database_if_the_stream_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Callable[[str, int], Any]
) -> None:
    db = SqliteDb(tmp_path / "a.db")
    broker = Broker(read=answer)
    desk = Desk(db, broker)
    run = await desk.agent.astart("q", session_id="s", run_id="R")
    heard: list[Any] = []

    async def follow() -> None:
        async for event in desk.agent.follow("R"):
            heard.append(event)

    following = asyncio.create_task(follow())
    while broker.reads < 2:
        await asyncio.sleep(0.01)
    desk.go.set()
    await following
    assert isinstance(heard[-1], RunCompletedEvent)
    assert heard[-1].content == "the end of it"
    assert (await run.result()).status is RunStatus.completed
    assert sum("failed to read its events" in record.message for record in caplog.records) == 1
    await db.aclose()


async def test_a_stream_that_answers_at_once_does_not_make_followers_ask_the_database_all_the_time(
    tmp_path: Path,
) -> None:
    db = SqliteDb(tmp_path / "a.db")
    broker = Broker(read=lambda *_: [])
    desk = Desk(db, broker)
    run = await desk.agent.astart("q", session_id="s", run_id="R")
    asked = 0
    load_events = db.load_events

    async def counted(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return await load_events(*given, **named)

    setattr(db, "load_events", counted)  # noqa: B010 - a method

    async def follow() -> None:
        async for _ in desk.agent.follow("R"):
            pass

    following = asyncio.create_task(follow())
    await asyncio.sleep(1.0)
    quiet = asked
    desk.go.set()
    await following
    await run.result()
    assert quiet < 30
    await db.aclose()


class OwnDb(SqliteDb):
    """A database of the application's that raises its own errors while `broken`."""

    broken = False
    failures = 0

    async def append_steps(self, *given: Any, **named: Any) -> bool:
        self._fail()
        return await super().append_steps(*given, **named)

    async def acquire_lease(self, *given: Any, **named: Any) -> bool:
        self._fail()
        return await super().acquire_lease(*given, **named)

    def _fail(self) -> None:
        if self.broken:
            self.failures += 1
            raise ConnectionError("no route to host")


async def test_a_claim_is_renewed_again_after_errors_of_the_application_s_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = OwnDb(tmp_path / "a.db")
    desk = Desk(db)
    run = await desk.agent.astart("q", session_id="s", run_id="R")
    while not desk.calls:
        await asyncio.sleep(0.01)
    renewed = await heartbeat(db)
    db.broken = True
    while not db.failures:
        await asyncio.sleep(0.01)
    db.broken = False
    while await heartbeat(db) <= renewed:
        await asyncio.sleep(0.01)
    desk.go.set()
    assert (await run.result()).status is RunStatus.completed
    assert any("was not renewed: ConnectionError" in record.message for record in caplog.records)
    await db.aclose()


async def test_a_lease_is_renewed_again_after_errors_of_the_application_s_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    db = OwnDb(tmp_path / "a.db")
    held = lease.Lease(db, "x", "R", what="the run 'R'", untouched=yes, seconds=30.0, renew=0.01)
    assert await held.acquire(wait=False)
    db.broken = True
    while db.failures < 2:
        await asyncio.sleep(0.01)
    db.broken = False
    until = held._held_until
    while held._held_until <= until:
        await asyncio.sleep(0.01)
    await held.released()
    assert any("was not renewed: ConnectionError" in record.message for record in caplog.records)
    await db.aclose()


async def yes() -> bool:
    return True
