"""A run cancelled at every one of its events, in every way there is.

Its end is in the database, nothing is left behind, and the state is what whole calls have committed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kern.db.sqlite import SqliteDb
from kern.models.openai import OpenAIChat
from kern.run import RunContext
from kern.run.events import BaseRunEvent
from kern.runtime.session import live_sessions
from kern.team import Team
from kern.testing import ModelServer, ReceivedRequest, no_leaks
from tests.played import turns
from tests.state.cancelling import (
    WAYS,
    Way,
    cancelled_at,
    events_of,
    number_of_events,
    play,
    write_async,
    write_sync,
    writers,
)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(play) as server:
        yield server


@pytest.fixture
def db(tmp_path: Path) -> SqliteDb:
    return SqliteDb(db_file=str(tmp_path / "agents.db"))


@pytest.fixture
def team(server: ModelServer, db: SqliteDb) -> Iterator[Team]:
    yield writers(OpenAIChat("any", base_url=server.base_url, api_key="any"), db)
    assert len(live_sessions) == 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_run_cancelled_at_any_event_ends_committed_and_leaves_nothing(
    team: Team, db: SqliteDb, server: ModelServer, way: Way
) -> None:
    number = await number_of_events(team)
    assert number > 50
    print(f"cancelled at each of {number} events")
    ends = await cancelled_at(range(1, number + 1), team, db, server, way)
    assert ends == {"CANCELLED", "COMPLETED"}


# Without a stream there are no events to count; what the models and tools are asked is counted instead.


async def test_a_run_without_a_stream_cancelled_at_any_request_or_tool_ends_committed(
    team: Team, db: SqliteDb, server: ModelServer
) -> None:
    class Countdown:
        left = -1

        def hit(self) -> None:
            self.left -= 1
            if self.left == 0:
                loop.call_soon_threadsafe(task.cancel)

    countdown, loop = Countdown(), asyncio.get_running_loop()
    served = server._respond
    assert served is not None

    def counted(request: ReceivedRequest) -> Any:
        countdown.hit()
        return served(request)

    server._respond = counted

    async def write_async_counted(run_context: RunContext, item: str) -> str:
        countdown.hit()
        result = await write_async(run_context, item)
        countdown.hit()
        return result

    def write_sync_counted(run_context: RunContext, item: str) -> str:
        countdown.hit()
        result = write_sync(run_context, item)
        countdown.hit()
        return result

    write_async_counted.__name__, write_sync_counted.__name__ = "write_async", "write_sync"
    for member in (team, *team.members):
        member.tools = [write_async_counted, write_sync_counted]

    last = 0
    while True:
        last += 1
        countdown.left = last
        async with no_leaks(server):
            task = asyncio.create_task(team.arun("Write", session_id=f"session-{last}"))
            await asyncio.wait([task])
            state = await team.aget_session_state(f"session-{last}")
        if countdown.left > 0:
            break
        row = await db.load_session(f"session-{last}")
        assert row is not None
        assert json.loads(row.state) == state
        assert state["items"] == state["whole"]
        (run,) = await db.load_runs(f"session-{last}")
        assert run.status == ("CANCELLED" if task.cancelled() else "COMPLETED")
    assert last > 15


async def test_a_member_that_is_cancelled_by_its_id_leaves_its_siblings_alone(
    team: Team, db: SqliteDb
) -> None:
    number = await number_of_events(team)
    for last in range(1, number + 1):
        seen: list[BaseRunEvent] = []
        async for event in events_of(team, f"session-{last}"):
            seen.append(event)
            if len(seen) == last and event.source.nested_depth:
                await team.acancel_run(event.run_id)
        assert seen[-1].kind == "RunCompleted", f"the team was cancelled with its member at {last}"
        state = await team.aget_session_state(f"session-{last}")
        assert state["items"] == state["whole"]
        assert "l1" in state["items"]
        await turns(2)


async def test_a_cancellation_while_another_run_has_the_state_does_not_wait_for_it(db: SqliteDb) -> None:
    """The tool is in its I/O when the cancellation comes, and could go on only when the state is free."""
    from tests.played import agent_with, until

    over, reading = asyncio.Event(), asyncio.Event()

    async def hog(run_context: RunContext) -> None:
        run_context.session_state["hog"] = True
        await over.wait()

    async def read(run_context: RunContext) -> None:
        reading.set()
        await asyncio.Event().wait()

    reader = agent_with(read, db=db, session_id="one")
    hogging = agent_with(hog, db=db, session_id="one")
    second = asyncio.create_task(reader.arun("go"))
    await reading.wait()
    first = asyncio.create_task(hogging.arun("go"))
    (session,) = live_sessions._sessions.values()
    await until(lambda: session.state.lock.held)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not first.done()
    over.set()
    assert (await first).session_state == {"hog": True}
