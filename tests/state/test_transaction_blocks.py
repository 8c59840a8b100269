"""`run_context.transaction()`, a transaction by itself or a savepoint, and `run_context.snapshot()`."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from kern.errors import InvalidStateError, RetryAgentRun, StopAgentRun, UsageError
from kern.run import RunContext
from kern.runtime.session import live_sessions
from tests.played import agent_with, tool_results, turns

HANG = 20.0


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    yield
    assert len(live_sessions) == 0


async def state_after(*tools: Any, state: dict[str, Any] | None = None) -> dict[str, Any]:
    output = await agent_with(*tools, session_state=state or {}).arun("go")
    errors = [execution.result for execution in output.tools if execution.tool_call_error]
    assert errors == []
    assert output.session_state is not None
    return output.session_state


# In a call that has not touched the state: it takes, commits and lets go.


async def test_a_block_of_an_async_call_commits_and_lets_go() -> None:
    committed, others_done = asyncio.Event(), asyncio.Event()

    async def first(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["first"] = 1
            await turns()
            assert run_context.session_state is state
        committed.set()
        await others_done.wait()  # hangs if the state is still held

    async def second(run_context: RunContext) -> None:
        await committed.wait()
        assert run_context.session_state == {"first": 1}
        run_context.session_state["second"] = 2
        others_done.set()

    assert await state_after(first, second) == {"first": 1, "second": 2}


async def test_a_block_of_a_sync_call_commits_and_lets_go() -> None:
    committed, others_done = threading.Event(), threading.Event()

    def first(run_context: RunContext) -> None:
        with run_context.transaction() as state:
            state["first"] = 1
        committed.set()
        assert others_done.wait(HANG)

    def second(run_context: RunContext) -> None:
        assert committed.wait(HANG)
        assert run_context.session_state == {"first": 1}
        run_context.session_state["second"] = 2
        others_done.set()

    assert await state_after(first, second) == {"first": 1, "second": 2}


async def test_no_other_call_runs_inside_a_block() -> None:
    log: list[str] = []

    async def block(run_context: RunContext) -> None:
        for _ in range(3):
            async with run_context.transaction() as state:
                log.append("in")
                state["n"] += 1
                await turns(5)
                log.append("out")
            await asyncio.sleep(0)

    assert await state_after(*[block] * 4, state={"n": 0}) == {"n": 12}
    assert log == ["in", "out"] * 12


async def test_an_error_inside_undoes_the_block_and_the_call_may_go_on() -> None:
    async def fail(run_context: RunContext) -> None:
        with suppress(ValueError):
            async with run_context.transaction() as state:
                state["never"] = True
                raise ValueError("broken")
        run_context.session_state["after"] = True

    def fail_sync(run_context: RunContext) -> None:
        with suppress(ValueError), run_context.transaction() as state:
            state["never"] = True
            raise ValueError("broken")
        run_context.session_state["after_sync"] = True

    assert await state_after(fail, fail_sync) == {"after": True, "after_sync": True}


@pytest.mark.parametrize("signal", [RetryAgentRun, StopAgentRun])
async def test_a_signal_to_the_model_commits_the_block(signal: Any) -> None:
    async def steer(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["steered"] = True
            raise signal("otherwise")

    def steer_sync(run_context: RunContext) -> None:
        with run_context.transaction() as state:
            state["steered_sync"] = True
            raise signal("otherwise")

    output = await agent_with(steer, steer_sync).arun("go")
    assert output.session_state == {"steered": True, "steered_sync": True}


async def test_what_a_block_has_committed_stays_when_its_call_fails() -> None:
    async def fail(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["block"] = True
        raise ValueError("broken")

    output = await agent_with(fail).arun("go")
    assert output.session_state == {"block": True}
    assert "broken" in tool_results(output)["fail"]


async def test_a_block_whose_state_is_not_json_raises_at_its_end_and_lets_go() -> None:
    async def write(run_context: RunContext) -> None:
        with pytest.raises(InvalidStateError, match="/x"):
            async with run_context.transaction() as state:
                state["x"] = {1}
        async with run_context.transaction() as state:
            state["after"] = True

    assert await state_after(write) == {"after": True}


async def test_an_assignment_inside_a_block_is_the_block_s() -> None:
    async def assign(run_context: RunContext) -> None:
        async with run_context.transaction():
            run_context.session_state = {"fresh": 1}
            assert run_context.snapshot() == {"fresh": 1}

    assert await state_after(assign, state={"old": 1}) == {"fresh": 1}


async def test_child_tasks_have_blocks_of_their_own() -> None:
    async def spawn(run_context: RunContext) -> None:
        async def child() -> None:
            async with run_context.transaction() as state:
                value = state["n"]
                await asyncio.sleep(0)
                state["n"] = value + 1

        await asyncio.gather(*(child() for _ in range(5)))

    assert await state_after(spawn, spawn, state={"n": 0}) == {"n": 10}


async def test_child_threads_have_blocks_of_their_own() -> None:
    def add(run_context: RunContext) -> None:
        with run_context.transaction() as state:
            state["n"] += 1

    async def spawn(run_context: RunContext) -> None:
        await asyncio.gather(*(asyncio.to_thread(add, run_context) for _ in range(5)))

    def spawn_sync(run_context: RunContext) -> None:
        children = [threading.Thread(target=add, args=(run_context,)) for _ in range(5)]
        for child in children:
            child.start()
        for child in children:
            child.join(HANG)

    assert await state_after(spawn, spawn_sync, state={"n": 0}) == {"n": 10}


async def test_a_child_task_inside_a_block_works_on_the_block_s_copy() -> None:
    async def spawn(run_context: RunContext) -> None:
        async with run_context.transaction() as state:

            async def child() -> None:
                assert run_context.session_state is state
                async with run_context.transaction():
                    state["n"] += 1

            await asyncio.gather(child(), child())

    assert await state_after(spawn, state={"n": 0}) == {"n": 2}


async def test_a_child_task_s_open_block_is_dropped_when_its_call_is_cancelled() -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()
    children: list[asyncio.Task[None]] = []

    async def leave(run_context: RunContext) -> None:
        async def child() -> None:
            async with run_context.transaction() as state:
                state["never"] = True
                inside.set()
                await go_on.wait()

        children.append(asyncio.create_task(child()))
        await asyncio.Event().wait()

    agent = agent_with(leave)
    run = asyncio.create_task(agent.arun("go"))
    await inside.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await agent.aupdate_session_state({"free": True}) == {"free": True}
    go_on.set()
    with pytest.raises(UsageError, match="has ended"):
        await children[0]
    assert await agent.aget_session_state() == {"free": True}


async def test_a_sync_block_in_an_async_function_is_refused() -> None:
    async def wrong(run_context: RunContext) -> None:
        async def child() -> None:
            with pytest.raises(UsageError, match="async with"), run_context.transaction():
                pass

        await asyncio.create_task(child())

    assert await state_after(wrong) == {}


async def test_a_call_cancelled_inside_a_block_leaves_nothing_of_it() -> None:
    inside = asyncio.Event()

    async def block(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["first"] = True
        async with run_context.transaction() as state:
            state["never"] = True
            inside.set()
            await asyncio.Event().wait()

    agent = agent_with(block)
    run = asyncio.create_task(agent.arun("go"))
    await inside.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await agent.aget_session_state() == {"first": True}


# In a call that has touched it: a savepoint.


async def test_in_a_touched_call_an_error_undoes_the_block_only() -> None:
    async def work(run_context: RunContext) -> None:
        state = run_context.session_state
        state["before"] = 1
        with suppress(ValueError):
            async with run_context.transaction() as inner:
                assert inner is state
                inner["never"] = True
                inner["items"].append("never")
                del inner["gone"]
                raise ValueError("broken")
        assert run_context.session_state is state
        state["after"] = 1

    def work_sync(run_context: RunContext) -> None:
        state = run_context.session_state
        with suppress(ValueError), run_context.transaction():
            state.clear()
            raise ValueError("broken")
        state["sync"] = 1

    state = await state_after(work, work_sync, state={"items": ["milk"], "gone": 1})
    assert state == {"items": ["milk"], "gone": 1, "before": 1, "after": 1, "sync": 1}


async def test_a_savepoint_commits_nothing_before_its_call_does() -> None:
    async def work(run_context: RunContext) -> None:
        run_context.session_state["n"] = 1
        async with run_context.transaction() as state:
            state["n"] = 2
        raise ValueError("broken")

    output = await agent_with(work, session_state={"n": 0}).arun("go")
    assert output.session_state == {"n": 0}


async def test_savepoints_nest() -> None:
    async def work(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["log"].append("outer")
            with suppress(ValueError):
                async with run_context.transaction():
                    state["log"].append("inner")
                    async with run_context.transaction():
                        state["log"].append("innermost")
                    raise ValueError("inner")
            state["log"].append("outer again")

    assert await state_after(work, state={"log": []}) == {"log": ["outer", "outer again"]}


async def test_references_that_the_call_keeps_survive_a_savepoint_s_undoing() -> None:
    def work(run_context: RunContext) -> None:
        state = run_context.session_state
        items, first = state["items"], state["items"][0]
        with suppress(ValueError), run_context.transaction():
            items.append({"name": "never"})
            items.pop(0)
            first["name"] = "never"
            raise ValueError("broken")
        items.append({"name": "bread"})
        first["name"] += "!"

    state = await state_after(work, state={"items": [{"name": "milk"}, {"name": "eggs"}]})
    assert state == {"items": [{"name": "milk!"}, {"name": "eggs"}, {"name": "bread"}]}


async def test_an_assignment_is_undone_by_a_savepoint_too() -> None:
    def work(run_context: RunContext) -> None:
        state = run_context.session_state
        with suppress(ValueError), run_context.transaction():
            run_context.session_state = {"never": True}
            raise ValueError("broken")
        assert run_context.session_state is state
        state["after"] = True

    assert await state_after(work, state={"n": 1}) == {"n": 1, "after": True}


# Snapshots.


async def test_a_snapshot_waits_for_nobody_and_holds_nothing() -> None:
    holding, seen = threading.Event(), threading.Event()
    snapshots: list[Any] = []

    def holder(run_context: RunContext) -> None:
        run_context.session_state["n"] = 1
        holding.set()
        assert seen.wait(HANG)

    def reader(run_context: RunContext) -> None:
        assert holding.wait(HANG)
        snapshots.append(run_context.snapshot())
        snapshots[0]["n"] = "edited"
        seen.set()

    assert await state_after(holder, reader, state={"n": 0}) == {"n": 1}
    assert snapshots == [{"n": "edited"}]


async def test_a_snapshot_shows_the_last_commit_until_the_call_has_touched_the_state() -> None:
    async def work(run_context: RunContext) -> None:
        assert run_context.snapshot() == {"items": []}
        state = run_context.session_state
        state["items"].append("milk")
        copy = run_context.snapshot()
        copy["items"].append("never")
        assert run_context.snapshot() == {"items": ["milk"]}

    assert await state_after(work, state={"items": []}) == {"items": ["milk"]}


async def test_a_snapshot_inside_a_block_shows_the_block_s_view() -> None:
    async def work(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["n"] = 1
            assert run_context.snapshot() == {"n": 1}
        assert run_context.snapshot() == {"n": 1}

    assert await state_after(work, state={"n": 0}) == {"n": 1}
