"""A state of 1 MB: it works, and what takes long with it is done in a thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext
from kern._sync.offload import off_loop
from kern.db.sqlite import SqliteDb
from kern.runtime.session import live_sessions
from kern.state.shared_state import Author, Change, LiveState
from kern.testing import no_leaks
from tests.played import agent_with

LARGE = {"items": [{"number": number, "text": "x" * 80} for number in range(10_000)]}


def where_commits_are_made() -> list[threading.Thread]:
    """The threads of the commits that follow, of the one session that is in use."""
    threads: list[threading.Thread] = []

    def note(_: Change) -> None:
        threads.append(threading.current_thread())

    (session,) = live_sessions._sessions.values()
    session.state.subscribe(note, lambda text, revision: None)
    return threads


@pytest.mark.parametrize(("state", "on_loop"), [(LARGE, False), ({"items": []}, True)])
async def test_a_large_state_is_committed_in_a_thread(
    state: dict[str, Any], on_loop: bool, tmp_path: Path
) -> None:
    found: list[threading.Thread] = []

    async def edit(run_context: RunContext) -> str:
        nonlocal found
        found = where_commits_are_made()
        run_context.session_state["items"].append("call")
        return "edited"

    async def edit_in_block(run_context: RunContext) -> str:
        async with run_context.transaction() as inside:
            inside["items"].append("block")
        return "edited"

    db = SqliteDb(tmp_path / "a.db")
    agent = agent_with(edit, edit_in_block, db=db, session_id="s", session_state=state)
    output = await agent.arun("go")
    assert output.session_state is not None
    assert output.session_state["items"][-2:] == ["call", "block"]
    assert [thread is threading.current_thread() for thread in found] == [on_loop, on_loop]
    row = await db.load_session("s")
    assert row is not None
    assert len(row.state) > 1_000_000 or on_loop
    assert await Agent(db=db, session_id="s").aget_session_state() == output.session_state
    (entry,) = await agent.asession_state_history(path=f"/items/{len(state['items'])}")
    assert entry.new == "call"


async def test_what_is_done_in_a_thread_is_done_before_a_cancellation_is_raised() -> None:
    go_on, started = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    done: list[str] = []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(10)
        done.append("done")

    async with no_leaks():
        task = asyncio.create_task(off_loop(1_000_000, work))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["done"]


async def test_the_output_has_a_state_of_its_own() -> None:
    async def add(run_context: RunContext) -> str:
        state = run_context.session_state
        state["count"] += 1
        return str(len(state["items"]))

    agent = agent_with(add, session_id="s", session_state={"count": 0, **LARGE})
    for number in range(1, 4):
        output = await agent.arun("go")
        assert output.session_state == {"count": number, **LARGE}
        output.session_state["items"][0]["text"] = "spoilt"
        output.session_state["items"].pop()
        assert await agent.aget_session_state() == {"count": number, **LARGE}
    assert (await agent.aget_session_state(revision=1))["items"] == LARGE["items"]


def test_a_state_is_not_given_away_while_patches_refer_to_it() -> None:
    state = LiveState(b'{"items":[{"n":1}],"n":0}')
    state.commit({"items": [{"n": 1}, {"n": 2}], "n": 0}, Author(), state.text)
    assert state.take_tree() is None
    taken = state.snapshot()
    state.mark_stored(taken, taken.text, taken.revision)
    given = state.take_tree()
    assert given == {"items": [{"n": 1}, {"n": 2}], "n": 0}
    given["items"][0]["n"] = "spoilt"
    state.commit({"items": [{"n": 1}], "n": 0}, Author(), state.text)
    assert [change.patch for change in state.changes] == [
        [{"op": "remove", "path": "/items/1", "old": {"n": 2}}]
    ]
    assert state.text == b'{"items":[{"n":1}],"n":0}'
