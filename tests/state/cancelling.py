"""A scene to cancel in, every way there is to cancel it, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.base import Db
from kern.models.base import Model
from kern.run import RunContext
from kern.run.events import BaseRunEvent, SessionStateChangedEvent
from kern.runtime.active_runs import active_runs
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
    "leader": [_DELEGATION, tool_call("write_sync", item="l1"), "All is written."],
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


def writers(model: Model, db: Db) -> Team:
    """The leader with its two members."""
    tools = [write_async, write_sync]
    members = [
        Agent(name=name, role="Writes items", system_message=f"You are {name.lower()}", tools=tools)
        for name in ("Ann", "Bob")
    ]
    return Team(
        members,
        name="Writers",
        model=model,
        system_message="You are leader",
        tools=[write_sync],
        db=db,
        session_state={"items": [], "whole": []},
    )


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


async def check_end(db: Db, session_id: str, state: dict[str, Any], seen: list[BaseRunEvent]) -> str:
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


async def cancelled_at(events: range, team: Team, db: Db, server: ModelServer, way: Way) -> set[str]:
    """How the runs have ended; each is checked."""
    ends: set[str] = set()
    for last in events:
        session_id = f"session-{last}"
        async with no_leaks(server):
            seen = await way(team, session_id, last)
            state = await team.aget_session_state(session_id)
        ends.add(await check_end(db, session_id, state, seen))
        assert not list(active_runs)
    assert len(live_sessions) == 0
    return ends
