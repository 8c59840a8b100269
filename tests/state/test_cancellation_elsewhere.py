"""Cancelled at every event, as in `test_cancellation.py`, on other ground.

Both protocols and HTTP clients; a team in a team, with runs in a tool's thread; a sync program; the commit.
Every few events by default; at all of them, in every way, in the long version.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern.db.base import Commit, Committed
from kern.db.sqlite import SqliteDb
from kern.models import _clients
from kern.models._clients import close_clients
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run import RunContext
from kern.runtime.active_runs import active_runs
from kern.runtime.session import live_sessions
from kern.team import Team
from kern.testing import ModelServer, no_leaks, tool_call
from tests.played import agent_with, calling, team_of
from tests.state.cancelling import (
    WAYS,
    Way,
    by_a_cancel_inside_anext,
    by_break,
    by_cancel_run,
    cancelled_at,
    number_of_events,
    play,
    writers,
)

START: dict[str, Any] = {"items": [], "whole": []}


@pytest.fixture
async def db(tmp_path: Path) -> SqliteDb:
    return await asyncio.to_thread(SqliteDb, db_file=str(tmp_path / "agents.db"))


# Protocols and clients.


@pytest.fixture(params=["httpx", "aiohttp"])
async def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    if request.param == "aiohttp":
        pytest.importorskip("aiohttp", reason="the extra fast is not installed")
    else:
        monkeypatch.setattr(_clients, "fast_client", functools.cache(lambda: None))
    await close_clients()
    yield str(request.param)
    await close_clients()


@pytest.mark.parametrize("way", [by_a_cancel_inside_anext, by_break], ids=lambda way: way.__name__)
@pytest.mark.parametrize("protocol", [OpenAIResponses, OpenAIChat])
async def test_every_few_events_with_either_protocol_and_client(
    db: SqliteDb, client: str, protocol: Any, way: Way
) -> None:
    async with ModelServer(play) as server:
        team = writers(protocol("any", base_url=server.base_url, api_key="any"), db)
        number = await number_of_events(team)
        assert "CANCELLED" in await cancelled_at(range(1, number, 9), team, db, server, way)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("protocol", [OpenAIResponses, OpenAIChat])
async def test_every_event_with_either_protocol_and_client(
    db: SqliteDb, client: str, protocol: Any, way: Way
) -> None:
    async with ModelServer(play) as server:
        team = writers(protocol("any", base_url=server.base_url, api_key="any"), db)
        number = await number_of_events(team)
        print(f"cancelled at each of {number} events")
        ends = await cancelled_at(range(1, number + 1), team, db, server, way)
        assert ends == {"CANCELLED", "COMPLETED"}


# A team in a team, whose tools are at work in threads, and run agents from there.


def nest(db: SqliteDb) -> Team:
    def write(run_context: RunContext) -> None:
        state = run_context.session_state
        state["items"].append("sync")
        state["whole"].append("sync")

    async def write_after_a_while(run_context: RunContext) -> None:
        await asyncio.sleep(0)
        state = run_context.session_state
        state["items"].append("async")
        await asyncio.sleep(0)
        state["whole"].append("async")

    def by_another(run_context: RunContext) -> None:
        run_context.session_state["items"].append("outer")
        agent_with(write, write_after_a_while, db=db, session_id=run_context.session_id).run("go")
        run_context.session_state["whole"].append("outer")

    def by_another_first(run_context: RunContext) -> None:
        agent_with(write, db=db, session_id=run_context.session_id).run("go")
        write(run_context)

    deep, deeper = agent_with(write, by_another, name="deep"), agent_with(write_after_a_while, name="deeper")
    inner = team_of([deep, deeper], name="Inner")
    return Team(
        [inner, agent_with(by_another_first, name="beside")],
        name="Outer",
        model=calling(
            tool_call("delegate_task_to_member", member_id="inner", task="work"),
            tool_call("delegate_task_to_member", member_id="beside", task="work"),
        ),
        db=db,
        session_state=START,
    )


async def cancelled_in_the_nest(step: int, db: SqliteDb, way: Way) -> None:
    team = nest(db)
    number = await number_of_events(team)
    assert number > 40
    whole = (await team.aget_session_state("counted"))["whole"]
    assert sorted(whole) == ["async", "async", "outer", "sync", "sync", "sync", "sync"]
    print(f"cancelled at {len(range(1, number + 1, step))} of {number} events")
    for last in range(1, number + 1, step):
        session_id = f"session-{last}"
        async with no_leaks():
            await way(team, session_id, last)
            state = await team.aget_session_state(session_id)
        assert sorted(state["items"]) == sorted(state["whole"]), "half of a call was committed"
        row = await db.load_session(session_id)
        assert row is not None
        assert json.loads(row.state) == state
        assert {run.status for run in await db.load_runs(session_id, top_level=False)} <= {
            "COMPLETED",
            "CANCELLED",
        }
        assert not list(active_runs), "a run lives on"
        assert len(live_sessions) == 0


@pytest.mark.parametrize("way", [by_a_cancel_inside_anext, by_cancel_run], ids=lambda way: way.__name__)
async def test_every_few_events_of_a_team_in_a_team(db: SqliteDb, way: Way) -> None:
    await cancelled_in_the_nest(5, db, way)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_event_of_a_team_in_a_team(db: SqliteDb, way: Way) -> None:
    await cancelled_in_the_nest(1, db, way)


# A sync program.


def test_a_sync_program_that_breaks_at_any_event_finds_the_end_stored(tmp_path: Path) -> None:
    db = SqliteDb(db_file=str(tmp_path / "agents.db"))
    with ModelServer(play) as server:
        team = writers(OpenAIChat("any", base_url=server.base_url, api_key="any"), db)
        number = sum(1 for _ in team.run("Write", stream=True, stream_events=True, session_id="counted"))
        for last in range(1, number + 1, 4):
            session_id = f"session-{last}"
            for count, _ in enumerate(
                team.run("Write", stream=True, stream_events=True, session_id=session_id), 1
            ):
                if count == last:
                    break
            assert not list(active_runs)
            assert len(live_sessions) == 0
            row = asyncio.run(db.load_session(session_id))
            assert row is not None
            state = json.loads(row.state)
            assert state["items"] == state["whole"]


# The commit.


class CountedDb(SqliteDb):
    """Tells when a commit begins, and waits a little in front of it and behind it."""

    begun: asyncio.Event

    async def commit(self, commit: Commit) -> Committed:
        self.begun.set()
        await asyncio.sleep(0)
        committed = await super().commit(commit)
        await asyncio.sleep(0)
        return committed


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_at_any_turn_of_the_commit_leaves_all_of_it(tmp_path: Path, times: int) -> None:
    """The run was through; whether its caller hears of the output or of the cancellation, it is stored."""
    db = await asyncio.to_thread(CountedDb, db_file=str(tmp_path / "agents.db"))

    async def write(run_context: RunContext) -> None:
        run_context.session_state["written"] = True

    cancelled = 0
    for turn in range(12):
        db.begun = asyncio.Event()
        agent = agent_with(write, db=db, session_id=f"session-{turn}")
        task = asyncio.create_task(agent.arun("go"))
        await db.begun.wait()
        for _ in range(turn):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        cancelled += task.cancelled()
        row = await db.load_session(f"session-{turn}")
        assert row is not None
        assert row.state == b'{"written":true}'
        assert [run.status for run in await db.load_runs(f"session-{turn}")] == ["COMPLETED"]
        assert len(live_sessions) == 0
    assert cancelled


# A stream that is let go of where its loop is not.


async def test_a_stream_collected_on_another_loop_is_committed_before_that_loop_s_accessor_returns(
    db: SqliteDb,
) -> None:
    inside, left, over = threading.Event(), threading.Event(), threading.Event()

    async def stuck(run_context: RunContext) -> None:
        run_context.session_state["never"] = True
        inside.set()
        await asyncio.Event().wait()

    agent = agent_with(stuck, db=db, session_id="one")
    held: list[Any] = []

    async def consume() -> None:
        held.append(agent.arun("go", stream=True, stream_events=True))
        async for event in held[0]:
            if event.kind == "ToolCallStarted":
                break
        left.set()  # only now nothing but `held` refers to the stream
        await asyncio.to_thread(over.wait, 10)

    async def let_go() -> dict[str, Any]:
        held.clear()
        return await agent.aget_session_state()

    first = asyncio.create_task(asyncio.to_thread(asyncio.run, consume()))
    assert await asyncio.to_thread(inside.wait, 10)
    assert await asyncio.to_thread(left.wait, 10)
    assert await asyncio.to_thread(asyncio.run, let_go()) == {}
    (row,) = await db.load_runs("one")
    assert row.status == "CANCELLED"
    over.set()
    await first
