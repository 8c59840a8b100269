"""The rule: from its first touch of `session_state` until it returns, a call has the state to itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.sqlite import SqliteDb
from kern.errors import RetryAgentRun, StopAgentRun, UsageError
from kern.run import RunContext
from kern.run.output import RunOutput
from kern.runner.compile import database_of
from kern.runtime.session import live_sessions
from kern.state.call_state import CallState
from kern.tools.function import Function
from tests.played import agent_with, execution_of, team_of, tool_results, turns, until

HANG = 20.0
"""Seconds after which a thread gives up waiting, so that a lost wake-up fails and does not hang."""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert len(live_sessions) == 0


async def bump_async(run_context: RunContext) -> None:
    value = run_context.session_state["count"]
    await asyncio.sleep(0.001)
    run_context.session_state["count"] = value + 1


def bump_sync(run_context: RunContext) -> None:
    value = run_context.session_state["count"]
    time.sleep(0.001)
    run_context.session_state["count"] = value + 1


async def run_once(*tools: Any, state: dict[str, Any] | None = None) -> RunOutput:
    return await agent_with(*tools, session_state=state or {}).arun("go")


def state_of(output: RunOutput) -> dict[str, Any]:
    assert output.session_state is not None
    return output.session_state


# Exclusive from the first touch.


@pytest.mark.parametrize(
    "kinds",
    [[bump_async] * 8, [bump_sync] * 8, [bump_async, bump_sync] * 4],
    ids=["async", "sync", "mixed"],
)
async def test_eight_parallel_members_that_each_add_one_make_eight(kinds: list[Any]) -> None:
    members = [agent_with(kind, name=f"member-{number}") for number, kind in enumerate(kinds)]
    output = await team_of(members, session_state={"count": 0}).arun("count")
    assert output.session_state == {"count": 8}
    assert [member.status.value for member in output.member_responses] == ["COMPLETED"] * 8


@pytest.mark.parametrize(
    "kinds", [[bump_async] * 8, [bump_sync] * 8, [bump_async, bump_sync] * 4], ids=["async", "sync", "mixed"]
)
async def test_eight_parallel_calls_of_one_agent_that_each_add_one_make_eight(kinds: list[Any]) -> None:
    assert state_of(await run_once(*kinds, state={"count": 0})) == {"count": 8}


async def test_no_other_call_runs_between_a_touch_and_the_return() -> None:
    log: list[tuple[str, int]] = []
    numbers = itertools.count()

    async def slow_async(run_context: RunContext) -> None:
        number = next(numbers)
        run_context.session_state["last"] = number
        log.append(("in", number))
        for _ in range(5):
            await asyncio.sleep(0)
        log.append(("out", number))

    def slow_sync(run_context: RunContext) -> None:
        number = next(numbers)
        run_context.session_state["last"] = number
        log.append(("in", number))
        time.sleep(0.002)
        log.append(("out", number))

    await run_once(*[slow_async, slow_sync] * 6)
    assert len(log) == 24
    pairs = list(zip(log[::2], log[1::2], strict=True))
    assert all(first == ("in", second[1]) and second[0] == "out" for first, second in pairs)


async def test_io_before_the_first_touch_runs_in_parallel_on_the_loop() -> None:
    together = asyncio.Barrier(4)

    async def meet(run_context: RunContext) -> None:
        await together.wait()  # passes only if all four are here at once
        run_context.session_state["met"] = run_context.session_state.get("met", 0) + 1

    assert state_of(await run_once(*[meet] * 4)) == {"met": 4}


async def test_io_before_the_first_touch_runs_in_parallel_in_threads() -> None:
    together = threading.Barrier(4)

    def meet(run_context: RunContext) -> None:
        together.wait(HANG)
        run_context.session_state["met"] = run_context.session_state.get("met", 0) + 1

    assert state_of(await run_once(*[meet] * 4)) == {"met": 4}


async def test_forty_sync_tools_that_wait_for_the_state_do_not_starve_the_one_that_has_it() -> None:
    assert state_of(await run_once(*[bump_sync] * 40, state={"count": 0})) == {"count": 40}


async def test_tools_without_a_run_context_never_wait_for_the_state() -> None:
    held, passed = asyncio.Event(), asyncio.Event()

    async def holder(run_context: RunContext) -> None:
        run_context.session_state["held"] = True
        held.set()
        await passed.wait()

    async def bystander() -> None:
        await held.wait()
        await asyncio.sleep(0)
        passed.set()

    assert state_of(await run_once(holder, bystander)) == {"held": True}


async def test_only_calls_that_may_touch_the_state_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kern.state.turn_order.GRACE", HANG)
    touched = threading.Event()

    def bystander() -> None:
        assert touched.wait(HANG / 2)

    def touch(run_context: RunContext) -> None:
        run_context.session_state["touched"] = True
        touched.set()

    assert state_of(await run_once(bystander, touch, bump_sync, state={"count": 0})) == {
        "count": 1,
        "touched": True,
    }


async def test_a_call_that_ended_before_a_pause_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    again, third = (
        Function(bump_sync, name="again", requires_confirmation=True),
        Function(bump_sync, name="third"),
    )
    agent = agent_with(
        bump_sync, again, third.replace(requires_confirmation=True), session_state={"count": 0}
    )
    paused = await agent.arun("go")
    for requirement in paused.requirements:
        requirement.confirm()
    monkeypatch.setattr("kern.state.turn_order.GRACE", HANG)
    started = time.monotonic()
    assert state_of(await agent.acontinue_run(paused)) == {"count": 3}
    assert time.monotonic() - started < HANG / 2


async def test_readers_see_the_last_commit_and_never_half_an_edit() -> None:
    edited, seen = asyncio.Event(), asyncio.Event()

    async def edit(run_context: RunContext) -> None:
        run_context.session_state["a"] = 1
        edited.set()
        await seen.wait()
        run_context.session_state["b"] = 1

    agent = agent_with(edit, session_state={"a": 0, "b": 0})
    run = asyncio.create_task(agent.arun("go"))
    await edited.wait()
    assert await agent.aget_session_state() == {"a": 0, "b": 0}
    seen.set()
    await run
    assert await agent.aget_session_state() == {"a": 1, "b": 1}


# What undoes a call, and what does not.


def failing_sync(run_context: RunContext) -> None:
    run_context.session_state["kept"].append("never")
    raise ValueError("broken")


async def failing_async(run_context: RunContext) -> None:
    run_context.session_state["kept"].append("never")
    await asyncio.sleep(0)
    raise ValueError("broken")


def failing_generator(run_context: RunContext) -> Iterator[str]:
    run_context.session_state["kept"].append("never")
    yield "half"
    raise ValueError("broken")


async def failing_async_generator(run_context: RunContext) -> AsyncIterator[str]:
    run_context.session_state["kept"].append("never")
    yield "half"
    raise ValueError("broken")


@pytest.mark.parametrize("tool", [failing_sync, failing_async, failing_generator, failing_async_generator])
async def test_a_call_that_raises_leaves_the_state_as_it_found_it(tool: Any) -> None:
    output = await run_once(tool, state={"kept": []})
    assert output.session_state == {"kept": []}
    execution = execution_of(output, tool.__name__)
    assert execution.tool_call_error
    assert "broken" in (execution.result or "")
    assert output.status.value == "COMPLETED"


async def stuck_async(run_context: RunContext) -> None:
    run_context.session_state["kept"].append("never")
    await asyncio.Event().wait()


def stuck_sync(run_context: RunContext) -> None:
    run_context.session_state["kept"].append("never")
    released.wait(HANG)


async def stuck_async_generator(run_context: RunContext) -> AsyncIterator[str]:
    run_context.session_state["kept"].append("never")
    yield "half"
    await asyncio.Event().wait()


released = threading.Event()


@pytest.fixture
def release() -> Iterator[None]:
    released.clear()
    yield
    released.set()


@pytest.mark.parametrize("tool", [stuck_async, stuck_sync, stuck_async_generator])
@pytest.mark.usefixtures("release")
async def test_a_call_that_times_out_leaves_the_state_as_it_found_it(tool: Any) -> None:
    output = await run_once(Function(tool, timeout=0.05), state={"kept": []})
    assert output.session_state == {"kept": []}
    assert "took longer" in tool_results(output)[tool.__name__]


@pytest.mark.parametrize("tool", [stuck_async, stuck_sync, stuck_async_generator])
@pytest.mark.usefixtures("release")
async def test_a_call_that_is_cancelled_leaves_the_state_as_it_found_it(tool: Any) -> None:
    agent = agent_with(tool, session_state={"kept": []})
    run = asyncio.create_task(agent.arun("go"))
    await until(lambda: _holder() is not None)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await agent.aget_session_state() == {"kept": []}


def _holder() -> str | None:
    """Who has the state of the one session that is live."""
    for session in list(live_sessions._sessions.values()):
        if hasattr(session, "state") and session.state.lock.held:
            return session.state.holder
    return None


@pytest.mark.parametrize("signal", [RetryAgentRun, StopAgentRun])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_exceptions_that_steer_the_model_commit(signal: Any, kind: str) -> None:
    def steer(run_context: RunContext) -> None:
        run_context.session_state["steered"] = True
        raise signal("do it otherwise")

    async def steer_async(run_context: RunContext) -> None:
        run_context.session_state["steered"] = True
        await asyncio.sleep(0)
        raise signal("do it otherwise")

    tool = steer if kind == "sync" else steer_async
    output = await run_once(tool)
    assert output.session_state == {"steered": True}
    assert tool_results(output)[tool.__name__] == "do it otherwise"
    if signal is StopAgentRun:
        assert output.content == "do it otherwise"


# JSON.


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2, 3}]}, "/x/a/1"),
        ([float("nan")], "/x/0"),
        ({"b": {1: "int key"}}, "/x/b"),
        (b"bytes", "/x"),
        (object(), "/x"),
        (float("inf"), "/x"),
    ],
    ids=["set", "nan", "int-key", "bytes", "object", "inf"],
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_is_not_json_is_refused_with_its_path(value: Any, path: str, kind: str) -> None:
    def write(run_context: RunContext) -> None:
        run_context.session_state["before"] = 2
        run_context.session_state["x"] = value

    async def write_async(run_context: RunContext) -> None:
        write(run_context)

    tool = write if kind == "sync" else write_async
    agent = agent_with(tool, session_state={"before": 1})
    output = await agent.arun("go")
    execution = execution_of(output, tool.__name__)
    assert execution.tool_call_error
    assert f"session_state{path}" in (execution.result or "")
    assert output.session_state == {"before": 1}
    assert await agent.aupdate_session_state({"next": 1}) == {"before": 1, "next": 1}


async def test_a_tuple_becomes_a_list() -> None:
    def write(run_context: RunContext) -> None:
        run_context.session_state["point"] = (1, (2, 3))

    assert state_of(await run_once(write)) == {"point": [1, [2, 3]]}


# Assignment, and objects that are kept.


async def test_the_assigned_dict_becomes_the_call_s_state() -> None:
    async def assign(run_context: RunContext) -> None:
        fresh = {"fresh": 1}
        run_context.session_state = fresh
        assert run_context.session_state is fresh
        fresh["later"] = 2
        await asyncio.sleep(0)

    assert state_of(await run_once(assign, state={"old": 1})) == {"fresh": 1, "later": 2}


@pytest.mark.parametrize("value", [None, [], "text", 5], ids=repr)
async def test_only_a_dict_can_be_assigned(value: Any) -> None:
    def assign(run_context: RunContext) -> None:
        with pytest.raises(TypeError, match="session_state must be a dict"):
            run_context.session_state = value
        run_context.session_state["after"] = True

    assert state_of(await run_once(assign, state={"old": 1})) == {"old": 1, "after": True}


async def test_an_assignment_is_a_touch() -> None:
    def assign(run_context: RunContext) -> None:
        run_context.session_state = {"count": run_context.snapshot()["count"]}
        time.sleep(0.001)
        run_context.session_state["count"] += 1

    # The snapshot comes before the touch, so of two parallel calls one may be lost; alone, none is.
    assert state_of(await run_once(assign, state={"count": 4})) == {"count": 5}

    held: list[str] = []

    async def assign_and_wait(run_context: RunContext) -> None:
        run_context.session_state = {"by": "assign"}
        await turns()
        held.append("assign")

    async def touch(run_context: RunContext) -> None:
        run_context.session_state["touched"] = True
        held.append("touch")

    assert state_of(await run_once(assign_and_wait, touch)) == {"by": "assign", "touched": True}
    assert held == ["assign", "touch"]


async def test_objects_kept_from_an_earlier_call_are_dead_copies() -> None:
    kept: list[Any] = []

    def keep(run_context: RunContext) -> None:
        run_context.session_state["items"].append("milk")
        kept.append(run_context.session_state)

    given: dict[str, Any] = {"items": []}
    agent = agent_with(keep, session_state=given)
    output = await agent.arun("go")
    kept[0]["items"].append("never")
    state_of(output)["items"].append("never either")
    (await agent.aget_session_state())["items"].append("nor this")
    assert await agent.aget_session_state() == {"items": ["milk"]}
    assert given == {"items": []}


@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_touch_after_the_return_is_an_error(kind: str, touched: bool) -> None:
    kept: list[RunContext] = []

    def keep(run_context: RunContext) -> None:
        if touched:
            run_context.session_state["n"] = 1
        kept.append(run_context)

    async def keep_async(run_context: RunContext) -> None:
        keep(run_context)

    await run_once(keep if kind == "sync" else keep_async)
    with pytest.raises(UsageError, match="has ended"):
        kept[0].session_state["n"] = 2
    with pytest.raises(UsageError, match="has ended"):
        kept[0].session_state = {}
    with pytest.raises(UsageError, match="has ended"):
        async with kept[0].transaction():
            pass


# Child tasks and threads.


async def test_the_first_touch_from_a_child_task_is_refused() -> None:
    async def spawn(run_context: RunContext) -> str:
        async def child() -> None:
            run_context.session_state["n"] = 1

        with pytest.raises(UsageError, match="a task or thread that the function started"):
            await asyncio.create_task(child())
        return "refused"

    output = await run_once(spawn)
    assert tool_results(output) == {"spawn": "refused"}
    assert output.session_state == {}


async def test_the_first_touch_from_a_child_thread_is_refused() -> None:
    def touch(run_context: RunContext, refused: list[str]) -> None:
        try:
            run_context.session_state["n"] = 1
        except UsageError as error:
            refused.append(str(error))

    async def spawn_async(run_context: RunContext) -> str:
        refused: list[str] = []
        await asyncio.to_thread(touch, run_context, refused)
        return refused[0]

    def spawn_sync(run_context: RunContext) -> str:
        refused: list[str] = []
        thread = threading.Thread(target=touch, args=(run_context, refused))
        thread.start()
        thread.join(HANG)
        return refused[0]

    output = await run_once(spawn_async, spawn_sync)
    assert all(
        "a task or thread that the function started" in result for result in tool_results(output).values()
    )
    assert output.session_state == {}


async def test_after_the_touch_child_tasks_and_threads_share_the_call_s_copy() -> None:
    async def spawn(run_context: RunContext) -> None:
        state = run_context.session_state

        async def child(number: int) -> None:
            await asyncio.sleep(0)
            assert run_context.session_state is state
            run_context.session_state[f"task-{number}"] = number

        def in_thread() -> None:
            run_context.session_state["thread"] = True

        await asyncio.gather(child(0), child(1), asyncio.to_thread(in_thread))

    def spawn_sync(run_context: RunContext) -> None:
        state = run_context.session_state

        def in_thread() -> None:
            assert run_context.session_state is state
            state["thread-of-sync"] = True

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join(HANG)

    state = state_of(await run_once(spawn, spawn_sync))
    assert state == {"task-0": 0, "task-1": 1, "thread": True, "thread-of-sync": True}


# Generators.


def pieces(run_context: RunContext, log: list[str], name: str) -> Iterator[str]:
    yield "before "
    run_context.session_state["count"] += 1
    log.append(f"{name} in")
    yield "between "
    log.append(f"{name} out")
    yield "after"


async def test_a_generator_tool_has_the_state_from_its_touch_until_it_is_exhausted() -> None:
    log: list[str] = []

    def sync_one(run_context: RunContext) -> Iterator[str]:
        for piece in pieces(run_context, log, "sync"):
            time.sleep(0.001)
            yield piece

    async def async_one(run_context: RunContext) -> AsyncIterator[str]:
        for piece in pieces(run_context, log, "async"):
            await asyncio.sleep(0)
            yield piece

    output = await run_once(sync_one, async_one, sync_one, async_one, state={"count": 0})
    assert output.session_state == {"count": 4}
    assert {execution.result for execution in output.tools} == {"before between after"}
    assert len(log) == 8
    assert all(log[at].removesuffix("in") == log[at + 1].removesuffix("out") for at in range(0, 8, 2))


# Waiting is bounded, and a cancellation ends it.


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = CallState.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", 0.05)


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("kind", ["sync", "async", "block"])
async def test_a_wait_that_takes_too_long_names_the_waiter_and_the_holder(kind: str) -> None:
    over = asyncio.Event()

    async def hog(run_context: RunContext) -> None:
        run_context.session_state["hog"] = True
        await over.wait()

    def wait(run_context: RunContext) -> None:
        run_context.session_state["never"] = True

    async def wait_async(run_context: RunContext) -> None:
        run_context.session_state["never"] = True

    async def wait_in_block(run_context: RunContext) -> None:
        async def child() -> None:
            async with run_context.transaction() as state:
                state["never"] = True

        await asyncio.create_task(child())

    tool = {"sync": wait, "async": wait_async, "block": wait_in_block}[kind]
    hogging = agent_with(hog, name="Hog", session_id="one")
    waiting = agent_with(tool, name="Waiter", session_id="one", db=database_of(hogging))
    run = asyncio.create_task(hogging.arun("go"))
    await until(lambda: _holder() is not None)
    output = await waiting.arun("go")
    over.set()
    result = tool_results(output)[tool.__name__]
    assert "StateLockTimeout" in result
    assert f"{tool.__name__} of Waiter waited 0.05 s" in result
    assert "locked by hog of Hog" in result
    assert (await run).session_state == {"hog": True}


async def test_a_cancellation_that_arrives_at_the_gate_is_thrown_into_the_tool_at_once() -> None:
    over, started, seen = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hog(run_context: RunContext) -> None:
        run_context.session_state["hog"] = True
        await over.wait()

    async def wait(run_context: RunContext) -> None:
        started.set()
        try:
            await pause()
        except asyncio.CancelledError:
            with pytest.raises(UsageError):
                run_context.session_state["never"] = True  # it runs without its turn
            seen.set()
            raise

    pause_over = asyncio.Event()

    async def pause() -> None:
        await pause_over.wait()

    waiting = agent_with(wait, name="Waiter", session_id="one")
    hogging = agent_with(hog, name="Hog", session_id="one", db=database_of(waiting))
    second = asyncio.create_task(waiting.arun("go"))
    await started.wait()
    first = asyncio.create_task(hogging.arun("go"))
    await until(lambda: _holder() == "hog of Hog")
    pause_over.set()  # from now on the tool waits for its turn, which does not come
    await turns()
    assert not second.done()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert seen.is_set()
    assert not first.done()
    over.set()
    assert (await first).session_state == {"hog": True}


async def test_a_timeout_that_passes_at_the_gate_ends_the_call() -> None:
    over = asyncio.Event()

    async def hog(run_context: RunContext) -> None:
        run_context.session_state["hog"] = True
        await over.wait()

    async def wait(run_context: RunContext) -> None:
        run_context.session_state["never"] = True

    hogging = agent_with(hog, session_id="one")
    waiting = agent_with(Function(wait, timeout=0.05), session_id="one", db=database_of(hogging))
    first = asyncio.create_task(hogging.arun("go"))
    await until(lambda: _holder() is not None)
    output = await waiting.arun("go")
    assert "took longer" in tool_results(output)["wait"]
    over.set()
    assert (await first).session_state == {"hog": True}


async def test_a_tool_whose_own_deadline_has_passed_may_touch_the_state_if_nobody_has_it() -> None:
    async def patient(run_context: RunContext) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            run_context.session_state["late"] = True

    assert state_of(await run_once(patient)) == {"late": True}


async def test_a_tool_whose_own_deadline_has_passed_waits_in_a_block_if_somebody_has_the_state() -> None:
    waiting, held, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hog(run_context: RunContext) -> None:
        await waiting.wait()
        run_context.session_state["hog"] = True
        held.set()
        await refused.wait()

    async def patient(run_context: RunContext) -> None:
        try:
            async with asyncio.timeout(None) as deadline:
                held_soon = asyncio.create_task(held.wait())
                held_soon.add_done_callback(lambda _: deadline.reschedule(0))
                waiting.set()
                await asyncio.Event().wait()
        except TimeoutError:
            with pytest.raises(UsageError, match=r"then used session_state, which hog of .* holds"):
                run_context.session_state["at once"] = True
            refused.set()
            async with run_context.transaction() as state:
                state["in turn"] = True

    assert state_of(await run_once(hog, patient)) == {"hog": True, "in turn": True}


async def test_the_thread_of_a_cancelled_tool_has_the_state_no_longer() -> None:
    inside, go_on, told = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def stubborn(run_context: RunContext) -> None:
        state = run_context.session_state
        state["never"] = True
        inside.set()
        go_on.wait(HANG)
        try:
            run_context.session_state["never"] = "again"
        except UsageError as error:
            errors.append(error)
        told.set()

    agent = agent_with(stubborn, session_id="one")
    run = asyncio.create_task(agent.arun("go"))
    await until(inside.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run  # does not wait for the thread
    assert not told.is_set()
    assert await agent.aupdate_session_state({"free": True}) == {"free": True}
    go_on.set()
    await until(told.is_set)
    assert "has ended" in str(errors[0])
    assert await agent.aget_session_state() == {"free": True}


async def test_the_thread_of_a_cancelled_tool_that_waits_for_the_state_is_woken() -> None:
    over, woken = asyncio.Event(), threading.Event()
    errors: list[BaseException] = []

    async def hog(run_context: RunContext) -> None:
        run_context.session_state["hog"] = True
        await over.wait()

    def wait(run_context: RunContext) -> None:
        try:
            run_context.session_state["never"] = True
        except UsageError as error:
            errors.append(error)
        woken.set()

    hogging = agent_with(hog, session_id="one")
    waiting = agent_with(wait, session_id="one", db=database_of(hogging))
    first = asyncio.create_task(hogging.arun("go"))
    await until(lambda: _holder() is not None)
    second = asyncio.create_task(waiting.arun("go"))
    (session,) = live_sessions._sessions.values()
    await until(lambda: session.state.lock.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await until(woken.is_set)
    assert "has ended" in str(errors[0])
    assert not first.done()
    over.set()
    await first


# Several loops and threads.


async def test_runs_on_several_loops_and_threads_share_one_session() -> None:
    agents = [agent_with(bump_async, bump_sync, session_id="one", session_state={"count": 0})]
    agents += [
        agent_with(
            bump_sync, bump_async, session_id="one", db=database_of(agents[0]), session_state={"count": 0}
        )
        for _ in range(2)
    ]
    each = 5

    def with_portal(agent: Agent) -> None:
        for _ in range(each):
            agent.run("go")

    def with_own_loop(agent: Agent) -> None:
        async def main() -> None:
            for _ in range(each):
                await agent.arun("go")

        asyncio.run(main())

    async def here(agent: Agent) -> None:
        for _ in range(each):
            await agent.arun("go")

    await asyncio.gather(
        *(asyncio.to_thread(with_portal, agent) for agent in agents),
        *(asyncio.to_thread(with_own_loop, agent) for agent in agents),
        *(here(agent) for agent in agents),
    )
    assert await agents[0].aget_session_state() == {"count": 3 * 3 * each * 2}


# The session state as JSON text is what a later process reads.


@pytest.fixture
def db(tmp_path: Path) -> SqliteDb:
    return SqliteDb(db_file=str(tmp_path / "agents.db"))


async def test_what_is_committed_is_what_the_database_has(db: SqliteDb) -> None:
    agent = agent_with(bump_async, bump_sync, db=db, session_id="one", session_state={"count": 0})
    await agent.arun("go")
    row = await db.load_session("one")
    assert row is not None
    assert json.loads(row.state) == {"count": 2}
    assert row.revision == 2
