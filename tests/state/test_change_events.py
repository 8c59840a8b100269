"""`SessionStateChanged`: its patches, applied by another's JSON Patch, are the state at every revision."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonpatch
import pytest

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.run import RunContext
from kern.run.events import BaseRunEvent, RunStartedEvent, SessionStateChangedEvent
from kern.runtime.session import live_sessions
from kern.team import Team
from tests.played import agent_with, team_of

SESSION = "one"
KEYS = ("a", "b", "c/d", "e~f", "")


def edit(state: dict[str, Any], number: int) -> None:
    """One of several kinds of edits, nested ones included."""
    key = KEYS[number % len(KEYS)]
    match number % 7:
        case 0:
            state[key] = {"list": [number], "text": "é\u2028"}
        case 1:
            state.setdefault("items", []).insert(0, number)
        case 2:
            state.setdefault("items", []).append({"n": number, "deep": [[number]]})
        case 3:
            state.pop(key, None)
        case 4 if state.get("items"):
            state["items"].pop(len(state["items"]) // 2)
        case 5:
            state["count"] = state.get("count", 0) + 0.5
        case _:
            state["items"] = sorted(state.get("items", []), key=json.dumps)


def tools(start: int) -> list[Any]:
    async def edit_async(run_context: RunContext) -> None:
        state = run_context.session_state
        edit(state, start + state.get("edits", 0))
        await asyncio.sleep(0)
        state["edits"] = state.get("edits", 0) + 1

    def edit_sync(run_context: RunContext) -> None:
        state = run_context.session_state
        edit(state, start + state.get("edits", 0))
        state["edits"] = state.get("edits", 0) + 1

    async def edit_in_blocks(run_context: RunContext) -> None:
        for _ in range(3):
            async with run_context.transaction() as state:
                edit(state, start + state.get("edits", 0))
                state["edits"] = state.get("edits", 0) + 1

    def fail(run_context: RunContext) -> None:
        run_context.session_state["edits"] = -1
        raise ValueError("never seen")

    return [edit_async, edit_sync, edit_in_blocks, fail, edit_sync, edit_async]


async def follow(runner: Agent | Team) -> dict[int, Any]:
    """The state at every revision, as a consumer of the stream knows it."""
    state: Any = None
    revision = -1
    states: dict[int, Any] = {}
    last: BaseRunEvent | None = None
    async for event in runner.arun("go", stream=True, stream_events=True):
        assert last is None or event.seq > last.seq
        last = event
        if isinstance(event, RunStartedEvent) and event.source.nested_depth == 0:
            assert event.revision is not None
            state, revision = event.session_state, event.revision
            states[revision] = state
        elif isinstance(event, SessionStateChangedEvent):
            assert state is not None, "a change came before the state that it changes"
            assert event.revision == revision + 1
            revision = event.revision
            wire = json.loads(event.to_json())["patch"]  # what goes over a wire, and nothing else
            state = jsonpatch.apply_patch(state, wire)
            states[revision] = state
    return states


@pytest.mark.parametrize("beside", [0, 3])
async def test_the_patches_give_the_state_at_every_revision(beside: int) -> None:
    """Alone, and beside runs in this loop, in other loops and in threads that commit at the same time."""
    db = InMemoryDb()

    def options() -> dict[str, Any]:
        return {"db": db, "session_id": SESSION, "session_state": {"edits": 0}}

    team = team_of([agent_with(*tools(n), name=f"member-{n}") for n in range(3)], **options())
    others = [agent_with(*tools(n), **options()) for n in range(beside)]
    followed = await asyncio.gather(
        follow(team),
        *(follow(other) for other in others),
        *(asyncio.to_thread(asyncio.run, follow(other)) for other in others),
        *(asyncio.to_thread(other.run, "go") for other in others),
    )
    truth: dict[int, Any] = {0: {"edits": 0}}
    for change in await db.load_changes(SESSION):
        patch = [
            {name: value for name, value in operation.items() if name in ("op", "path", "value")}
            for operation in json.loads(change.patch)
        ]
        truth[change.revision] = jsonpatch.apply_patch(truth[change.revision - 1], patch)
    row = await db.load_session(SESSION)
    assert row is not None
    assert truth[row.revision] == json.loads(row.state)
    assert row.revision == truth[row.revision]["edits"]
    streams = [states for states in followed if isinstance(states, dict)]
    assert len(streams) == 1 + 2 * beside
    for states in streams:
        assert len(states) > 7
        for revision, state in states.items():
            assert json.dumps(state) == json.dumps(truth[revision]), f"at revision {revision}"
    assert len(live_sessions) == 0


async def test_a_change_says_who_made_it() -> None:
    def write(run_context: RunContext) -> None:
        run_context.session_state["written"] = True

    member = agent_with(write, name="Writer")
    team = team_of([member], name="Desk", session_id=SESSION)
    events = [event async for event in team.arun("go", stream=True, stream_events=True)]
    (change,) = [event for event in events if isinstance(event, SessionStateChangedEvent)]
    about_write = [e for e in events if e.kind.startswith("ToolCall") and e.tool.tool_name == "write"]
    called, completed = about_write
    assert change.agent_path == ["Desk", "Writer"]
    assert change.tool == "write"
    assert change.tool_call_id == called.tool.tool_call_id
    assert change.writer_run_id == called.run_id
    assert change.run_id == events[0].run_id
    assert change.patch == [{"op": "add", "path": "/written", "value": True}]
    assert called.seq < change.seq < completed.seq


async def test_a_commit_that_changes_nothing_is_none() -> None:
    def touch(run_context: RunContext) -> None:
        run_context.session_state["n"] = 1
        run_context.session_state["n"] = 0

    db = InMemoryDb()
    agent = agent_with(touch, db=db, session_id=SESSION, session_state={"n": 0})
    events = [event async for event in agent.arun("go", stream=True, stream_events=True)]
    assert not [event for event in events if isinstance(event, SessionStateChangedEvent)]
    row = await db.load_session(SESSION)
    assert row is not None
    assert row.revision == 0
    await agent.arun("go")
    again = await db.load_session(SESSION)
    assert again is not None
    assert again.version == row.version, "a commit without a change writes no state"
