"""A value in an output that is not JSON fails its run with one of Kern's errors; the rest is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from kern import Agent, RetryAgentRun, RunContext, RunStatus, StopAgentRun, Team, tool
from kern._json import value_text
from kern.db import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import HookError, UsageError
from kern.messages import Citation, Image, Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models import ModelResponse
from kern.run import RunOutput, TeamRunOutput
from kern.runtime.request import RunInput
from kern.testing import FunctionModel, ScriptedModel, tool_call
from kern.usage import Usage


class Plain:
    """Not JSON."""


def put(run_context: RunContext) -> str:
    """Put something into the metadata."""
    run_context.metadata["x"] = Plain()
    run_context.session_state["put"] = True
    return "put"


class Opened(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str

    @model_validator(mode="after")
    def open(self) -> Opened:
        self.connection = Plain()
        return self


def of_a_tool(**options: Any) -> Agent:
    return Agent(model=ScriptedModel([tool_call("put"), "done"]), tools=[put], **options)


def of_a_schema(**options: Any) -> Agent:
    return Agent(model=ScriptedModel(['{"name": "a"}']), output_schema=Opened, **options)


def of_a_tool_of_a_member(**options: Any) -> Team:
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="x"), "done"])
    return Team([of_a_tool(id="b")], model=leader, **options)


@pytest.mark.parametrize("store_events", [False, True])
@pytest.mark.parametrize("make", [of_a_tool, of_a_schema, of_a_tool_of_a_member])
async def test_a_value_that_is_not_json_fails_the_run_which_is_stored(
    make: Callable[..., Agent | Team], store_events: bool, tmp_path: Any
) -> None:
    runner = make(
        db=SqliteDb(tmp_path / "kern.db"), session_id="s", metadata={"a": 1}, store_events=store_events
    )
    with pytest.raises(UsageError, match=r"cannot be written as JSON.*Plain") as caught:
        await runner.arun("x", run_id="r")
    kept = caught.value.run_output
    if make is not of_a_schema:
        assert isinstance(kept, RunOutput | TeamRunOutput)
        assert isinstance(kept.metadata["x"], Plain)
        assert await runner.aget_session_state() == {"put": True}
    stored = await runner.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.error
    assert "cannot be written as JSON" in (stored.error or "")
    runner.model = ScriptedModel(["again"])
    runner.output_schema = None
    assert (await runner.arun("y")).status is RunStatus.completed


async def test_a_leader_is_told_that_its_member_has_made_such_a_value(tmp_path: Any) -> None:
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="x"), "done"])
    db = SqliteDb(tmp_path / "kern.db")
    team = Team([of_a_schema(id="b")], model=leader, db=db, store_member_responses=True, store_events=True)
    output = await team.arun("x", run_id="r")
    assert "output_schema Opened: what it made of the answer cannot" in (output.tools[0].result or "")
    stored = await team.aget_run_output("r")
    assert stored is not None
    assert stored.content == "done"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hook_that_sets_an_answer_that_is_not_json_is_named(stream: bool, tmp_path: Any) -> None:
    def replace_it(run_output: RunOutput[Any]) -> None:
        run_output.content = Plain()

    agent = Agent(model=ScriptedModel(["ok"]), post_hooks=[replace_it], db=SqliteDb(tmp_path / "kern.db"))
    with pytest.raises(HookError, match=r"replace_it has set run_output.content to a value of type Plain"):
        if stream:
            _ = [event async for event in agent.arun("x", run_id="r", stream=True, stream_events=True)]
        else:
            await agent.arun("x", run_id="r")
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert (stored.status, stored.content) == (RunStatus.error, "ok")


async def test_a_run_in_a_tool_that_fails_for_such_a_value_does_not_fail_the_run_around_it(
    tmp_path: Any,
) -> None:
    async def ask(run_context: RunContext) -> str:
        try:
            await of_a_schema().arun("x", run_id="inner", session_id="s")
        except UsageError:
            return "failed"
        return "done"

    agent = Agent(
        model=ScriptedModel([tool_call("ask"), "done"]),
        tools=[ask],
        db=SqliteDb(tmp_path / "kern.db"),
        session_id="s",
    )
    output = await agent.arun("x")
    assert (output.content, output.tools[0].result) == ("done", "failed")


class Answer(BaseModel):
    digits: int = 4711


def strange_values() -> list[Any]:
    return [5, {"a": 1}, ["t"], {1, 2}, b"\xff", Answer(), Plain()]


def spoil(run_output: RunOutput, name: str, value: Any) -> None:
    """Set a value in an output as an application without type checks can."""
    target: Any = run_output
    *steps, last = name.split(".")
    for step in steps:
        target = getattr(target, step) if not step.isdigit() else target[int(step)]
    setattr(target, last, value)


SPOILED = [
    *("reasoning_content", "model", "model_provider", "response_id", "content_type", "input", "tools"),
    *("messages.2.parts.0.text", "messages.2.parts.0.citations", "messages.2.parts.0.provider_data"),
    *(
        "messages.2.provider_data",
        "messages.2.role",
        "messages.2.name",
        "messages.2.said",
        "messages.2.usage",
    ),
    *(
        "messages.2.created_at",
        "messages.1.parts.0.id",
        "messages.1.parts.0.name",
        "messages.1.parts.0.arguments",
    ),
    *(
        "messages.1.parts.0.provider_data",
        "messages.2.tool_call_id",
        "messages.2.tool_name",
        "images",
        "events",
    ),
    *(
        "messages.1.parts",
        "tools.0.result",
        "tools.0.tool_args",
        "tools.0.tool_call_id",
        "metrics",
        "messages",
    ),
    *("messages.0.tool_call_error", "messages.0.from_history", "requirements", "state_conflicts", "files"),
]


@pytest.mark.parametrize("value", strange_values(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", SPOILED)
async def test_what_a_hook_sets_can_be_read_again(name: str, value: Any) -> None:
    def hook(run_output: RunOutput) -> None:
        spoil(run_output, name, value)

    model = ScriptedModel([tool_call("look", x=1), "the answer"])
    agent = Agent(model=model, tools=[look], post_hooks=[hook], db=InMemoryDb(), session_id="s")
    output = await agent.arun("Hi")
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.status is RunStatus.completed
    assert stored.content == "the answer"
    assert len(await agent.alist_runs(session_id="s")) == 1


def look(x: int) -> str:
    """Look."""
    return "seen"


def answers() -> dict[str, ModelResponse]:
    def parts(*made: Any) -> ModelResponse:
        return ModelResponse(message=Message("assistant", parts=[*made, TextPart("the answer")]))

    text = ModelResponse.of("the answer")
    any_value: Any = {"q": 1}
    return {
        "a count that is no int": replace(text, usage=Usage(requests=1, input_tokens=12.0)),
        "a count below zero": replace(
            text, usage=Usage(requests=1, input_tokens=-12, billed={"web_searches": -1})
        ),
        "a cost below zero": replace(text, usage=Usage(requests=1, cost=-1.0)),
        "ids of no text": replace(text, response_id=any_value, model=any_value),
        "a signature": parts(ReasoningPart("so", signature=any_value)),
        "a signature of bytes": parts(ReasoningPart("so", signature=b"\xff")),
        "a citation": parts(TextPart("a", citations=[Citation(url=any_value, start=any_value)])),
        "arguments": parts(ProviderCall("i", "web", any_value)),
        "a call's id": parts(ProviderCall(any_value, "web", status=any_value)),
        "data of the provider": parts(TextPart("a", provider_data={"o": Plain(), "b": b"\xff"})),
        "data that is no dict": parts(TextPart("a", provider_data=[1])),
        "data of a message": ModelResponse(
            message=Message("assistant", "the answer", provider_data={"p": Plain()})
        ),
        "a detail": parts(Image(url="u", detail=any_value)),
        "a part that is none": parts("text"),
    }


@pytest.mark.parametrize("name", answers())
async def test_what_a_model_outside_kern_answers_can_be_read_again(name: str) -> None:
    response = answers()[name]
    agent = Agent(model=FunctionModel(lambda request: response), db=InMemoryDb(), session_id="s")
    output = await agent.arun("Hi")
    assert output.status is RunStatus.completed
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert "the answer" in (stored.content or "")
    assert (await agent.aget_session_metrics("s")).requests == output.metrics.requests
    assert len(await agent.aget_chat_history("s")) == 2


@pytest.mark.parametrize(
    ("id", "name", "arguments"), [(5, "look", {"x": 1}), (None, "look", '{"x": 1}'), ("c", None, None)]
)
async def test_a_call_of_other_types_is_made_and_can_be_read_again(
    id: Any, name: Any, arguments: Any
) -> None:
    calls = [ModelResponse.of(None, ToolCall(id, name, arguments)), "done"]
    agent = Agent(model=ScriptedModel(calls), tools=[look], db=InMemoryDb(), session_id="s")
    output = await agent.arun("Hi")
    assert name is None or output.tools[0].result == "seen"
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.tools == output.tools
    assert [message.tool_calls for message in stored.messages] == [
        each.tool_calls for each in output.messages
    ]


async def test_the_log_says_what_is_stored_in_another_form(caplog: pytest.LogCaptureFixture) -> None:
    response = replace(ModelResponse.of("the answer"), response_id=4711)
    agent = Agent(model=FunctionModel(lambda request: response), db=InMemoryDb())
    output = await agent.arun("Hi")
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.response_id == "4711"
    assert "RunOutput: response_id has the wrong type int; it is stored as text" in caplog.text


def test_a_message_checks_its_role_and_its_texts() -> None:
    any_value: Any = {"a": 1}
    with pytest.raises(UsageError, match=r"role must be one of system, .*not 'usr'"):
        Message("usr", "x")
    with pytest.raises(UsageError, match=r"content must be a str or None, not .*dict"):
        Message("user", any_value)
    message = Message("user", "x")
    for name in ("content", "commentary", "reasoning_content"):
        with pytest.raises(UsageError, match=f"{name} must be a str or None"):
            setattr(message, name, any_value)


@pytest.mark.parametrize("value", strange_values(), ids=lambda value: type(value).__name__)
async def test_a_text_of_the_application_may_be_any_value_as_a_tool_result_may(value: Any) -> None:
    def again() -> str:
        raise RetryAgentRun(value)

    def stop() -> str:
        raise StopAgentRun(value)

    def hook(run_input: RunInput) -> None:
        run_input.input_content = value

    @tool(external_execution=True)
    def outside() -> str:
        """Look elsewhere."""
        return "never called"

    text = value_text(value)
    model = ScriptedModel([tool_call("outside"), tool_call("again"), tool_call("stop")])
    agent = Agent(
        model=model, tools=[again, stop, outside], pre_hooks=[hook], db=InMemoryDb(), session_id="s"
    )
    output = await agent.arun("Hi")
    output.requirements[0].set_external_execution_result(value)
    output = await agent.acontinue_run(output)
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.input == text
    assert [call.result for call in stored.tools] == [text, text, text]
    assert [message.content for message in await agent.aget_chat_history("s")] == [text, text]


@pytest.mark.parametrize("levels", [180, 190, 197, 199, 200, 250])
async def test_a_value_that_is_too_deep_to_be_read_again_is_not_stored(levels: int) -> None:
    def take(x: dict[str, Any]) -> str:
        return "taken"

    deep = '{"x":' * levels + "1" + "}" * levels
    calls = [ModelResponse.of(None, ToolCall("c", "take", deep)), "done"]
    agent = Agent(model=ScriptedModel(calls), tools=[take], db=InMemoryDb(), store_events=True)
    output = await agent.arun("Hi", run_id="r")
    assert output.tools[0].tool_call_error is (levels > 180)
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert stored.tools == output.tools
    writer = Agent(model=ScriptedModel([deep]), output_schema={"type": "object"}, db=InMemoryDb())
    try:
        assert (await writer.arun("Hi", run_id="r")).status is RunStatus.completed
    except UsageError as error:
        assert levels > 180
        assert "without its content" in str(error)  # noqa: PT017
    assert await writer.aget_run_output("r") is not None
