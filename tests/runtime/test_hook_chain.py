"""Hooks round tools: middleware of either colour in any mixture, one call and one transaction."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, RetryAgentRun, RunContext, StopAgentRun, Team, UsageError, tool
from kern.messages import ToolCall
from kern.models.base import ModelResponse
from kern.run.output import RunOutput
from kern.testing import ScriptedModel, no_leaks, tool_call

Hook = Callable[..., Any]


async def run_tool(
    function: Any, *calls: ToolCall, hooks: list[Hook] | None = None, state: dict[str, Any] | None = None
) -> RunOutput:
    agent = Agent(
        model=ScriptedModel([ModelResponse.of(None, *calls), "done"]),
        tools=[function],
        tool_hooks=hooks or [],
        session_state=state or {},
    )
    return await agent.arun("go")


# Every mixture of colours


def _sync_hook(name: str) -> Hook:
    def hook(
        function_name: str, function_call: Any, arguments: dict[str, Any], run_context: RunContext
    ) -> Any:
        run_context.session_state["log"].append(f"{name} before")
        result = function_call(**arguments)
        run_context.session_state["log"].append(f"{name} after")
        return f"{name}({result})"

    return hook


def _async_hook(name: str) -> Hook:
    async def hook(
        function_name: str, function_call: Any, arguments: dict[str, Any], run_context: RunContext
    ) -> Any:
        await asyncio.sleep(0)
        run_context.session_state["log"].append(f"{name} before")
        result = await function_call(**arguments)
        await asyncio.sleep(0)
        run_context.session_state["log"].append(f"{name} after")
        return f"{name}({result})"

    return hook


def _sync_tool(run_context: RunContext, item: str) -> str:
    run_context.session_state["log"].append(item)
    return item


async def _async_tool(run_context: RunContext, item: str) -> str:
    await asyncio.sleep(0)
    run_context.session_state["log"].append(item)
    return item


@pytest.mark.parametrize("colours", list(itertools.product("sa", repeat=4)), ids="".join)
async def test_every_mixture_of_colours_is_one_transaction(colours: tuple[str, ...]) -> None:
    *round_it, own = colours
    hooks = [
        (_sync_hook if colour == "s" else _async_hook)(f"h{number}") for number, colour in enumerate(round_it)
    ]
    function = tool(name="add")(_sync_tool if own == "s" else _async_tool)
    output = await run_tool(function, tool_call("add", item="milk"), hooks=hooks, state={"log": []})
    assert output.tools[0].result == "h0(h1(h2(milk)))"
    assert output.session_state == {
        "log": ["h0 before", "h1 before", "h2 before", "milk", "h2 after", "h1 after", "h0 after"]
    }


@pytest.mark.parametrize("colours", list(itertools.product("sa", repeat=3)), ids="".join)
async def test_a_state_that_only_the_function_touches_is_its_own_in_every_mixture(
    colours: tuple[str, ...],
) -> None:
    def sync_hook(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    async def async_hook(function_call: Any, arguments: dict[str, Any]) -> Any:
        return await function_call(**arguments)

    *round_it, own = colours
    hooks = [sync_hook if colour == "s" else async_hook for colour in round_it]

    def add_sync(run_context: RunContext) -> None:
        before = run_context.session_state["count"]
        time.sleep(0.002)
        run_context.session_state["count"] = before + 1

    async def add_async(run_context: RunContext) -> None:
        before = run_context.session_state["count"]
        await asyncio.sleep(0.002)
        run_context.session_state["count"] = before + 1

    function = tool(name="add")(add_sync if own == "s" else add_async)
    output = await run_tool(function, *(tool_call("add") for _ in range(6)), hooks=hooks, state={"count": 0})
    assert [call.tool_call_error for call in output.tools] == [False] * 6
    assert output.session_state == {"count": 6}


async def test_parallel_calls_with_hooks_of_all_colours_lose_no_update() -> None:
    def read_before(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        before = run_context.session_state["count"]
        result = function_call(**arguments)
        assert run_context.session_state["count"] == before + 1
        return result

    async def add(run_context: RunContext) -> None:
        before = run_context.session_state["count"]
        await asyncio.sleep(0.001)
        run_context.session_state["count"] = before + 1

    function = tool(name="add", tool_hooks=[read_before, _async_hook("inner")])(add)
    output = await run_tool(function, *(tool_call("add") for _ in range(8)), state={"count": 0, "log": []})
    assert [call.result for call in output.tools] == ["inner(None)"] * 8
    assert output.session_state is not None
    assert output.session_state["count"] == 8


# Where pieces run


async def test_sync_pieces_run_in_one_thread_and_async_ones_on_the_loop() -> None:
    places: dict[str, int] = {}

    def outer(function_call: Any, arguments: dict[str, Any]) -> Any:
        places["outer"] = threading.get_ident()
        return function_call(**arguments)

    async def middle(function_call: Any, arguments: dict[str, Any]) -> Any:
        places["middle"] = threading.get_ident()
        return await function_call(**arguments)

    def inner(function_call: Any, arguments: dict[str, Any]) -> Any:
        places["inner"] = threading.get_ident()
        return function_call(**arguments)

    @tool
    def work() -> str:
        places["work"] = threading.get_ident()
        return "ok"

    output = await run_tool(work, tool_call("work"), hooks=[outer, middle, inner])
    assert output.tools[0].result == "ok"
    assert places["middle"] == threading.get_ident()
    assert places["inner"] == places["work"] != places["middle"]
    assert places["outer"] not in (places["middle"], places["inner"])


async def test_an_async_hook_may_call_the_function_in_a_child_task() -> None:
    async def with_deadline(function_call: Any, arguments: dict[str, Any]) -> Any:
        return await asyncio.wait_for(asyncio.ensure_future(function_call(**arguments)), 20)

    function = tool(name="add")(_async_tool)
    output = await run_tool(function, tool_call("add", item="milk"), hooks=[with_deadline], state={"log": []})
    assert output.tools[0].result == "milk"
    assert output.session_state == {"log": ["milk"]}


@pytest.mark.parametrize("colours", list(itertools.product("sac", repeat=2)), ids="".join)
@pytest.mark.parametrize("own", "sa")
async def test_a_hook_may_touch_the_state_first_after_the_call(colours: tuple[str, ...], own: str) -> None:
    def sync_hook(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        result = function_call(**arguments)
        run_context.session_state["count"] += 1
        return result

    async def async_hook(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        result = await function_call(**arguments)
        run_context.session_state["count"] += 1
        return result

    async def with_child_task(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        result = await asyncio.create_task(function_call(**arguments))
        run_context.session_state["count"] += 1
        return result

    def work() -> str:
        return "ok"

    async def work_async() -> str:
        await asyncio.sleep(0)
        return "ok"

    hooks = [{"s": sync_hook, "a": async_hook, "c": with_child_task}[colour] for colour in colours]
    for _ in range(2):
        function = tool(name="work")(work_async if own == "a" else work)
        output = await run_tool(
            function, tool_call("work"), tool_call("work"), hooks=hooks, state={"count": 0}
        )
        assert [call.result for call in output.tools] == ["ok", "ok"]
        assert output.session_state == {"count": 4}


@pytest.mark.parametrize("colour", "sa")
async def test_a_hook_beside_its_function_does_not_wait_for_what_that_has(colour: str) -> None:
    ready, held, held_too = asyncio.Event(), asyncio.Event(), threading.Event()

    async def watch(function_call: Any, arguments: dict[str, Any]) -> Any:
        task = asyncio.create_task(function_call(**arguments))
        await asyncio.sleep(0.01)
        ready.set()
        await asyncio.sleep(0.03)  # by now the state is another call's, and the function stands in the queue
        return await task

    def add(run_context: RunContext) -> str:
        assert held_too.wait(20)
        run_context.session_state["count"] += 1
        return "added"

    async def add_async(run_context: RunContext) -> str:
        await held.wait()
        run_context.session_state["count"] += 1
        return "added"

    async def hold(run_context: RunContext) -> None:
        await ready.wait()
        run_context.session_state["count"] += 10
        held.set()
        held_too.set()
        async with asyncio.timeout(0.1):
            await asyncio.Event().wait()

    function = tool(name="add", tool_hooks=[watch])(add_async if colour == "a" else add)
    agent = Agent(
        model=ScriptedModel([ModelResponse.of(None, tool_call("hold"), tool_call("add")), "done"]),
        tools=[hold, function],
        session_state={"count": 0},
    )
    output = await agent.arun("go")
    assert [call.tool_call_error for call in output.tools] == [True, False]
    assert output.session_state == {"count": 1}


# What hooks may do


async def test_hooks_go_round_in_order_the_agents_outermost_and_may_change_everything() -> None:
    seen: list[str] = []

    def of_agent(function_name: str, function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append(f"agent {function_name} {arguments}")
        return function_call(**{**arguments, "item": arguments["item"].upper()}) + "!"

    async def of_tool(function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append(f"tool {arguments}")
        return await function_call(**arguments)

    @tool(tool_hooks=[of_tool])
    def add(item: str) -> str:
        seen.append(item)
        return f"added {item}"

    output = await run_tool(add, tool_call("add", item="milk"), hooks=[of_agent])
    assert seen == ["agent add {'item': 'milk'}", "tool {'item': 'MILK'}", "MILK"]
    assert output.tools[0].result == "added MILK!"
    assert output.tools[0].tool_args == {"item": "milk"}


@pytest.mark.parametrize("colours", list(itertools.product("sa", repeat=3)), ids="".join)
async def test_a_tool_s_pre_hook_and_post_hook_run_once_round_it(colours: tuple[str, ...]) -> None:
    seen: list[Any] = []

    def pre(function_name: str, arguments: dict[str, Any]) -> None:
        seen.append(("pre", function_name))
        arguments["item"] = "eggs"

    async def pre_async(function_name: str, arguments: dict[str, Any]) -> None:
        pre(function_name, arguments)

    def post(result: str, run_context: RunContext) -> None:
        seen.append(("post", result, run_context.tool_call_id is not None))

    async def post_async(result: str, run_context: RunContext) -> None:
        post(result, run_context)

    def add(item: str) -> str:
        return f"added {item}"

    async def add_async(item: str) -> str:
        return f"added {item}"

    first, second, own = (colour == "a" for colour in colours)
    function = tool(
        name="add", pre_hook=pre_async if first else pre, post_hook=post_async if second else post
    )(add_async if own else add)
    output = await run_tool(function, tool_call("add", item="milk"))
    assert seen == [("pre", "add"), ("post", "added eggs", True)]
    assert output.tools[0].result == "added eggs"


async def test_a_hook_may_answer_without_the_function() -> None:
    async def deny(function_name: str) -> str:
        return f"{function_name} is not allowed"

    @tool
    def delete_all() -> str:
        raise AssertionError("it was called")

    output = await run_tool(delete_all, tool_call("delete_all"), hooks=[deny])
    assert output.tools[0].result == "delete_all is not allowed"
    assert not output.tools[0].tool_call_error


@pytest.mark.parametrize("colour", "sa")
async def test_a_failed_try_leaves_no_trace_for_the_next_one(colour: str) -> None:
    tries = itertools.count()

    def retry(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        run_context.session_state["log"].append("hook")
        try:
            return function_call(**arguments)
        except ValueError:
            return function_call(**arguments)

    async def retry_async(function_call: Any, arguments: dict[str, Any]) -> Any:
        try:
            return await function_call(**arguments)
        except ValueError:
            return await function_call(**arguments)

    @tool
    def flaky(run_context: RunContext) -> str:
        run_context.session_state["log"].append("tool")
        if next(tries) == 0:
            raise ValueError("not yet")
        return "done"

    hook, before = (retry, ["hook"]) if colour == "s" else (retry_async, [])
    output = await run_tool(flaky, tool_call("flaky"), hooks=[hook], state={"log": []})
    assert output.tools[0].result == "done"
    assert output.session_state == {"log": [*before, "tool"]}


@pytest.mark.parametrize("colours", list(itertools.product("sa", repeat=2)), ids="".join)
async def test_an_error_in_a_hook_after_the_call_undoes_the_call(colours: tuple[str, ...]) -> None:
    def fail(function_call: Any, arguments: dict[str, Any]) -> Any:
        function_call(**arguments)
        raise PermissionError("not today")

    async def fail_async(function_call: Any, arguments: dict[str, Any]) -> Any:
        await function_call(**arguments)
        raise PermissionError("not today")

    function = tool(name="add")(_async_tool if colours[1] == "a" else _sync_tool)
    hook = fail_async if colours[0] == "a" else fail
    output = await run_tool(function, tool_call("add", item="milk"), hooks=[hook], state={"log": []})
    assert output.tools[0].tool_call_error
    assert output.tools[0].result == "PermissionError: not today"
    assert output.session_state == {"log": []}
    assert output.content == "done"


async def test_the_signals_to_the_model_pass_through_hooks_and_commit() -> None:
    def hook(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    @tool
    async def add(run_context: RunContext) -> None:
        run_context.session_state["log"].append("added")
        raise StopAgentRun("enough")

    output = await run_tool(add, tool_call("add"), hooks=[hook, _async_hook("h")], state={"log": []})
    assert output.content == "enough"
    assert output.session_state == {"log": ["h before", "added"]}


async def test_a_hook_may_send_the_model_back() -> None:
    def hook(arguments: dict[str, Any], function_call: Any) -> Any:
        if arguments["item"] == "milk":
            raise RetryAgentRun("no milk, please")
        return function_call(**arguments)

    @tool
    async def add(item: str) -> str:
        return f"added {item}"

    agent = Agent(
        model=ScriptedModel([tool_call("add", item="milk"), tool_call("add", item="tea"), "done"]),
        tools=[add],
        tool_hooks=[hook],
    )
    output = await agent.arun("go")
    assert [call.result for call in output.tools] == ["no milk, please", "added tea"]


async def test_generators_hand_their_pieces_to_hooks_as_a_list() -> None:
    async def count(function_call: Any, arguments: dict[str, Any]) -> str:
        return str(len(await function_call(**arguments)))

    @tool
    def letters() -> Any:
        yield "a"
        yield "b"

    @tool
    async def more() -> Any:
        yield "a"
        yield "b"

    def pass_on(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    assert (await run_tool(letters, tool_call("letters"), hooks=[count])).tools[0].result == "2"
    assert (await run_tool(letters, tool_call("letters"), hooks=[pass_on])).tools[0].result == "ab"
    assert (await run_tool(more, tool_call("more"), hooks=[pass_on])).tools[0].result == "ab"


@pytest.mark.parametrize("where", ["alone", "outside", "inside"])
async def test_a_sync_hook_may_return_a_coroutine(where: str) -> None:
    async def go_on(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        await asyncio.sleep(0)
        run_context.session_state["log"].append("hook")
        return "from a coroutine"

    def hook(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        return go_on(function_call, arguments, run_context)

    hooks = {"alone": [hook], "outside": [hook, _async_hook("a")], "inside": [_async_hook("a"), hook]}[where]
    output = await run_tool(_sync_tool, tool_call("_sync_tool", item="x"), hooks=hooks, state={"log": []})
    inside = where == "inside"
    assert output.tools[0].result == ("a(from a coroutine)" if inside else "from a coroutine")
    assert output.session_state == {"log": ["a before", "hook", "a after"] if inside else ["hook"]}


# What goes wrong


async def test_a_hook_that_asks_for_what_there_is_not_is_refused() -> None:
    def hook(function_call: Any, nonsense: int) -> Any: ...

    with pytest.raises(UsageError, match="has the parameter 'nonsense'"):
        await run_tool(_sync_tool, tool_call("_sync_tool", item="x"), hooks=[hook])


async def test_a_generator_is_no_hook() -> None:
    def hook(function_call: Any) -> Any:
        yield 1

    with pytest.raises(UsageError, match="is a generator"):
        await run_tool(_sync_tool, tool_call("_sync_tool", item="x"), hooks=[hook])


async def test_a_second_function_call_while_the_first_goes_on_is_refused() -> None:
    async def both(function_call: Any) -> Any:
        return await asyncio.gather(function_call(), function_call())

    @tool
    async def work() -> str:
        await asyncio.sleep(0)
        return "ok"

    output = await run_tool(work, tool_call("work"), hooks=[both])
    assert output.tools[0].tool_call_error
    assert "again before the first call had returned" in (output.tools[0].result or "")


# Cancellation and timeouts


async def test_a_cancelled_run_ends_async_pieces_below_a_waiting_thread() -> None:
    started, ended = asyncio.Event(), []

    def hook(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        run_context.session_state["log"].append("hook")
        return function_call(**arguments)

    @tool
    async def forever(run_context: RunContext) -> None:
        run_context.session_state["log"].append("tool")
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    agent = Agent(
        model=ScriptedModel([tool_call("forever"), "done"]),
        tools=[forever],
        tool_hooks=[hook],
        session_state={"log": []},
    )
    async with no_leaks():
        task = asyncio.create_task(agent.arun("go"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
    assert await agent.aget_session_state() == {"log": []}


@pytest.mark.parametrize("with_state", [True, False])
async def test_a_timeout_takes_the_state_from_a_thread_below_an_async_hook(with_state: bool) -> None:
    release = threading.Event()

    async def hook(function_call: Any, arguments: dict[str, Any]) -> Any:
        return await function_call(**arguments)

    def slow(run_context: RunContext) -> str:
        run_context.session_state["count"] += 1
        release.wait(20)
        return "late"

    def slow_alone() -> str:
        release.wait(20)
        return "late"

    function = tool(name="slow", timeout=0.05)(slow if with_state else slow_alone)

    @tool
    def after(run_context: RunContext) -> int:
        run_context.session_state["count"] += 10
        return int(run_context.session_state["count"])

    agent = Agent(
        model=ScriptedModel([tool_call("slow"), tool_call("after"), "done"]),
        tools=[function, after],
        tool_hooks=[hook],
        session_state={"count": 0},
    )
    try:
        output = await agent.arun("go")
    finally:
        release.set()
    assert "took longer than its timeout of 0.05 s" in (output.tools[0].result or "")
    assert output.session_state == {"count": 10}


async def test_a_hook_that_gives_up_a_thread_may_answer_itself() -> None:
    release = threading.Event()

    async def impatient(function_call: Any, arguments: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(0.02):
                return await function_call(**arguments)
        except TimeoutError:
            return "gave up"

    @tool
    def slow(run_context: RunContext) -> str:
        run_context.session_state["count"] = 1
        release.wait(20)
        return "late"

    try:
        output = await run_tool(slow, tool_call("slow"), hooks=[impatient], state={"count": 0})
    finally:
        release.set()
    assert output.tools[0].result == "gave up"
    assert output.session_state == {"count": 0}


async def test_a_hook_that_gives_up_a_thread_and_has_edits_of_its_own_is_told_that_they_are_lost() -> None:
    release = threading.Event()

    async def impatient(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        run_context.session_state["asked"] = True
        try:
            async with asyncio.timeout(0.02):
                return await function_call(**arguments)
        except TimeoutError:
            return "gave up"

    @tool
    def slow() -> str:
        release.wait(20)
        return "late"

    try:
        output = await run_tool(slow, tool_call("slow"), hooks=[impatient], state={"count": 0})
    finally:
        release.set()
    assert output.tools[0].tool_call_error
    assert "are undone" in (output.tools[0].result or "")
    assert output.session_state == {"count": 0}


async def test_a_team_s_hooks_go_round_its_leader_s_tools_and_not_its_members_own() -> None:
    seen: list[str] = []

    def note(function_name: str, function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append(function_name)
        return function_call(**arguments)

    def look_up() -> str:
        return "found"

    member = Agent(name="helper", model=ScriptedModel([tool_call("look_up"), "yes"]), tools=[look_up])
    delegate = tool_call("delegate_task_to_member", member_id="helper", task="help")
    leader = ScriptedModel([ModelResponse.of(None, delegate, tool_call("look_up")), "done"])
    await Team(members=[member], model=leader, tools=[look_up], tool_hooks=[note]).arun("go")
    assert sorted(seen) == ["delegate_task_to_member", "look_up"]
