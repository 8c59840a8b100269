"""NaN and the infinities: JSON has none, so what Kern calls JSON has none, wherever they come from."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from kern import Agent, RunContext, Team, UsageError, tool
from kern.messages import ToolCall
from kern.models import ModelResponse
from kern.run import RunOutput
from kern.run.output import output_from_dict
from kern.run.requirement import UserInputError
from kern.testing import ScriptedModel, tool_call
from tests.databases import opened

SCHEMA = {"type": "object", "title": "T", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WORDS = ["NaN", "Infinity", "-Infinity", "1e999"]


class Stats(BaseModel):
    mean: float


class Loud(BaseModel):
    """As a user may have told pydantic to write it."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    mean: float


def strictly(text: str) -> Any:
    """As every parser but Python's reads it."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


async def heard(agent: Agent | Team) -> RunOutput:
    """The output of a run, all of whose events, and itself, are JSON as text and as dicts."""
    output: Any = None
    async with agent.arun("Go", stream=True, stream_events=True, yield_run_output=True) as items:
        async for item in items:
            strictly(item.to_json())
            json.dumps(item.to_dict(), allow_nan=False)
            output = item
    assert output_from_dict(output.to_dict()).run_id == output.run_id
    result: RunOutput = output
    return result


@pytest.mark.parametrize("schema", [SCHEMA, {"type": "object", "properties": {}}, Stats])
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("around", ["{}", "Here you are: {}", "```json\n{}\n```"])
async def test_a_structured_answer_goes_back_to_the_model(schema: Any, word: str, around: str) -> None:
    bad = around.format(f'{{"n": {word}, "mean": {word}}}')
    model = ScriptedModel([bad, '{"n": 5, "mean": 1.5}'])
    output = await heard(Agent(model=model, output_schema=schema))
    told = model.requests[1].messages[-1].content
    assert told is not None
    assert "is not a JSON number" in told
    assert ("NaN" if word == "NaN" else "Infinity") in told
    assert output.content in ({"n": 5, "mean": 1.5}, Stats(mean=1.5))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400, 1e308])
async def test_no_number_that_a_person_puts_in_ends_the_run_with_an_error_of_python_s(number: float) -> None:
    @tool(user_input_fields=["n"])
    def pay(n: int) -> str:
        return "paid"

    agent = Agent(model=ScriptedModel([tool_call("pay"), "done"]), tools=[pay])
    output = await agent.arun("Pay")
    with suppress(UsageError):  # the person can put it right; or it fits
        output.requirements[0].provide_user_input({"n": number})
        await agent.acontinue_run(output)
    json.dumps(output.requirements[0].to_dict(), allow_nan=False)


@pytest.mark.parametrize("word", WORDS)
async def test_a_tool_s_arguments_are_refused_and_told_as_null(word: str, place: str) -> None:
    called: list[float] = []

    def divide(by: float = 1.0) -> str:
        called.append(by)
        return "divided"

    model = ScriptedModel([ToolCall("c", "divide", f'{{"by": {word}}}'), "done"])
    output = await heard(Agent(model=model, tools=[divide], db=opened(place), session_id="s"))
    assert called == []
    assert output.tools[0].tool_call_error
    assert "/by" in (output.tools[0].result or "")
    assert output.tools[0].to_dict()["tool_args"] == {"by": None}
    (row,) = await opened(place).load_runs("s")
    from_json(row.data, allow_inf_nan=False)


@pytest.mark.parametrize(
    "value", [{"a": math.nan}, [math.inf, (-math.inf,)], Stats(mean=math.nan), Loud(mean=math.inf)]
)
async def test_what_a_tool_returns_is_told_with_null(value: Any) -> None:
    def stats() -> Any:
        return value

    model = ScriptedModel([tool_call("stats"), "done"])
    output = await heard(Agent(model=model, tools=[stats]))
    assert "null" in (output.tools[0].result or "")
    strictly(output.tools[0].result or "")


@pytest.mark.parametrize("value", [math.nan, Loud(mean=math.inf), {"a": [math.inf]}, Stats(mean=math.nan)])
async def test_so_is_what_a_hook_makes_the_answer(value: Any) -> None:
    def exaggerate(run_output: RunOutput) -> None:
        run_output.content = value

    output = await heard(Agent(model=ScriptedModel(["fine"]), post_hooks=[exaggerate]))
    assert "null" in output.get_content_as_string()


async def test_so_is_what_the_application_gives() -> None:
    model = ScriptedModel(["fine"])
    agent = Agent(
        model=model,
        instructions="You know {numbers}.",
        dependencies={"numbers": [math.nan]},
        add_dependencies_to_context=True,
        metadata={"n": math.inf},
    )
    output = await agent.arun({"n": math.nan})
    strictly(output.to_json())
    system, user = model.requests[0].messages
    assert system.content == "You know [null]."
    assert user.content is not None
    assert user.content.startswith('{"n": null}')
    assert "NaN" not in user.content


async def test_a_text_with_the_word_is_left_alone() -> None:
    text = 'NaN, "Infinity" and \\ -Infinity'
    output = await heard(Agent(model=ScriptedModel([text])))
    assert output.content == text
    assert strictly(output.to_json())["content"] == text


async def test_a_member_is_told_null() -> None:
    call = ToolCall("c", "delegate_task_to_member", '{"member_id": "m", "task": NaN}')
    team = Team([Agent(id="m", model=ScriptedModel(["x"]))], model=ScriptedModel([call, "done"]))
    output = await heard(team)
    assert output.tools[0].tool_call_error


def test_a_row_of_an_earlier_version_that_holds_one_is_shown_with_null() -> None:
    row = '{"run_id": "r", "session_id": "s", "status": "COMPLETED", "created_at": 1, "content": {"a": NaN}}'
    assert output_from_dict(json.loads(row)).to_dict()["content"] == {"a": None}


async def test_the_state_refuses_one_as_before() -> None:
    def spoil(run_context: RunContext) -> str:
        run_context.session_state["x"] = math.nan
        return "put"

    output = await heard(Agent(model=ScriptedModel([tool_call("spoil"), "ok"]), tools=[spoil]))
    assert "not JSON" in (output.tools[0].result or "") or output.tools[0].tool_call_error


class Nested(BaseModel):
    stats: Stats
    note: str = ""


@pytest.mark.parametrize("word", ["NaN", "nan", "-inf", "Infinity", " 1e999 ", "9" * 400, "N\\u0061N"])
async def test_a_number_of_an_argument_is_none_in_any_spelling(word: str) -> None:
    called = []

    def refund(amount: float) -> str:
        called.append(amount)
        return "refunded"

    def report(nested: Nested) -> str:
        called.append(nested.stats.mean)
        return "reported"

    calls = [
        ToolCall("a", "refund", f'{{"amount": "{word}"}}'),
        ToolCall("b", "report", f'{{"nested": {{"stats": {{"mean": "{word}"}}}}}}'),
    ]
    model = ScriptedModel([ModelResponse.of(None, *calls), "done"])
    output = await Agent(model=model, tools=[refund, report]).arun("Go")
    assert called == []
    for call, place in zip(output.tools, ["/amount", "/nested/stats/mean"], strict=True):
        assert call.tool_call_error
        assert f"{place}: " in (call.result or "")
        assert "is not a number in JSON" in (call.result or "")


async def test_a_word_that_is_no_number_is_a_text() -> None:
    seen = []

    def note(text: str, amount: float) -> str:
        seen.append((text, amount))
        return "noted"

    model = ScriptedModel([tool_call("note", text="NaN", amount="1.5"), "done"])
    await Agent(model=model, tools=[note]).arun("Go")
    assert seen == [("NaN", 1.5)]
    agent = Agent(model=ScriptedModel(['{"stats": {"mean": 1}, "note": "inf"}']), output_schema=Nested)
    assert (await agent.arun("Go")).content == Nested(stats=Stats(mean=1), note="inf")


@pytest.mark.parametrize("schema", [Stats, Nested, float])
@pytest.mark.parametrize("word", ['"NaN"', '"Infinity"', '"1e999"'])
async def test_an_answer_with_such_a_number_is_sent_back_in_any_spelling(schema: Any, word: str) -> None:
    forms = {Stats: '{"mean": %s}', Nested: '{"stats": {"mean": %s}}', float: "%s"}
    model = ScriptedModel([forms[schema] % word, forms[schema] % "1.5"])
    output = await Agent(model=model, output_schema=schema).arun("Go")
    assert len(model.requests) == 2
    assert "is not a JSON number" in (model.requests[1].messages[-1].content or "")
    assert math.isfinite(
        output.content if schema is float else getattr(output.content, "stats", output.content).mean
    )


async def test_a_value_of_a_person_with_such_a_number_is_refused() -> None:
    @tool(user_input_fields=["amount"])
    def pay(amount: float) -> str:
        return f"paid {amount}"

    agent = Agent(model=ScriptedModel([tool_call("pay"), "done"]), tools=[pay])
    output = await agent.arun("Go")
    output.requirements[0].provide_user_input({"amount": "NaN"})
    with pytest.raises(UserInputError):
        await agent.acontinue_run(output)
