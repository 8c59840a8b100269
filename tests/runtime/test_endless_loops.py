"""No run asks its model for ever: a forced `tool_choice`, a used-up `tool_call_limit`, and `max_requests`."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from kern import Agent, Team, tool
from kern._error_text import counted
from kern.errors import UsageError, UsageLimitExceeded
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, FunctionModel, ModelServer, ScriptedModel, tool_call

CHOICES: list[Any] = ["required", {"name": "look"}]


def look() -> str:
    return "seen"


@tool(requires_confirmation=True)
def wipe() -> str:
    return "wiped"


def fail() -> str:
    raise LookupError("nothing there")


class Obedient:
    """Calls the first tool as long as it is forced to, as a provider sees to it, or at most a dozen times."""

    def __init__(self) -> None:
        self.choices: list[Any] = []
        self.model = FunctionModel(self.play)

    def play(self, request: ModelRequest) -> ModelResponse | str:
        self.choices.append(request.tool_choice)
        assert len(self.choices) < 12, "no end"
        if request.tool_choice in (None, "auto", "none"):
            return "The answer."
        return ModelResponse.of(None, tool_call(request.tools[0].name))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("function", [look, fail])
async def test_a_forced_choice_is_over_once_a_turn_has_called_whatever_came_of_it(
    choice: Any, function: Any
) -> None:
    played = Obedient()
    named = choice if choice == "required" else {"name": function.__name__}
    output = await Agent(model=played.model, tools=[function], tool_choice=named).arun("Look")
    assert output.content == "The answer."
    assert played.choices == [named, "auto"]


async def test_a_call_of_a_tool_that_does_not_exist_ends_the_force_too() -> None:
    model = ScriptedModel([tool_call("nobody"), "The answer."])
    assert (await Agent(model=model, tools=[look], tool_choice="required").arun("x")).content == "The answer."
    assert [request.tool_choice for request in model.requests] == ["required", "auto"]


async def test_a_forced_choice_is_over_after_a_pause() -> None:
    played = Obedient()
    agent = Agent(model=played.model, tools=[wipe], tool_choice="required")
    paused = await agent.arun("Wipe")
    paused.requirements[0].confirm()
    output = await agent.acontinue_run(paused)
    assert output.content == "The answer."
    assert played.choices == ["required", "auto"]


async def test_the_next_run_of_the_session_is_forced_anew() -> None:
    played = Obedient()
    agent = Agent(model=played.model, tools=[look], tool_choice="required", add_history_to_context=True)
    for _ in range(2):
        await agent.arun("Look")
    assert played.choices == ["required", "auto"] * 2


@pytest.mark.parametrize("choice", ["auto", "none", None])
async def test_a_choice_that_forces_nothing_stays(choice: Any) -> None:
    model = ScriptedModel([tool_call("look"), "The answer."])
    await Agent(model=model, tools=[look], tool_choice=choice).arun("x")
    assert [request.tool_choice for request in model.requests] == [choice, choice]


async def test_a_leader_and_its_member_are_forced_once_each() -> None:
    leader, member = Obedient(), Obedient()

    def lead(request: ModelRequest) -> ModelResponse | str:
        answer = leader.play(request)
        calls = isinstance(answer, ModelResponse)
        return (
            ModelResponse.of(None, tool_call("delegate_task_to_member", member_id="m", task="x"))
            if calls
            else answer
        )

    team = Team(
        [Agent(name="m", model=member.model, tools=[look], tool_choice="required")],
        model=FunctionModel(lead),
        tool_choice="required",
    )
    assert (await team.arun("x")).content == "The answer."
    assert leader.choices == member.choices == ["required", "auto"]


@pytest.mark.parametrize("protocol", [OpenAIChat, OpenAIResponses])
async def test_the_choices_on_the_wire(protocol: Any) -> None:
    script = [Answer(tool_calls=[tool_call("look")]), Answer(tool_calls=[tool_call("look")]), "The answer."]
    async with ModelServer(script) as server:
        model = protocol(id="m", base_url=server.base_url, api_key="k")
        agent = Agent(model=model, tools=[look], tool_choice="required", tool_call_limit=2)
        assert (await agent.arun("x")).content == "The answer."
        bodies = [request.body for request in server.requests]
    assert [body["tool_choice"] for body in bodies] == ["required", "auto", "none"]
    assert all(body["tools"] for body in bodies)


def stubborn(request: ModelRequest) -> ModelResponse:
    return ModelResponse.of(None, tool_call(request.tools[0].name if request.tools else "look"))


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_used_up_limit_is_one_more_request_in_which_nothing_may_be_called(limit: int) -> None:
    model = FunctionModel(stubborn)
    with pytest.raises(UsageLimitExceeded, match=f"limit of {counted(limit, 'tool calls')}") as caught:
        await Agent(model=model, tools=[look], tool_call_limit=limit).arun("x")
    assert [request.tool_choice for request in model.requests] == [None] * limit + ["none"]
    assert all(request.tools for request in model.requests)
    assert len(caught.value.run_output.tools) == limit


async def test_a_model_without_the_choice_none_is_sent_no_tools() -> None:
    model = ScriptedModel([tool_call("look"), "The answer."])
    model.has_choice_none = False
    assert (await Agent(model=model, tools=[look], tool_call_limit=1).arun("x")).content == "The answer."
    assert [(bool(request.tools), request.tool_choice) for request in model.requests] == [
        (True, None),
        (False, None),
    ]


async def test_calls_of_one_turn_beyond_the_limit_are_not_made() -> None:
    model = ScriptedModel([ModelResponse.of(None, *(tool_call("look") for _ in range(3))), "The answer."])
    output = await Agent(model=model, tools=[look], tool_call_limit=2).arun("x")
    assert [execution.result for execution in output.tools][:2] == ["seen", "seen"]
    assert "limit of 2 tool calls" in (output.tools[2].result or "")
    assert output.content == "The answer."


class Found(pydantic.BaseModel):
    tables: list[str]


async def test_the_tool_that_answers_counts_towards_no_limit() -> None:
    model = ScriptedModel([tool_call("look"), tool_call("final_answer", tables=["t1"])])
    model.structured_output = "tool"
    output = await Agent(model=model, tools=[look], tool_call_limit=1, output_schema=Found).arun("x")
    assert output.content == Found(tables=["t1"])
    assert [request.tool_choice for request in model.requests] == [None, {"name": "final_answer"}]


async def test_a_run_makes_two_hundred_requests_at_most() -> None:
    model = FunctionModel(stubborn)
    with pytest.raises(UsageLimitExceeded, match=r"200 requests of one run \(max_requests\)"):
        await Agent(model=model, tools=[look]).arun("x")
    assert len(model.requests) == 200


async def test_max_requests_of_none_lifts_it() -> None:
    def play(request: ModelRequest) -> ModelResponse | str:
        return stubborn(request) if len(request.messages) < 420 else "The answer."

    agent = Agent(model=FunctionModel(play), tools=[look], max_requests=None)
    output = await agent.arun("x")
    assert output.content == "The answer."
    assert output.metrics.requests > 200


async def test_a_member_s_run_counts_its_own_requests() -> None:
    def lead(request: ModelRequest) -> ModelResponse | str:
        said = request.messages[-1]
        if said.role == "tool":
            return said.content or ""
        return ModelResponse.of(None, tool_call("delegate_task_to_member", member_id="m", task="x"))

    member = FunctionModel(stubborn)
    team = Team(
        [Agent(name="m", model=member, tools=[look], max_requests=5)],
        model=FunctionModel(lead),
        max_requests=2,
    )
    output = await team.arun("x")
    assert "limit of 5 requests of one run (max_requests)" in str(output.content)
    assert len(member.requests) == 5


async def test_requests_before_a_pause_count() -> None:
    model = ScriptedModel([tool_call("look"), tool_call("wipe"), "one too many"])
    agent = Agent(model=model, tools=[look, wipe], max_requests=2)
    paused = await agent.arun("x")
    paused.requirements[0].confirm()
    with pytest.raises(UsageLimitExceeded, match="max_requests"):
        await agent.acontinue_run(paused)


async def test_requests_that_failed_count() -> None:
    from kern.errors import ModelServerError

    down = ModelServerError("down", status=500, provider="test", model="m")
    agent = Agent(model=ScriptedModel([down] * 3), retries=9, delay_between_retries=0.0, max_requests=3)
    with pytest.raises(UsageLimitExceeded, match="max_requests"):
        await agent.arun("x")


def test_a_bound_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="max_requests must be a whole number"):
        Agent(max_requests=-1)
