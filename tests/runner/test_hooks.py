"""Hooks round runs: what they are given, what they may change, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunContext, RunStatus, Team, UsageError
from kern.errors import HookError, InputCheckError, OutputCheckError
from kern.run.events import (
    BaseRunEvent,
    PostHookCompletedEvent,
    PostHookStartedEvent,
    PreHookCompletedEvent,
    PreHookStartedEvent,
)
from kern.run.output import RunOutput
from kern.runtime.request import RunInput
from kern.testing import ScriptedModel, tool_call

# What hooks are given


async def test_a_hook_gets_what_it_names() -> None:
    seen: dict[str, Any] = {}

    def before(
        run_input: RunInput,
        run_context: RunContext,
        run_id: str,
        session_id: str,
        user_id: str,
        agent_id: str,
        team_id: str | None,
        metadata: dict[str, Any],
        dependencies: dict[str, Any],
        debug_mode: bool,
    ) -> None:
        seen.update(
            text=run_input.input_content,
            same_run=run_context.run_id == run_id,
            session_id=session_id,
            user_id=user_id,
            agent_id=agent_id,
            team_id=team_id,
            metadata=metadata,
            dependencies=dependencies,
            debug_mode=debug_mode,
        )

    agent = Agent(
        name="Asker", model=ScriptedModel(["hi"]), pre_hooks=[before], metadata={"a": 1}, user_id="ann"
    )
    await agent.arun("hello", session_id="s", dependencies={"b": 2})
    assert seen == {
        "text": "hello",
        "same_run": True,
        "session_id": "s",
        "user_id": "ann",
        "agent_id": "asker",
        "team_id": None,
        "metadata": {"a": 1},
        "dependencies": {"b": 2},
        "debug_mode": False,
    }


async def test_a_post_hook_gets_the_output_as_it_stands() -> None:
    seen: list[Any] = []

    def after(run_output: RunOutput, run_input: RunInput) -> None:
        roles = [message.role for message in run_output.messages]
        seen.extend([run_output.content, roles, run_input.input_content, run_output.tools[0].result])

    def look_up() -> str:
        return "found"

    agent = Agent(model=ScriptedModel([tool_call("look_up"), "done"]), tools=[look_up], post_hooks=[after])
    await agent.arun("go")
    assert seen == ["done", ["user", "assistant", "tool", "assistant"], "go", "found"]


async def test_hooks_run_in_order_sync_ones_in_threads() -> None:
    order: list[Any] = []
    here = threading.get_ident()

    def first() -> None:
        order.append(("first", threading.get_ident() == here))

    async def second() -> None:
        await asyncio.sleep(0)
        order.append(("second", threading.get_ident() == here))

    agent = Agent(model=ScriptedModel(["hi"]), pre_hooks=[first, second], post_hooks=[second, first])
    await agent.arun("go")
    assert order == [("first", False), ("second", True), ("second", True), ("first", False)]


# What hooks may change


async def test_a_pre_hook_may_change_the_input() -> None:
    def polite(run_input: RunInput) -> None:
        run_input.input_content = f"Please: {run_input.input_content}"

    model = ScriptedModel(["hi"])
    output = await Agent(model=model, pre_hooks=[polite]).arun("tell")
    assert model.requests[0].messages[-1].content == "Please: tell"
    assert output.input == "Please: tell"


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_post_hook_may_change_the_content_and_what_is_remembered(colour: str) -> None:
    def shout(run_output: RunOutput) -> None:
        run_output.content = run_output.content.upper()

    async def shout_async(run_output: RunOutput) -> None:
        shout(run_output)

    model = ScriptedModel(["a secret", "bye"])
    agent = Agent(
        model=model,
        post_hooks=[shout if colour == "sync" else shout_async],
        add_history_to_context=True,
    )
    output = await agent.arun("tell")
    assert output.content == "A SECRET"
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert (stored.content, stored.messages[-1].content) == ("A SECRET", "A SECRET")
    await agent.arun("again")
    assert "a secret" not in str(model.requests[1].messages)


async def test_a_post_hook_sees_and_may_replace_a_structured_value() -> None:
    class Price(BaseModel):
        euros: int

    def double(run_output: RunOutput) -> None:
        assert isinstance(run_output.content, Price)
        run_output.content = Price(euros=run_output.content.euros * 2)

    def as_text(run_output: RunOutput) -> None:
        run_output.content = f"{run_output.content.euros} Euro"

    agent = Agent(model=ScriptedModel(['{"euros": 4}'] * 2), output_schema=Price, post_hooks=[double])
    output = await agent.arun("how much")
    assert (output.content, output.content_type) == (Price(euros=8), "Price")
    agent.post_hooks = [double, as_text]
    output = await agent.arun("how much")
    assert (output.content, output.content_type) == ("8 Euro", "str")


async def test_a_hook_with_a_run_context_is_a_transaction() -> None:
    def count(run_context: RunContext) -> None:
        run_context.session_state["runs"] += 1

    async def note(run_context: RunContext, run_output: RunOutput) -> None:
        run_context.session_state["last"] = run_output.content

    agent = Agent(
        model=ScriptedModel(["hi"]),
        pre_hooks=[count],
        post_hooks=[note],
        session_state={"runs": 0},
        instructions="run {runs}",
    )
    output = await agent.arun("go")
    assert output.session_state == {"runs": 1, "last": "hi"}
    assert output.messages[0].content == "run 1"


# Errors


def refuse_input() -> None:
    raise InputCheckError("not this")


async def refuse_output(run_context: RunContext) -> None:
    run_context.session_state["touched"] = True
    raise OutputCheckError("not that")


def break_down(run_context: RunContext) -> None:
    run_context.session_state["touched"] = True
    raise ZeroDivisionError("oh")


ERRORS: list[tuple[str, Any, type[Exception], str, int]] = [
    ("pre_hooks", refuse_input, InputCheckError, "not this", 0),
    ("post_hooks", refuse_output, OutputCheckError, "not that", 1),
    ("pre_hooks", break_down, HookError, "the hook break_down raised ZeroDivisionError: oh", 0),
    ("post_hooks", break_down, HookError, "the hook break_down raised ZeroDivisionError: oh", 1),
]


@pytest.mark.parametrize(("parameter", "hook", "error", "text", "requests"), ERRORS)
async def test_an_error_in_a_hook_fails_the_run_and_undoes_the_hook(
    parameter: str, hook: Any, error: type[Exception], text: str, requests: int
) -> None:
    model = ScriptedModel(["hi"])
    agent = Agent(model=model, session_state={"touched": False}, **{parameter: [hook]})
    with pytest.raises(error) as caught:
        await agent.arun("go")
    assert str(caught.value) == text
    assert len(model.requests) == requests
    output = caught.value.run_output  # type: ignore[attr-defined]
    assert (output.status, output.error_type) == (RunStatus.error, error.__name__)
    assert output.session_state == {"touched": False}
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.status is RunStatus.error
    if error is HookError:
        assert caught.value.hook == "break_down"  # type: ignore[attr-defined]
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_hook_that_leaves_no_json_in_the_state_fails_the_run() -> None:
    def spoil(run_context: RunContext) -> None:
        run_context.session_state["x"] = {1, 2}

    with pytest.raises(HookError, match="session_state/x"):
        await Agent(model=ScriptedModel([]), pre_hooks=[spoil]).arun("go")


async def test_a_cancelled_hook_is_a_cancelled_run() -> None:
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    agent = Agent(model=ScriptedModel([]), pre_hooks=[wait])
    task = asyncio.create_task(agent.arun("go"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert stored.status is RunStatus.cancelled


def wants_too_much(nonsense: int) -> None: ...


def generates() -> Any:
    yield


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"pre_hooks": [wants_too_much]}, "has the parameter 'nonsense'"),
        ({"pre_hooks": [lambda run_output: None]}, "has the parameter 'run_output'"),
        ({"post_hooks": [generates]}, "is a generator"),
        ({"pre_hooks": refuse_input}, "must be a list of functions"),
        ({"post_hooks": ["x"]}, "a hook must be a function"),
    ],
)
async def test_what_is_no_hook_is_refused_before_the_run(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        await Agent(model=ScriptedModel([]), **options).arun("go")


# Events


async def test_hooks_have_events_round_them() -> None:
    def before() -> None: ...
    async def after() -> None: ...

    agent = Agent(model=ScriptedModel(["hi"]), pre_hooks=[before], post_hooks=[after])
    events = [event async for event in agent.arun("go", stream=True, stream_events=True)]
    kinds = [event.event for event in events if event.event != "RunContent"]
    assert kinds == [
        "RunStarted",
        "PreHookStarted",
        "PreHookCompleted",
        "ModelRequestStarted",
        "ModelRequestCompleted",
        "RunContentCompleted",
        "PostHookStarted",
        "PostHookCompleted",
        "RunCompleted",
    ]
    hooks: list[BaseRunEvent] = [
        event
        for event in events
        if isinstance(
            event,
            PreHookStartedEvent | PreHookCompletedEvent | PostHookStartedEvent | PostHookCompletedEvent,
        )
    ]
    assert [event.to_dict()["hook"] for event in hooks] == ["before", "before", "after", "after"]


async def test_a_refused_run_ends_its_events_with_the_error() -> None:
    agent = Agent(model=ScriptedModel([]), pre_hooks=[refuse_input])
    kinds = []
    with pytest.raises(InputCheckError):
        async for event in agent.arun("go", stream=True, stream_events=True):
            kinds.append(event.event)
    assert kinds == ["RunStarted", "PreHookStarted", "RunError"]


# Teams


async def test_a_team_and_its_members_have_hooks_of_their_own() -> None:
    seen: list[tuple[str, Any, Any]] = []

    def before(run_input: RunInput, agent_id: str | None, team_id: str | None) -> None:
        seen.append((run_input.input_content, agent_id, team_id))

    def sign(run_output: Any) -> None:
        run_output.content = f"{run_output.content}, signed"

    member = Agent(name="helper", model=ScriptedModel(["yes"]), pre_hooks=[before], post_hooks=[sign])
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="helper", task="help"), "done"])
    team = Team(name="crew", members=[member], model=leader, pre_hooks=[before], post_hooks=[sign])
    output = await team.arun("go")
    assert seen == [("go", None, "crew"), ("help", "helper", None)]
    assert output.tools[0].result == "yes, signed"
    assert output.content == "done, signed"


async def test_a_member_that_is_refused_is_told_to_the_leader() -> None:
    member = Agent(name="helper", model=ScriptedModel([]), pre_hooks=[refuse_input])
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="helper", task="help"), "done"])
    output = await Team(members=[member], model=leader).arun("go")
    assert output.tools[0].tool_call_error
    assert "InputCheckError: not this" in (output.tools[0].result or "")
    assert output.status is RunStatus.completed
