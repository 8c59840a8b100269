"""A run cancelled at every one of its events, in every way there is.

Its end is in the database, nothing is left behind, and the state is what whole calls have committed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from played import turns

from kern.agent import Agent
from kern.db.sqlite import SqliteDb
from kern.models.openai import OpenAIChat
from kern.run import RunContext
from kern.run.events import BaseRunEvent, SessionStateChangedEvent
from kern.runtime.control import active_runs
from kern.runtime.session import live_sessions
from kern.state.patch import apply
from kern.team import Team
from kern.testing import Answer, ModelServer, ReceivedRequest, no_leaks, tool_call

# The scene: a leader, two members at work at the same time, sync and async tools that write in two halves.


async def write_async(run_context: RunContext, item: str) -> str:
    """Write an item."""
    state = run_context.session_state
    state["items"].append(item)
    await asyncio.sleep(0.001)
    state["whole"].append(item)
    return f"wrote {item}"


def write_sync(run_context: RunContext, item: str) -> str:
    """Write an item."""
    state = run_context.session_state
    state["items"].append(item)
    time.sleep(0.001)
    state["whole"].append(item)
    return f"wrote {item}"


_DELEGATION = Answer(
    "I ask both.",
    tool_calls=[
        tool_call("delegate_task_to_member", member_id="ann", task="write two items"),
        tool_call("delegate_task_to_member", member_id="bob", task="write two more"),
    ],
)
_SCRIPTS: dict[str, list[Answer | str]] = {
    "leader": [_DELEGATION, tool_call("write_sync", item="l1"), "All is written."],  # type: ignore[list-item]
    "ann": [
        Answer(tool_calls=[tool_call("write_async", item="a1"), tool_call("write_sync", item="a2")]),
        "Ann is done.",
    ],
    "bob": [
        Answer(tool_calls=[tool_call("write_sync", item="b1")]),
        Answer("One more.", tool_calls=[tool_call("write_async", item="b2")]),
        "Bob is done.",
    ],
}


def play(request: ReceivedRequest) -> Any:
    script = _SCRIPTS[request.system_text.split()[-1]]
    return script[sum(message.role == "assistant" for message in request.messages)]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(play) as server:
        yield server


@pytest.fixture
def db(tmp_path: Path) -> SqliteDb:
    return SqliteDb(db_file=str(tmp_path / "agents.db"))


@pytest.fixture
def team(server: ModelServer, db: SqliteDb) -> Iterator[Team]:
    tools = [write_async, write_sync]
    members = [
        Agent(name=name, role="Writes items", system_message=f"You are {name.lower()}", tools=tools)
        for name in ("Ann", "Bob")
    ]
    yield Team(
        members,
        name="Writers",
        model=OpenAIChat("any", base_url=server.base_url, api_key="any"),
        system_message="You are leader",
        tools=[write_sync],
        db=db,
        session_state={"items": [], "whole": []},
    )
    assert len(live_sessions) == 0


class Stopped(Exception):
    """Raised by a consumer in the body of its loop."""


Way = Callable[[Team, str, int], Awaitable[list[BaseRunEvent]]]


def events_of(team: Team, session_id: str) -> Any:
    return team.arun("Write", stream=True, stream_events=True, session_id=session_id)


async def by_aclose(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    stream = events_of(team, session_id)
    async for event in stream:
        seen.append(event)
        if len(seen) == last:
            await stream.aclose()
    return seen


async def by_leaving_the_block(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    async with events_of(team, session_id) as stream:
        async for event in stream:
            seen.append(event)
            if len(seen) == last:
                break
    return seen


async def by_break(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    async for event in events_of(team, session_id):
        seen.append(event)
        if len(seen) == last:
            break
    return seen


async def by_an_error(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []

    async def consume() -> None:
        async for event in events_of(team, session_id):
            seen.append(event)
            if len(seen) == last:
                raise Stopped

    with pytest.raises(Stopped):
        await consume()
    return seen


async def by_a_cancel_in_the_body(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    there = asyncio.Event()

    async def consume() -> None:
        async for event in events_of(team, session_id):
            seen.append(event)
            if len(seen) == last:
                there.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await there.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return seen


async def by_a_cancel_inside_anext(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []

    async def consume() -> None:
        async for event in events_of(team, session_id):
            seen.append(event)
            if len(seen) == last:
                asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(consume())
    await asyncio.wait([task])
    return seen


async def by_a_deadline(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    try:
        async with asyncio.timeout(None) as deadline:
            async for event in events_of(team, session_id):
                seen.append(event)
                if len(seen) == last:
                    deadline.reschedule(asyncio.get_running_loop().time())
    except TimeoutError:
        pass
    return seen


async def by_cancel_run(team: Team, session_id: str, last: int) -> list[BaseRunEvent]:
    seen: list[BaseRunEvent] = []
    async for event in events_of(team, session_id):
        seen.append(event)
        if len(seen) == last:
            await team.acancel_run(seen[0].run_id)
    assert seen[-1].kind in ("RunCancelled", "RunCompleted")
    return seen


WAYS: list[Way] = [
    by_aclose,
    by_leaving_the_block,
    by_break,
    by_an_error,
    by_a_cancel_in_the_body,
    by_a_cancel_inside_anext,
    by_a_deadline,
    by_cancel_run,
]


async def number_of_events(team: Team) -> int:
    events = [event async for event in events_of(team, "counted")]
    assert events[-1].kind == "RunCompleted"
    return len(events)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_run_cancelled_at_any_event_ends_committed_and_leaves_nothing(
    team: Team, db: SqliteDb, server: ModelServer, way: Way
) -> None:
    number = await number_of_events(team)
    assert number > 50
    print(f"cancelled at each of {number} events")
    ends: set[str] = set()
    for last in range(1, number + 1):
        session_id = f"session-{last}"
        async with no_leaks(server):
            seen = await way(team, session_id, last)
            state = await team.aget_session_state(session_id)
        ends.add(await check_end(db, session_id, state, seen))
        assert not active_runs._trees
    assert ends == {"CANCELLED", "COMPLETED"}


async def check_end(db: SqliteDb, session_id: str, state: dict[str, Any], seen: list[BaseRunEvent]) -> str:
    """The stored end: one of a run that ended, with a state that whole calls have made."""
    row = await db.load_session(session_id)
    assert row is not None, f"after {len(seen)} events nothing was stored"
    assert json.loads(row.state) == state
    assert state["items"] == state["whole"], "half of a call was committed"
    changes = await db.load_changes(session_id)
    replayed: Any = {"items": [], "whole": []}
    for change in changes:
        replayed = apply(replayed, json.loads(change.patch))
    assert replayed == state
    assert row.revision == len(state["items"]) == len(changes)
    told = [event.revision for event in seen if isinstance(event, SessionStateChangedEvent)]
    assert told == list(range(1, len(told) + 1)), "what was shown is not the order of commits"
    assert len(told) <= row.revision, "what was shown as committed is not there"
    runs = await db.load_runs(session_id, top_level=False)
    (top,) = [run for run in runs if run.parent_run_id is None]
    assert {run.status for run in runs} <= {"COMPLETED", "CANCELLED"}
    assert seen[0].run_id == top.run_id
    if top.status == "COMPLETED":
        assert sorted(state["items"]) == ["a1", "a2", "b1", "b2", "l1"]
    return top.status


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
    from played import agent_with, until

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
