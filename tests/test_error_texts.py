"""What a failure is told as, to the model, a leader, the person and the log: what has happened."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, KernError, RunContext, Team
from kern._error_text import error_text
from kern.errors import HookError, InputCheckError, RetryAgentRun, StopAgentRun
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.run import RunErrorEvent, RunStatus
from kern.testing import ScriptedModel, tool_call

CAUSE = "the warehouse does not answer"


class Mute(Exception):
    def __str__(self) -> str:
        return self.reason  # type: ignore[attr-defined]  # which nobody has set


class Odd(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307 - what a mistake of the application's does


class MuteKern(KernError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def fetch() -> str:
    raise ConnectionRefusedError(CAUSE)


async def in_a_group() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(fetch())
    return "fetched"


async def in_groups() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_group())
    return "fetched"


async def streaming() -> Any:
    yield "a piece"
    await in_groups()


def sync() -> str:
    raise ExceptionGroup("two things", [ValueError("first"), ExceptionGroup("x", [KeyError(CAUSE)])])


def exits() -> str:
    raise BaseExceptionGroup("two things", [SystemExit(CAUSE), ValueError("x")])


FAILING = [in_a_group, in_groups, streaming, sync, exits]


@pytest.mark.parametrize("function", FAILING)
async def test_the_model_is_told_the_errors_in_a_group(function: Callable[..., Any]) -> None:
    agent = Agent(model=ScriptedModel([tool_call(function.__name__), "done"]), tools=[function])
    output = await agent.arun("Fetch")
    assert output.status is RunStatus.completed
    assert CAUSE in (output.tools[0].result or "")
    assert "TaskGroup" not in (output.tools[0].result or "")


@pytest.mark.parametrize("function", [f for f in FAILING if f is not streaming])
@pytest.mark.parametrize("place", ["pre_hooks", "post_hooks", "instructions", "system_message"])
async def test_so_is_the_application(function: Callable[..., Any], place: str) -> None:
    def with_context(run_context: RunContext) -> Any:
        return function()

    async def awaited(run_context: RunContext) -> Any:
        return await function()

    hook = awaited if inspect.iscoroutinefunction(function) else with_context
    options: dict[str, Any] = {place: hook if place in ("instructions", "system_message") else [hook]}
    agent = Agent(model=ScriptedModel(["x"]), **options)
    events = []
    with pytest.raises(KernError, match=CAUSE) as caught:
        async for event in agent.arun("Fetch", stream=True, stream_events=True):
            events.append(event)
    assert caught.value.run_output.error == str(caught.value)
    assert isinstance(events[-1], RunErrorEvent)
    assert CAUSE in events[-1].error


@pytest.mark.parametrize("function", [in_groups, sync])
async def test_so_is_a_leader(function: Callable[..., Any]) -> None:
    def hook(run_input: Any) -> Any:
        return function() if function is sync else asyncio.run(function())

    lead = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="x"), "done"])
    team = Team([Agent(id="b", model=ScriptedModel(["x"]), pre_hooks=[hook])], model=lead)
    output = await team.arun("Fetch")
    assert CAUSE in (output.tools[0].result or "")
    assert output.member_responses[0].error is not None
    assert CAUSE in output.member_responses[0].error


class Failing(Model):
    id, provider = "m", "test"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        raise self.error


@pytest.mark.parametrize("error", [ExceptionGroup("x", [OSError(CAUSE)]), OSError(CAUSE)])
async def test_so_it_is_of_a_model_s_error_and_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(model=Failing(error), retries=1, delay_between_retries=0.001)
    with caplog.at_level(logging.WARNING, "kern"), pytest.raises(KernError, match=CAUSE):
        await agent.arun("Fetch")
    assert CAUSE in caplog.text


@pytest.mark.parametrize("error", [Mute, Odd, MuteKern])
async def test_an_exception_that_cannot_tell_itself_is_told_by_its_class(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> str:
        raise error

    def hook(run_input: Any) -> None:
        raise error

    output = await Agent(model=ScriptedModel([tool_call("fails"), "done"]), tools=[fails]).arun("x")
    assert output.status is RunStatus.completed
    assert error.__name__ in (output.tools[0].result or "")
    with pytest.raises(HookError, match=error.__name__):
        await Agent(model=ScriptedModel(["x"]), pre_hooks=[hook]).arun("x")
    with pytest.raises(KernError) as caught:
        await Agent(model=Failing(error()), retries=1, delay_between_retries=0.001).arun("x")
    assert caught.value.run_output.error
    with pytest.raises(KernError):
        await Agent(model=Failing(error())).aprint_response("x")
    assert "Logging error" not in capsys.readouterr().err


async def test_what_steers_the_model_steers_it_from_a_task_group_too() -> None:
    async def again(run_context: RunContext) -> str:
        run_context.session_state["n"] += 1

        async def child() -> None:
            raise RetryAgentRun("once more") if run_context.session_state["n"] < 2 else StopAgentRun("enough")

        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        return "never"

    model = ScriptedModel([tool_call("again"), tool_call("again")])
    output = await Agent(model=model, tools=[again], session_state={"n": 0}).arun("x")
    assert [call.result for call in output.tools] == ["once more", "enough"]
    assert not any(call.tool_call_error for call in output.tools)
    assert output.session_state == {"n": 2}


async def test_a_check_refuses_from_a_task_group_too() -> None:
    async def check(run_input: Any) -> None:
        async def child() -> None:
            raise InputCheckError("not here")

        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    with pytest.raises(InputCheckError, match="not here"):
        await Agent(model=ScriptedModel(["x"]), pre_hooks=[check]).arun("x")


async def test_an_interrupt_in_a_group_is_no_tool_s_error() -> None:
    def stopped() -> str:
        raise BaseExceptionGroup("x", [KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup):
        await Agent(model=ScriptedModel([tool_call("stopped"), "done"]), tools=[stopped]).arun("x")


def test_a_text_of_very_many_errors_is_short_and_very_deep_ones_are_found() -> None:
    many = ExceptionGroup("many", [ValueError(str(n)) for n in range(1000)])
    assert error_text(many).endswith("ValueError: 7; and 992 more")
    deep: Exception = ValueError("at the bottom")
    for _ in range(5000):
        deep = ExceptionGroup("unhandled errors in a TaskGroup (1 sub-exception)", [deep])
    assert error_text(deep) == "ValueError: at the bottom"
