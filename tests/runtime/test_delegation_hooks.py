"""`tool_hooks` round delegations, task lists and the tools that parameters bring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern._sync.lock import FairSemaphore
from kern._sync.threads import threads
from kern.messages import Image
from kern.models.base import ModelRequest, ModelResponse
from kern.runner.definition import id_of
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call

Hook = Callable[..., Any]


def calls(*wanted: Any) -> ModelResponse:
    return ModelResponse.of(None, *wanted)


def delegate(member_id: str = "a", task: str = "work") -> Any:
    return tool_call("delegate_task_to_member", member_id=member_id, task=task)


def echo(name: str = "A") -> Agent:
    return Agent(name=name, model=FunctionModel(lambda r: f"{name} on: {r.messages[-1].content}"))


def results(request: ModelRequest) -> str:
    return " | ".join(message.content or "" for message in request.messages if message.role == "tool")


def sync_hook(seen: list[Any]) -> Hook:
    def note(function_name: str, function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append((function_name, dict(arguments)))
        value = function_call(**{**arguments, "task": arguments["task"].upper()})
        seen.append(value)
        return f"<{value}>"

    return note


def async_hook(seen: list[Any]) -> Hook:
    async def note(function_name: str, function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append((function_name, dict(arguments)))
        value = await function_call(**{**arguments, "task": arguments["task"].upper()})
        seen.append(value)
        return f"<{value}>"

    return note


@pytest.mark.parametrize("make", [sync_hook, async_hook])
async def test_a_hook_sees_a_delegation_and_may_change_its_task_and_its_result(
    make: Callable[[list[Any]], Hook],
) -> None:
    seen: list[Any] = []
    team = Team([echo()], model=ScriptedModel([delegate(), results]), tool_hooks=[make(seen)])
    async with no_leaks():
        output = await team.arun("go")
    assert seen == [("delegate_task_to_member", {"member_id": "a", "task": "work"}), "A on: WORK"]
    assert output.content == "<A on: WORK>"
    assert output.tools[0].tool_args == {"member_id": "a", "task": "work"}
    assert output.member_responses[0].input == "WORK"


async def test_hooks_nest_and_one_may_keep_the_call_back() -> None:
    order: list[str] = []

    async def outer(function_call: Any, arguments: dict[str, Any]) -> Any:
        order.append("outer")
        return await function_call(**arguments)

    def inner(function_call: Any, arguments: dict[str, Any]) -> Any:
        order.append("inner")
        return "not today" if arguments["member_id"] == "b" else function_call(**arguments)

    team = Team(
        [echo("A"), echo("B")],
        model=ScriptedModel([delegate("a"), delegate("b"), results]),
        tool_hooks=[outer, inner],
    )
    output = await team.arun("go")
    assert order == ["outer", "inner"] * 2
    assert output.content == "A on: work | not today"
    assert len(output.member_responses) == 1


@pytest.mark.parametrize(
    ("mode", "script", "named"),
    [
        ("broadcast", [tool_call("delegate_task_to_members", task="x")], ["delegate_task_to_members"]),
        (
            "tasks",
            [tool_call("create_task", title="x", member_id="a"), tool_call("execute_tasks", task_ids=[1])],
            ["create_task", "execute_tasks"],
        ),
    ],
)
async def test_the_tools_of_every_mode_have_hooks(mode: str, script: list[Any], named: list[str]) -> None:
    seen: list[str] = []

    def note(function_name: str, function_call: Any, arguments: dict[str, Any]) -> Any:
        seen.append(function_name)
        return function_call(**arguments)

    team = Team([echo()], model=ScriptedModel([*script, "done"]), mode=mode, tool_hooks=[note])
    output = await team.arun("go")
    assert output.content == "done"
    assert seen == named
    assert output.member_responses[0].content == "A on: x"
    assert not any(call.tool_call_error for call in output.tools)


async def test_a_routed_answer_is_what_the_hook_makes_of_it() -> None:
    def same(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    def louder(function_call: Any, arguments: dict[str, Any]) -> Any:
        return [function_call(**arguments).upper(), Image(content=b"png")]

    for hook, answer, media in ((same, "A on: work", 0), (louder, "A ON: WORK\n[image]", 1)):
        team = Team([echo()], model=ScriptedModel([delegate()]), mode="route", tool_hooks=[hook])
        output = await team.arun("go")
        assert output.content == answer
        assert len(output.images) == media


async def test_a_failed_member_is_a_text_for_the_hook_and_an_error_for_the_model() -> None:
    def again(function_call: Any, arguments: dict[str, Any]) -> Any:
        value = function_call(**arguments)
        return function_call(**arguments) if "failed" in value else value

    member = Agent(name="A", model=ScriptedModel([ValueError("broken"), "well", ValueError("broken")] * 2))
    team = Team([member], model=ScriptedModel([delegate(), delegate(), results]), tool_hooks=[again])
    output = await team.arun("go")
    assert output.tools[0].result == "well"
    assert "A failed" in (output.tools[1].result or "")
    assert [call.tool_call_error for call in output.tools] == [False, True]


# The session state.


def count(run_context: RunContext) -> str:
    """Count."""
    run_context.session_state["count"] += 1
    return "counted"


def counting_member(name: str) -> Agent:
    play = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else calls(tool_call("count")))
    return Agent(name=name, model=play, tools=[count])


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_hook_has_the_state_before_and_after_but_members_do_not_wait_for_it(kind: str) -> None:
    def note(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        with run_context.transaction() as state:
            state["log"].append("before")
        value = function_call(**arguments)
        run_context.session_state["log"].append("after")
        return value

    async def anote(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        async with run_context.transaction() as state:
            state["log"].append("before")
        value = await function_call(**arguments)
        run_context.session_state["log"].append("after")
        return value

    members = [counting_member(f"m{number}") for number in range(8)]
    model = ScriptedModel([calls(*(delegate(id_of(member)) for member in members)), results])
    team = Team(
        members,
        model=model,
        tool_hooks=[note if kind == "sync" else anote],
        session_state={"count": 0, "log": []},
    )
    async with no_leaks():
        output = await team.arun("go")
    assert output.session_state is not None
    assert output.session_state["count"] == 8
    assert sorted(output.session_state["log"]) == ["after"] * 8 + ["before"] * 8


@pytest.mark.parametrize("kind", ["sync", "async", "block", "ablock"])
async def test_a_hook_that_keeps_the_state_during_a_delegation_is_told_so(kind: str) -> None:
    def note(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        run_context.session_state["mark"] = True
        return function_call(**arguments)

    async def anote(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        run_context.session_state["mark"] = True
        return await function_call(**arguments)

    def block(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        with run_context.transaction() as state:
            state["mark"] = True
            return function_call(**arguments)

    async def ablock(function_call: Any, arguments: dict[str, Any], run_context: RunContext) -> Any:
        async with run_context.transaction() as state:
            state["mark"] = True
            return await function_call(**arguments)

    hook = {"sync": note, "async": anote, "block": block, "ablock": ablock}[kind]
    team = Team(
        [counting_member("A")],
        model=ScriptedModel([delegate(), results]),
        tool_hooks=[hook],
        session_state={"count": 0},
    )
    output = await team.arun("go")
    assert "holds the session state" in output.content
    assert output.session_state == {"count": 0}
    assert output.member_responses == []


async def test_hooks_and_the_update_of_the_state_are_one_transaction() -> None:
    seen: list[str] = []

    def check(
        function_name: str, function_call: Any, arguments: dict[str, Any], run_context: RunContext
    ) -> Any:
        seen.append(function_name)
        value = function_call(**arguments)
        if run_context.session_state["age"] < 0:
            raise ValueError("too young")
        return value

    script = [
        tool_call("update_session_state", session_state_updates={"age": -1}),
        tool_call("update_session_state", session_state_updates={"age": 5}),
        tool_call("read_chat_history"),
        "done",
    ]
    agent = Agent(
        model=ScriptedModel(script),
        enable_agentic_state=True,
        read_chat_history=True,
        tool_hooks=[check],
        session_state={"age": 1},
    )
    output = await agent.arun("go")
    assert seen == ["update_session_state", "update_session_state", "read_chat_history"]
    assert "too young" in (output.tools[0].result or "")
    assert output.session_state == {"age": 5}
    assert agent.enable_agentic_state


# Pauses, cancellation, threads.


async def test_a_member_that_waits_for_a_person_leaves_the_hook_and_comes_back_to_it() -> None:
    went: list[str] = []

    @tool(requires_confirmation=True)
    def risky() -> str:
        """Do it."""
        return "did it"

    def note(function_call: Any, arguments: dict[str, Any]) -> Any:
        went.append("in")
        value = function_call(**arguments)
        went.append("out")
        return value

    async def anote(function_call: Any, arguments: dict[str, Any]) -> Any:
        return await function_call(**arguments)

    play = FunctionModel(lambda r: "careful" if r.messages[-1].role == "tool" else calls(tool_call("risky")))
    team = Team(
        [Agent(name="A", model=play, tools=[risky])],
        model=ScriptedModel([delegate(), results]),
        tool_hooks=[anote, note, anote],
    )
    async with no_leaks():
        paused = await team.arun("go")
        assert paused.status is RunStatus.paused
        assert went == ["in"]
        paused.requirements[0].confirm()
        output = await team.acontinue_run(paused)
    assert output.content == "careful"
    assert went == ["in", "in", "out"]
    assert len(output.member_responses) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_run_that_is_cancelled_takes_the_members_behind_its_hooks_with_it(kind: str) -> None:
    inside = asyncio.Event()

    async def wait(request: ModelRequest) -> str:
        inside.set()
        await asyncio.Event().wait()
        return ""

    def note(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    async def anote(function_call: Any, arguments: dict[str, Any]) -> Any:
        return await function_call(**arguments)

    team = Team(
        [Agent(name="A", model=FunctionModel(wait))],
        model=ScriptedModel([delegate()]),
        tool_hooks=[note if kind == "sync" else anote],
    )
    async with no_leaks():
        run = asyncio.create_task(team.arun("go", run_id="r"))
        await inside.wait()
        assert await team.acancel_run("r")
        output = await run
    assert output.status is RunStatus.cancelled
    assert output.member_responses[0].status is RunStatus.cancelled


async def test_hooks_that_wait_for_members_leave_them_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_places", FairSemaphore(2))

    def note(function_call: Any, arguments: dict[str, Any]) -> Any:
        return function_call(**arguments)

    members = [counting_member(f"m{number}") for number in range(4)]
    model = ScriptedModel([calls(*(delegate(id_of(member)) for member in members)), "done"])
    team = Team(members, model=model, tool_hooks=[note], session_state={"count": 0})
    output = await team.arun("go")
    assert output.session_state == {"count": 4}
