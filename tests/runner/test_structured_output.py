"""Structured answers: by the provider, by a tool, in words; sent back when wrong, never taken as they are."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel

from kern import Agent, RunStatus, Team, UsageError, tool
from kern.errors import ModelAuthError, ModelBehaviorError, ModelConnectionError, UsageLimitExceeded
from kern.messages import ToolCall
from kern.models.base import Model, ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.events import (
    BaseRunEvent,
    RunCompletedEvent,
    RunContentEvent,
    RunIntermediateContentEvent,
    event_from_dict,
)
from kern.run.output import RunOutput
from kern.testing import Answer, ModelServer, ScriptedModel, no_leaks, tool_call
from kern.tools.schema import strict_schema
from kern.usage import UsageLimits


class Movie(BaseModel):
    title: str
    year: int = Field(ge=1888)
    genre: Literal["drama", "comedy"] = "drama"


GOOD = '{"title": "Stalker", "year": 1979, "genre": "drama"}'
STALKER = Movie(title="Stalker", year=1979)
AS_DICT = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "year": {"type": "integer", "minimum": 1888}},
    "required": ["title", "year"],
    "additionalProperties": False,
}

Way = Literal["native", "tool", "none"]
WAYS: list[Way] = ["native", "tool", "none"]


class OneWay(ScriptedModel):
    """A model whose provider enforces a schema, or that calls tools well, or neither."""

    def __init__(self, way: Way, answers: list[Any]) -> None:
        super().__init__(answers)
        self.structured_output = way


def said(way: Way, text: str) -> Any:
    """How a model of that way says it."""
    return ToolCall("call_1", "final_answer", text) if way == "tool" else text


# The three ways


@pytest.mark.parametrize("way", WAYS)
async def test_the_content_is_an_instance_of_the_class(way: Way) -> None:
    model = OneWay(way, [said(way, GOOD)])
    output = await Agent(model=model, output_schema=Movie).arun("a film")
    assert output.status is RunStatus.completed
    assert output.content == STALKER
    assert type(output.content) is Movie
    assert output.content_type == "Movie"
    model.assert_exhausted()


@pytest.mark.parametrize("way", WAYS)
async def test_a_json_schema_gives_a_dict(way: Way) -> None:
    model = OneWay(way, [said(way, '{"title": "Stalker", "year": 1979}')])
    output = await Agent(model=model, output_schema=AS_DICT).arun("a film")
    assert output.content == {"title": "Stalker", "year": 1979}
    assert output.content_type == "dict"


async def test_a_provider_that_enforces_schemas_is_given_it() -> None:
    model = OneWay("native", [GOOD])
    await Agent(model=model, output_schema=Movie, description="a critic").arun("a film")
    (request,) = model.requests
    assert request.response_format is not None
    assert (request.response_format.name, request.response_format.strict) == ("Movie", True)
    assert request.response_format.schema == strict_schema(Movie.model_json_schema())
    assert "schema" not in (request.messages[0].content or "")
    assert not request.tools


async def test_what_the_strict_dialect_cannot_say_is_asked_for_without_it() -> None:
    class Open(BaseModel):
        counts: dict[str, int]

    model = OneWay("native", ['{"counts": {"a": 1}}'])
    output = await Agent(model=model, output_schema=Open).arun("count")
    response_format = model.requests[0].response_format
    assert response_format is not None
    assert not response_format.strict
    assert response_format.schema == Open.model_json_schema()
    assert output.content == Open(counts={"a": 1})


async def test_a_model_that_calls_tools_is_given_one_for_the_answer() -> None:
    def look_up() -> str:
        return "1979"

    model = OneWay("tool", [tool_call("look_up"), said("tool", GOOD)])
    output = await Agent(model=model, output_schema=Movie, tools=[look_up]).arun("a film")
    assert [definition.name for definition in model.requests[0].tools] == ["look_up", "final_answer"]
    assert model.requests[0].response_format is None
    assert "final_answer" in (model.requests[0].messages[0].content or "")
    assert output.content == STALKER


@pytest.mark.parametrize("json_mode", [True, False])
async def test_a_model_that_can_do_neither_is_told_in_words(json_mode: bool) -> None:
    model = OneWay("native" if json_mode else "none", [GOOD])
    agent = Agent(model=model, output_schema=Movie, use_json_mode=json_mode, description="a critic")
    assert (await agent.arun("a film")).content == STALKER
    (request,) = model.requests
    system = request.messages[0].content or ""
    assert system.startswith("a critic\n\n<output_schema>")
    assert json.dumps(Movie.model_json_schema()) in system
    assert request.response_format is None


async def test_a_fallback_that_cannot_enforce_the_schema_is_reckoned_with() -> None:
    model = OneWay("native", [GOOD])
    agent = Agent(model=model, output_schema=Movie, fallback_models=[OneWay("none", [])])
    await agent.arun("a film")
    assert model.requests[0].response_format is None
    assert "<output_schema>" in (model.requests[0].messages[0].content or "")


async def test_a_root_that_is_no_object_stands_in_one() -> None:
    class Titles(RootModel[list[str]]):
        pass

    model = OneWay("native", ['{"value": ["Stalker", "Solaris"]}'])
    output = await Agent(model=model, output_schema=Titles).arun("films")
    assert output.content == Titles(["Stalker", "Solaris"])
    assert model.requests[0].response_format is not None
    assert model.requests[0].response_format.schema["required"] == ["value"]


async def test_a_recursive_class_and_a_wrapped_schema() -> None:
    class Tree(BaseModel):
        name: str
        children: list[Tree] = []

    model = OneWay("native", ['{"name": "a", "children": [{"name": "b", "children": []}]}'])
    output = await Agent(model=model, output_schema=Tree).arun("a tree")
    assert output.content == Tree(name="a", children=[Tree(name="b")])
    wrapped = {"type": "json_schema", "json_schema": {"name": "film", "schema": AS_DICT}}
    model = OneWay("native", ['{"title": "Stalker", "year": 1979}'])
    await Agent(model=model, output_schema=wrapped).arun("a film")
    assert model.requests[0].response_format is not None
    assert model.requests[0].response_format.name == "film"


async def test_nulls_of_the_strict_dialect_stand_for_defaults_where_null_is_no_value() -> None:
    class Options(BaseModel):
        size: int = 5
        note: str | None = "none given"

    model = OneWay("native", ['{"size": null, "note": null}'])
    assert (await Agent(model=model, output_schema=Options).arun("x")).content == Options(note=None)
    in_words = OneWay("none", ['{"size": 1, "note": null}'])
    assert (await Agent(model=in_words, output_schema=Options).arun("x")).content == Options(
        size=1, note=None
    )


@pytest.mark.parametrize("protocol", ["responses", "chat"])
async def test_the_schema_reaches_the_provider(protocol: str) -> None:
    async with ModelServer([GOOD]) as server:
        make = OpenAIResponses if protocol == "responses" else OpenAIChat
        model = make(id="test", base_url=server.base_url, api_key="test")
        output = await Agent(model=model, output_schema=Movie).arun("a film")
        assert output.content == STALKER
        body: Any = server.requests[0].body
        sent = body["text"]["format"] if protocol == "responses" else body["response_format"]["json_schema"]
        assert (sent["name"], sent["strict"]) == ("Movie", True)
        assert sent["schema"]["required"] == ["title", "year", "genre"]


# Reading JSON out of what a model wrote


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"Here you are:\n```\n{GOOD}\n```\nEnjoy!",
        f"The film is {GOOD}, I think.",
        f"Not {{this}} nor [that] but {GOOD}",
        f'First {{"title": 1}}, no: {GOOD}',
        GOOD.replace("1979", '"1979"'),
    ],
)
async def test_json_is_found_amid_other_words(text: str) -> None:
    model = OneWay("none", [text])
    assert (await Agent(model=model, output_schema=Movie).arun("a film")).content == STALKER


# Wrong answers


WRONG = [
    ("no JSON at all", "That is not JSON."),
    ('{"title": "Stalker"}', "/year: Field required"),
    ('{"title": "Stalker", "year": 1879}', "/year: Input should be greater than or equal to 1888"),
    ('{"title": "Stalker", "year": 1979, "genre": "western"}', "/genre: Input should be 'drama' or 'comedy'"),
    ('{"title": "Stalker", "year": 19', "That is not JSON."),
    ("[]", "Input should be an object"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("wrong", "complaint"), WRONG)
async def test_a_wrong_answer_is_sent_back_with_the_error(way: Way, wrong: str, complaint: str) -> None:
    model = OneWay(way, [said(way, wrong), said(way, GOOD)])
    output = await Agent(model=model, output_schema=Movie).arun("a film")
    assert output.content == STALKER
    last = model.requests[1].messages[-1]
    assert last.role == ("tool" if way == "tool" else "user")
    assert complaint in (last.content or "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("declared", [Movie, AS_DICT])
async def test_wrong_answers_without_end_fail_the_run(way: Way, declared: Any) -> None:
    model = OneWay(way, [said(way, '{"title": "Stalker"}') for _ in range(4)])
    with pytest.raises(
        ModelBehaviorError, match="has asked the model to try again 3 times, without success:"
    ) as caught:
        await Agent(model=model, output_schema=declared).arun("a film")
    model.assert_exhausted()
    output = caught.value.run_output
    assert (output.status, output.content) == (RunStatus.error, None)


async def test_words_instead_of_the_tool_are_read_or_sent_back() -> None:
    model = OneWay("tool", ["it is Stalker", f"I mean {GOOD}"])
    assert (await Agent(model=model, output_schema=Movie).arun("a film")).content == STALKER


async def test_what_a_tool_ends_the_run_with_has_to_fit_as_well() -> None:
    @tool(stop_after_tool_call=True)
    def look_up(good: bool) -> str:
        return GOOD if good else "no idea"

    def agent(good: bool) -> Agent:
        model = OneWay("native", [tool_call("look_up", good=good)])
        return Agent(model=model, output_schema=Movie, tools=[look_up])

    assert (await agent(True).arun("a film")).content == STALKER
    with pytest.raises(ModelBehaviorError, match="ended with an answer that does not fit"):
        await agent(False).arun("a film")


# Where the schema comes from


async def test_a_schema_of_one_run_does_not_stick() -> None:
    model = OneWay("native", [GOOD, "just words"])
    agent = Agent(model=model)
    assert (await agent.arun("a film", output_schema=Movie)).content == STALKER
    assert (await agent.arun("a film")).content == "just words"
    assert [request.response_format is None for request in model.requests] == [False, True]
    assert agent.output_schema is None


async def test_a_run_s_schema_goes_before_the_agent_s() -> None:
    agent = Agent(model=OneWay("native", ['{"title": "Stalker", "year": 1979}']), output_schema=Movie)
    assert (await agent.arun("a film", output_schema=AS_DICT)).content_type == "dict"


async def test_parallel_runs_with_different_schemas_do_not_mix() -> None:
    class Book(BaseModel):
        pages: int

    class Either(Model):
        id, provider, structured_output = "either", "test", "native"

        async def respond(self, request: ModelRequest, sink: Any) -> ModelResponse:
            await asyncio.sleep(0)
            assert request.response_format is not None
            return ModelResponse.of(GOOD if request.response_format.name == "Movie" else '{"pages": 3}')

    agent = Agent(model=Either())
    runs = [
        agent.arun("x", output_schema=schema, session_id=str(number))
        for number, schema in enumerate([Movie, Book] * 4)
    ]
    assert [output.content for output in await asyncio.gather(*runs)] == [STALKER, Book(pages=3)] * 4


@pytest.mark.parametrize("nonsense", ["Movie", {"title": "str"}, 7, {"type": "json_schema"}])
async def test_what_is_no_schema_is_refused_at_once(nonsense: Any) -> None:
    model = ScriptedModel([])
    with pytest.raises(UsageError, match="output_schema"):
        await Agent(model=model, output_schema=nonsense).arun("x")
    assert model.requests == []


async def test_a_tool_may_not_have_the_name_of_the_answer_s() -> None:
    def final_answer() -> None: ...

    with pytest.raises(UsageError, match="adds a tool named 'final_answer'"):
        await Agent(model=OneWay("tool", []), output_schema=Movie, tools=[final_answer]).arun("x")


# Teams


async def test_a_member_s_structured_answer_reaches_the_leader_as_json() -> None:
    critic = Agent(name="critic", model=ScriptedModel([GOOD]), output_schema=Movie)
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="critic", task="a film"), "done"])
    output = await Team(members=[critic], model=leader).arun("a film")
    assert output.tools[0].result == '{"title":"Stalker","year":1979,"genre":"drama"}'
    assert output.member_responses[0].content == STALKER


@pytest.mark.parametrize("way", WAYS)
async def test_a_team_s_answer_is_structured_too(way: Way) -> None:
    critic = Agent(name="critic", model=ScriptedModel(["Stalker, 1979"]))
    leader = OneWay(
        way,
        [
            tool_call("delegate_task_to_member", member_id="critic", task="a film"),
            said(way, "dunno"),
            said(way, GOOD),
        ],
    )
    output = await Team(members=[critic], model=leader, output_schema=Movie).arun("a film")
    assert (output.content, output.content_type) == (STALKER, "Movie")
    assert output.member_responses[0].content == "Stalker, 1979"


async def test_a_routed_answer_is_the_team_s_if_it_fits() -> None:
    async def routed(answer: str, schema: Any) -> Any:
        critic = Agent(name="critic", model=ScriptedModel([answer]), output_schema=schema)
        leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="critic", task="x")])
        team = Team(members=[critic], mode="route", model=leader, output_schema=Movie)
        return (await team.arun("a film")).content

    assert await routed(GOOD, Movie) == STALKER
    assert await routed(GOOD, None) == STALKER
    with pytest.raises(ModelBehaviorError, match="does not fit output_schema"):
        await routed("dunno", None)


# Streaming


async def content_of(agent: Agent, **options: Any) -> list[BaseRunEvent]:
    async with no_leaks():
        return [event async for event in agent.arun("a film", stream=True, **options)]


@pytest.mark.parametrize("way", WAYS)
async def test_raw_json_is_never_streamed_as_text(way: Way) -> None:
    agent = Agent(model=OneWay(way, [said(way, "nonsense"), said(way, GOOD)]), output_schema=Movie)
    events = await content_of(agent, stream_events=True)
    contents = [event for event in events if isinstance(event, RunContentEvent)]
    assert not [event for event in contents if isinstance(event.content, str)]
    assert contents[-1].content == STALKER
    assert contents[-1].content_type == "Movie"
    (completed,) = [event for event in events if isinstance(event, RunCompletedEvent)]
    assert completed.content == STALKER
    for event in events:
        again = event_from_dict(json.loads(event.to_json()))
        assert again.to_dict() == event.to_dict()


LONG = json.dumps({"title": "A " * 400 + "film", "year": 1979, "genre": "comedy"})


@pytest.mark.parametrize("stream_events", [True, False])
async def test_what_is_there_of_the_value_is_streamed_and_grows(stream_events: bool) -> None:
    agent = Agent(model=ScriptedModel([LONG]), output_schema=Movie)
    events = await content_of(agent, stream_events=stream_events)
    contents = [event.content for event in events if isinstance(event, RunContentEvent)]
    *partial, whole = contents
    assert whole == Movie.model_validate_json(LONG)
    assert len(partial) > 3
    assert all(isinstance(value, dict) for value in partial)
    titles = [value["title"] for value in partial]
    assert all(whole.title.startswith(title) for title in titles)
    assert [len(title) for title in titles] == sorted({len(title) for title in titles})
    assert len(partial) < len(LONG.split()) / 4, "one for each delta is too many"


async def test_what_does_not_fit_is_not_shown_while_it_is_written() -> None:
    wrong = json.dumps({"year": 1500, "title": "x " * 200})
    agent = Agent(model=ScriptedModel([wrong, LONG]), output_schema=Movie)
    contents = [event.content for event in await content_of(agent) if isinstance(event, RunContentEvent)]
    shown = [content for content in contents if isinstance(content, dict)]
    assert not [
        content for content in shown if content.keys() == {"year", "title"} and content["year"] == 1500
    ]
    assert shown, "the second answer fits, and grows"
    assert contents[-1].year == 1979


async def test_the_pace_of_partial_values_is_that_of_the_network() -> None:
    whole = json.dumps({"items": [f"item number {number}" for number in range(60)]})

    class Items(BaseModel):
        items: list[str]

    async def events(split: Callable[[bytes], Any]) -> list[Any]:
        async with ModelServer([Answer(whole, pieces=list(whole), split=split)]) as server:
            model = OpenAIChat(id="test", base_url=server.base_url, api_key="test")
            agent = Agent(model=model, output_schema=Items)
            return [event async for event in agent.arun("x", stream=True)]

    at_once = await events(lambda body: [body])
    assert at_once[-1].content == Items.model_validate_json(whole)
    assert len(at_once) < 60, "there were over a thousand deltas, in a few reads"


# parser_model, output_model


async def test_a_parser_model_shapes_the_free_text_of_the_model() -> None:
    model, parser = ScriptedModel(["It is Stalker, of 1979."]), ScriptedModel([GOOD])
    agent = Agent(model=model, parser_model=parser, output_schema=Movie, description="a critic")
    events = await content_of(agent, stream_events=True)
    texts = [event.content for event in events if isinstance(event, RunIntermediateContentEvent)]
    assert "".join(texts) == "It is Stalker, of 1979."
    assert [event.content for event in events if isinstance(event, RunContentEvent)][-1] == STALKER
    assert model.requests[0].response_format is None
    (request,) = parser.requests
    assert request.response_format is not None
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[1].content == "It is Stalker, of 1979."
    assert not request.tools


async def test_a_parser_model_is_sent_back_and_may_fail() -> None:
    parser = OneWay("none", ["?", GOOD])
    agent = Agent(model=ScriptedModel(["Stalker"]), parser_model=parser, output_schema=Movie)
    output = await agent.arun("a film")
    assert output.content == STALKER
    assert output.metrics.requests == 3
    assert [message.content for message in output.messages if message.role == "assistant"] == ["Stalker"]
    hopeless = Agent(
        model=ScriptedModel(["Stalker"]), parser_model=ScriptedModel(["?"] * 4), output_schema=Movie
    )
    with pytest.raises(ModelBehaviorError):
        await hopeless.arun("a film")


async def test_requests_of_parser_and_output_model_are_made_again_and_counted() -> None:
    broken = ModelConnectionError("no connection", provider="scripted", model="m")
    refused = ModelAuthError("wrong key", status=401, provider="scripted", model="m")
    writer, parser = ScriptedModel([broken, "Stalker of 1979"]), ScriptedModel([broken, refused])
    other = ScriptedModel([GOOD], id="other")
    agent = Agent(
        model=ScriptedModel(["draft"]),
        output_model=writer,
        parser_model=parser,
        output_schema=Movie,
        retries=1,
        delay_between_retries=0.0,
        fallback_models=[other],
    )
    output = await agent.arun("a film")
    assert output.content == STALKER
    assert output.model == "other"
    assert output.metrics.requests == 3
    for model in (writer, parser, other):
        model.assert_exhausted()


async def test_requests_of_a_parser_model_are_limited_as_the_model_s_own_are() -> None:
    parser = ScriptedModel([GOOD])
    agent = Agent(model=ScriptedModel(["Stalker"]), parser_model=parser, output_schema=Movie)
    with pytest.raises(UsageLimitExceeded):
        await agent.arun("a film", usage_limits=UsageLimits(requests=1))
    assert parser.requests == []


async def test_a_fallback_that_enforces_no_schema_is_told_of_it_in_words() -> None:
    refused = ModelAuthError("wrong key", status=401, provider="scripted", model="m")
    other = OneWay("none", [GOOD])
    agent = Agent(
        model=ScriptedModel(["Stalker"]),
        parser_model=ScriptedModel([refused]),
        output_schema=Movie,
        fallback_models=[other],
    )
    assert (await agent.arun("a film")).content == STALKER
    (request,) = other.requests
    assert "output_schema" in (request.messages[0].content or "")


async def test_a_parser_model_without_a_schema_is_refused() -> None:
    with pytest.raises(UsageError, match="parser_model has no effect without an output_schema"):
        await Agent(model=ScriptedModel([]), parser_model=ScriptedModel([])).arun("x")


async def test_an_output_model_writes_the_answer_from_the_conversation() -> None:
    def look_up() -> str:
        return "1979"

    model = ScriptedModel([tool_call("look_up"), "draft: 1979"])
    writer = ScriptedModel(["Stalker came out in 1979."])
    agent = Agent(model=model, output_model=writer, tools=[look_up], description="a critic")
    events = await content_of(agent, stream_events=True)
    assert "".join(e.content for e in events if isinstance(e, RunContentEvent)) == "Stalker came out in 1979."
    aside = "".join(e.content for e in events if isinstance(e, RunIntermediateContentEvent))
    assert aside == "draft: 1979"
    (request,) = writer.requests
    roles = [message.role for message in request.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert not request.tools
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert stored.content == "Stalker came out in 1979."
    assert stored.messages[-1].content == "Stalker came out in 1979."


async def test_an_output_model_may_give_the_structured_answer() -> None:
    writer = OneWay("none", ["wrong", GOOD])
    agent = Agent(model=ScriptedModel(["draft"]), output_model=writer, output_schema=Movie)
    assert (await agent.arun("a film")).content == STALKER


async def test_output_model_and_parser_model_work_one_after_the_other() -> None:
    writer, parser = ScriptedModel(["Stalker of 1979"]), ScriptedModel([GOOD])
    agent = Agent(
        model=ScriptedModel(["draft"]), output_model=writer, parser_model=parser, output_schema=Movie
    )
    assert (await agent.arun("a film")).content == STALKER
    assert parser.requests[0].messages[1].content == "Stalker of 1979"


# What is kept


async def test_the_row_holds_the_value_as_json() -> None:
    class Dated(BaseModel):
        when: dt.date = Field(alias="day")

    agent = Agent(model=ScriptedModel(['{"day": "2026-11-22"}']), output_schema=Dated)
    output = await agent.arun("when")
    assert output.content == Dated(day=dt.date(2026, 11, 22))
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert (stored.content, stored.content_type) == ({"day": "2026-11-22"}, "Dated")
    assert RunOutput.from_dict(output.to_dict()).content == {"day": "2026-11-22"}


async def test_the_summary_of_a_session_is_no_structured_answer() -> None:
    model = OneWay("native", [GOOD, "They spoke of a film."])
    agent = Agent(model=model, output_schema=Movie, enable_session_summaries=True)
    assert (await agent.arun("a film")).content == STALKER
    assert model.requests[0].response_format is not None
    assert model.requests[1].response_format is None


async def test_a_paused_run_goes_on_to_a_structured_answer() -> None:
    @tool(requires_confirmation=True)
    def look_up() -> str:
        return "1979"

    for of_agent, of_run in ((Movie, None), (None, Movie)):
        model = OneWay("native", [tool_call("look_up"), GOOD])
        agent = Agent(model=model, tools=[look_up], output_schema=of_agent)
        paused = await agent.arun("a film", output_schema=of_run)
        assert paused.status is RunStatus.paused
        assert paused.requirements
        paused.requirements[0].confirm()
        output = await agent.acontinue_run(paused, output_schema=of_run)
        assert output.content == STALKER
