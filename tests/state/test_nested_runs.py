"""Runs and accessors inside of tools: enclosed by a caller that has the state, by themselves otherwise."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.errors import UsageError
from kern.run import RunContext
from kern.runtime.session import live_sessions
from kern.state.call_state import CallState
from kern.testing import FunctionModel
from tests.played import agent_with, execution_of, team_of, tool_results, turns, until

SESSION = "one"


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    yield
    assert len(live_sessions) == 0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock is an error within the time of a test."""
    defaults = CallState.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", 5.0)


@pytest.fixture
def db() -> InMemoryDb:
    return InMemoryDb()


async def add(run_context: RunContext) -> None:
    value = run_context.session_state.get("count", 0)
    await asyncio.sleep(0)
    run_context.session_state["count"] = value + 1


def add_sync(run_context: RunContext) -> None:
    run_context.session_state["count"] = run_context.session_state.get("count", 0) + 1


async def fail(run_context: RunContext) -> None:
    run_context.session_state["failed"] = True
    raise ValueError("broken")


def sync_or_async(inner: Agent, kind: str, touch: bool, after: Callable[[RunContext], None]) -> Any:
    """A tool that runs `inner`."""

    def outer(run_context: RunContext) -> None:
        if touch:
            run_context.session_state["outer"] = "before"
        inner.run("go")
        after(run_context)

    async def outer_async(run_context: RunContext) -> None:
        if touch:
            run_context.session_state["outer"] = "before"
        await inner.arun("go")
        after(run_context)

    async def outer_streaming(run_context: RunContext) -> None:
        if touch:
            run_context.session_state["outer"] = "before"
        async with inner.arun("go", stream=True, stream_events=True) as stream:
            async for _ in stream:
                pass
        after(run_context)

    tool = {"sync": outer, "async": outer_async, "stream": outer_streaming}[kind]
    tool.__name__ = "outer"
    return tool


def raising(_: RunContext) -> None:
    raise ValueError("outer broken")


KINDS = pytest.mark.parametrize("kind", ["sync", "async", "stream"])


# The caller has touched the state: it encloses the nested run.


@KINDS
async def test_a_nested_run_works_on_the_copy_of_a_caller_that_has_touched_the_state(
    db: InMemoryDb, kind: str
) -> None:
    seen: list[Any] = []

    async def look(run_context: RunContext) -> None:
        seen.append(dict(run_context.session_state))
        seen.append(await outer.aget_session_state())
        run_context.session_state["inner"] = True

    inner = agent_with(look, add, add_sync, db=db, session_id=SESSION)

    def after(run_context: RunContext) -> None:
        assert run_context.session_state["inner"] is True
        run_context.session_state["outer"] = "after"

    outer = agent_with(sync_or_async(inner, kind, True, after), db=db, session_id=SESSION)
    output = await outer.arun("go")
    assert tool_results(output) == {"outer": ""}
    assert output.session_state == {"outer": "after", "inner": True, "count": 2}
    assert seen == [{"outer": "before"}, {}], "the caller's view, while readers see the last commit"


@KINDS
async def test_what_a_nested_run_has_done_is_undone_with_its_caller(db: InMemoryDb, kind: str) -> None:
    inner = agent_with(add, db=db, session_id=SESSION)
    outer = agent_with(sync_or_async(inner, kind, True, raising), db=db, session_id=SESSION)
    output = await outer.arun("go")
    assert "outer broken" in tool_results(output)["outer"]
    assert output.session_state == {}


@KINDS
async def test_a_call_of_a_nested_run_that_fails_is_undone_alone(db: InMemoryDb, kind: str) -> None:
    inner = agent_with(add, fail, db=db, session_id=SESSION)
    outer = agent_with(sync_or_async(inner, kind, True, lambda _: None), db=db, session_id=SESSION)
    output = await outer.arun("go")
    assert output.session_state == {"outer": "before", "count": 1}


@KINDS
@pytest.mark.parametrize("fails", [False, True])
async def test_the_rows_of_an_enclosed_run_are_written_with_the_outermost_run(
    db: InMemoryDb, kind: str, fails: bool
) -> None:
    early: list[int] = []
    inner = agent_with(add, name="Inner", db=db, session_id=SESSION)

    def after(run_context: RunContext) -> None:
        session = db._sessions.get(SESSION)
        early.append(len(session.runs) if session else 0)
        if fails:
            raise ValueError("broken")

    outer = agent_with(sync_or_async(inner, kind, True, after), name="Outer", db=db, session_id=SESSION)
    output = await outer.arun("go")
    rows = await db.load_runs(SESSION, top_level=False)
    assert early == [0]
    assert {row.runner_id: row.status for row in rows} == {"outer": "COMPLETED", "inner": "COMPLETED"}
    assert output.session_state == ({} if fails else {"outer": "before", "count": 1})


async def test_a_nested_team_takes_turns_on_its_caller_s_copy(db: InMemoryDb) -> None:
    members = [agent_with([add, add_sync][number % 2], name=f"m-{number}") for number in range(8)]
    team = team_of(members, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        run_context.session_state["count"] = 100
        await team.arun("go")
        run_context.session_state["seen"] = run_context.session_state["count"]

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert output.session_state == {"count": 108, "seen": 108}


async def test_runs_nest_in_nested_runs(db: InMemoryDb) -> None:
    innermost = agent_with(add, db=db, session_id=SESSION)

    def middle(run_context: RunContext) -> None:
        run_context.session_state["count"] += 10
        innermost.run("go")
        run_context.session_state["count"] += 10

    inner = agent_with(middle, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        run_context.session_state["count"] = 100
        await inner.arun("go")

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert output.session_state == {"count": 121}
    assert len(await db.load_runs(SESSION)) == 3


async def test_a_block_encloses_a_nested_run_too(db: InMemoryDb) -> None:
    inner = agent_with(add, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        async with run_context.transaction() as state:
            state["count"] = 10
            await inner.arun("go")
            assert state["count"] == 11
        with suppress(ValueError):
            async with run_context.transaction() as state:
                await inner.arun("go")
                assert state["count"] == 12
                raise ValueError("undone")
        assert run_context.session_state == {"count": 11}

    def outer_sync(run_context: RunContext) -> None:
        with run_context.transaction() as state:
            inner.run("go")
            state["sync"] = state["count"]

    output = await agent_with(outer, outer_sync, db=db, session_id=SESSION).arun("go")
    assert set(tool_results(output).values()) == {""}
    assert output.session_state == {"count": 12, "sync": 12} or output.session_state == {
        "count": 11,
        "sync": 1,
    }


async def test_a_nested_run_s_own_session_state_goes_into_the_caller_s_copy(db: InMemoryDb) -> None:
    inner = agent_with(add, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        run_context.session_state["count"] = 1
        output = await inner.arun("go", session_state={"given": {"a": 1}, "count": 5})
        assert output.session_state == {"count": 6, "given": {"a": 1}}

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert output.session_state == {"count": 6, "given": {"a": 1}}


async def test_what_the_caller_edits_beside_a_nested_run_is_not_lost(db: InMemoryDb) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(run_context: RunContext) -> None:
        run_context.session_state["inner"] = True
        inside.set()
        await go_on.wait()

    inner = agent_with(slow, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        state = run_context.session_state
        nested = asyncio.create_task(inner.arun("go"))
        await inside.wait()
        state["beside"] = True
        go_on.set()
        await nested

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert output.session_state == {"inner": True, "beside": True}


async def test_objects_that_the_caller_keeps_stay_parts_of_its_state(db: InMemoryDb) -> None:
    async def append(run_context: RunContext) -> None:
        run_context.session_state["items"].append("inner")

    inner = agent_with(append, db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        items = run_context.session_state["items"]
        await inner.arun("go")
        items.append("outer")

    output = await agent_with(outer, db=db, session_id=SESSION, session_state={"items": []}).arun("go")
    assert output.session_state == {"items": ["inner", "outer"]}


async def test_a_caller_that_is_cancelled_takes_its_nested_run_with_it(db: InMemoryDb) -> None:
    started = asyncio.Event()

    async def stuck(run_context: RunContext) -> None:
        run_context.session_state["never"] = True
        started.set()
        await asyncio.Event().wait()

    inner = agent_with(stuck, name="Inner", db=db, session_id=SESSION)

    async def outer(run_context: RunContext) -> None:
        run_context.session_state["never either"] = True
        await inner.arun("go")

    agent = agent_with(outer, name="Outer", db=db, session_id=SESSION)
    run = asyncio.create_task(agent.arun("go"))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await agent.aget_session_state() == {}
    rows = await db.load_runs(SESSION, top_level=False)
    assert {row.runner_id: row.status for row in rows} == {"outer": "CANCELLED", "inner": "CANCELLED"}


async def test_a_sync_caller_that_is_cancelled_takes_its_nested_run_with_it(db: InMemoryDb) -> None:
    cancelled: list[str] = []
    started: list[bool] = []

    async def stuck(run_context: RunContext) -> None:
        run_context.session_state["never"] = True
        started.append(True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("inner")
            raise

    inner = agent_with(stuck, db=db, session_id=SESSION)

    def outer(run_context: RunContext) -> None:
        run_context.session_state["never either"] = True
        inner.run("go")

    agent = agent_with(outer, db=db, session_id=SESSION)
    run = asyncio.create_task(agent.arun("go"))
    await until(lambda: bool(started))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until(lambda: bool(cancelled) and not len(live_sessions))
    assert await agent.aget_session_state() == {}


# The caller has not touched the state: it encloses nothing.


@KINDS
async def test_a_nested_run_of_an_untouched_caller_is_a_run_by_itself(db: InMemoryDb, kind: str) -> None:
    inner = agent_with(add, add_sync, db=db, session_id=SESSION)
    outer = agent_with(sync_or_async(inner, kind, False, raising), db=db, session_id=SESSION)
    output = await outer.arun("go")
    assert "outer broken" in tool_results(output)["outer"]
    assert output.session_state == {"count": 2}, "what it has done stays when the caller fails"


@KINDS
async def test_an_untouched_caller_may_touch_the_state_after_its_nested_run(
    db: InMemoryDb, kind: str
) -> None:
    inner = agent_with(add, db=db, session_id=SESSION)

    def after(run_context: RunContext) -> None:
        run_context.session_state["count"] += 10

    tool = sync_or_async(inner, kind, False, after)
    output = await agent_with(tool, add, add_sync, tool, db=db, session_id=SESSION).arun("go")
    assert [execution.result for execution in output.tools] == ["", "", "", ""]
    assert output.session_state == {"count": 24}


async def test_a_nested_run_on_another_session_is_a_run_by_itself(db: InMemoryDb) -> None:
    inner = agent_with(add, db=db, session_id="other")

    async def outer(run_context: RunContext) -> None:
        run_context.session_state["mine"] = True
        await inner.arun("go")
        raise ValueError("broken")

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert output.session_state == {}
    assert await inner.aget_session_state() == {"count": 1}


# Accessors inside of tools.


async def test_update_session_state_inside_a_tool_is_part_of_its_transaction(db: InMemoryDb) -> None:
    agent = Agent(model=FunctionModel(lambda _: "unused"), db=db, session_id=SESSION)

    async def update(run_context: RunContext) -> None:
        assert await agent.aupdate_session_state({"a": 1}) == {"a": 1}
        assert run_context.session_state == {"a": 1}
        assert await agent.aget_session_state() == {}, "not committed yet"
        raise ValueError("broken")

    def update_sync(run_context: RunContext) -> None:
        assert agent.update_session_state({"b": 1}) == {"b": 1}
        assert run_context.session_state == {"b": 1}

    output = await agent_with(update, update_sync, db=db, session_id=SESSION).arun("go")
    assert "ValueError: broken" in tool_results(output)["update"]
    assert execution_of(output, "update_sync").result == ""
    assert output.session_state == {"b": 1}


async def test_two_tools_that_update_another_session_do_not_wait_for_each_other(db: InMemoryDb) -> None:
    other = Agent(model=FunctionModel(lambda _: "unused"), db=db, session_id="other")
    waiting = asyncio.Event()

    async def untouched(run_context: RunContext) -> None:
        waiting.set()
        for number in range(5):
            await other.aupdate_session_state({"untouched": number})

    async def touched(run_context: RunContext) -> None:
        await waiting.wait()
        run_context.session_state["touched"] = True
        for number in range(5):
            await other.aupdate_session_state({"touched": number})

    output = await agent_with(untouched, touched, db=db, session_id=SESSION).arun("go")
    assert tool_results(output) == {"untouched": "", "touched": ""}
    assert await other.aget_session_state() == {"untouched": 4, "touched": 4}


async def test_a_tool_may_read_the_state_while_it_cleans_up_after_a_cancellation(db: InMemoryDb) -> None:
    started = asyncio.Event()
    read: list[Any] = []

    async def careful(run_context: RunContext) -> None:
        run_context.session_state["never"] = True
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            read.append(await agent.aget_session_state())

    agent = agent_with(careful, db=db, session_id=SESSION, session_state={"n": 0})

    async def walk_away() -> None:
        async for _ in agent.arun("go", stream=True, stream_events=True):
            if started.is_set():
                break
            await turns(3)

    await walk_away()
    assert await agent.aget_session_state() == {"n": 0}
    assert read == [{"n": 0}]


async def test_a_nested_run_in_a_child_task_of_an_untouched_call_does_not_lend_it_the_state(
    db: InMemoryDb,
) -> None:
    async def outer(run_context: RunContext) -> str:
        async def reach_out(run_context_of_inner: RunContext) -> None:
            run_context_of_inner.session_state["inner"] = True
            with pytest.raises(UsageError):
                run_context.session_state["never"] = True

        inner = agent_with(reach_out, db=db, session_id=SESSION)
        output = await inner.arun("go")
        return tool_results(output)["reach_out"]

    output = await agent_with(outer, db=db, session_id=SESSION).arun("go")
    assert tool_results(output) == {"outer": ""}
    assert output.session_state == {"inner": True}


# What a thread does whose call was given up.


async def test_a_run_that_a_given_up_thread_starts_does_nothing(db: InMemoryDb) -> None:
    inside, go_on = asyncio.Event(), threading.Event()
    loop, errors = asyncio.get_running_loop(), list[BaseException]()
    inner = agent_with(add_sync, db=db, session_id=SESSION)

    def outer(run_context: RunContext) -> None:
        loop.call_soon_threadsafe(inside.set)
        go_on.wait(5)
        try:
            inner.run("go")
        except BaseException as error:
            errors.append(error)

    task = asyncio.create_task(agent_with(outer, db=db, session_id=SESSION).arun("go"))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await until(lambda: bool(errors))
    assert isinstance(errors[0], concurrent.futures.CancelledError)
    await until(lambda: not len(live_sessions))
    row = await db.load_session(SESSION)
    assert row is not None
    assert row.state == b"{}"


async def test_a_cancelled_run_waits_for_the_end_of_a_run_in_its_tool_s_thread(db: InMemoryDb) -> None:
    inside, loop = asyncio.Event(), asyncio.get_running_loop()

    async def tidy(run_context: RunContext) -> None:
        loop.call_soon_threadsafe(inside.set)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            async with run_context.transaction() as state:
                state["tidied"] = True

    inner = agent_with(tidy, db=db, session_id=SESSION)

    def outer(run_context: RunContext) -> None:
        inner.run("go")

    task = asyncio.create_task(agent_with(outer, db=db, session_id=SESSION).arun("go"))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = await db.load_session(SESSION)
    assert row is not None
    assert row.state == b'{"tidied":true}'
    assert [run.status for run in await db.load_runs(SESSION)] == ["CANCELLED", "CANCELLED"]
