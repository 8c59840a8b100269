"""`output_schema` takes what pydantic's `TypeAdapter` takes; the content is a value that fits, or None."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypeAliasType, TypedDict

from kern import Agent, RunOutput, RunStatus, Team, UsageError, tool
from kern.errors import HookError, ModelBehaviorError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunCompletedEvent
from kern.testing import ScriptedModel, tool_call


class Cat(BaseModel):
    lives: int


class Dog(BaseModel):
    tricks: list[str]


@dataclasses.dataclass
class Place:
    name: str
    floor: int = 0


class Song(TypedDict):
    title: str


CASES: list[tuple[Any, Any, Any, str]] = [
    (int, 3, 3, "int"),
    (bool, False, False, "bool"),
    (list[Cat], [{"lives": 9}], [Cat(lives=9)], "list[Cat]"),
    (Cat | Dog, {"tricks": ["sit"]}, Dog(tricks=["sit"]), "Cat | Dog"),
    (Cat | None, None, None, "Cat | None"),
    (dict[str, int], {"a": 1}, {"a": 1}, "dict[str, int]"),
    (Literal["yes", "no"], "no", "no", "Literal['yes', 'no']"),
    (Annotated[int, Field(ge=1)], 5, 5, "Annotated"),
    (Place, {"name": "Hall"}, Place("Hall"), "Place"),
    (Song, {"title": "Hey"}, Song(title="Hey"), "Song"),
    (RootModel[list[int]], [1, 2], RootModel[list[int]]([1, 2]), "RootModel[list[int]]"),
    (Any, {"a": [1]}, {"a": [1]}, "Any"),
    (TypeAliasType("Ids", list[int]), [1, 2], [1, 2], "Ids"),
    ({"type": "array", "items": {"type": "integer"}}, [1, 2], [1, 2], "dict"),
]
if sys.version_info >= (3, 12):  # what a `type` statement makes
    CASES.append((typing.TypeAliasType("Steps", list[Cat]), [{"lives": 9}], [Cat(lives=9)], "Steps"))
IDS = [case[3] for case in CASES]


class OneWay(ScriptedModel):
    """A model whose provider enforces a schema, or that calls tools well, or neither."""

    def __init__(self, way: Any, answers: list[Any]) -> None:
        super().__init__(answers)
        self.structured_output = way


def said(way: str, value: Any, *, wrapped: bool) -> Any:
    value = {"value": value} if wrapped else value
    return tool_call("final_answer", **value) if way == "tool" else json.dumps(value)


@pytest.mark.parametrize("way", ["native", "tool", "none"])
@pytest.mark.parametrize(("declared", "value", "expected", "name"), CASES, ids=IDS)
async def test_the_content_is_a_value_of_the_type(
    declared: Any, value: Any, expected: Any, name: str, way: str
) -> None:
    """Providers and tools take objects only: another value stands in one."""
    wrapped = declared not in (Place, Song, dict[str, int])
    model = OneWay(way, [said(way, value, wrapped=wrapped)])
    output: RunOutput[Any] = await Agent[Any](model=model, output_schema=declared).arun("go")
    assert output.status is RunStatus.completed
    assert output.content == expected
    assert type(output.content) is type(expected)
    assert output.content_type.startswith(name)
    (request,) = model.requests
    if way == "native":
        assert request.response_format is not None
        assert request.response_format.schema["type"] == "object"
        assert request.response_format.name.replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize(("declared", "value", "expected", "name"), CASES, ids=IDS)
async def test_a_bare_value_will_do_where_an_object_was_asked_for(
    declared: Any, value: Any, expected: Any, name: str
) -> None:
    model = OneWay("none", [json.dumps(value)])
    assert (await Agent[Any](model=model, output_schema=declared).arun("go")).content == expected


async def test_a_wrong_value_is_sent_back_with_the_error() -> None:
    model = OneWay("native", ['{"value": [{"lives": "many"}]}', '{"value": [{"lives": 9}]}'])
    agent = Agent(model=model, output_schema=list[Cat])
    assert (await agent.arun("go")).content == [Cat(lives=9)]
    assert "/0/lives: Input should be a valid integer" in str(model.requests[1].messages[-1].content)


async def test_what_is_there_of_a_list_is_streamed_without_its_object() -> None:
    model = OneWay("native", [json.dumps({"value": [{"lives": n} for n in range(20)]})])
    agent = Agent(model=model, output_schema=list[Cat])
    shown = [event.content async for event in agent.arun("go", stream=True)]
    assert shown[-1] == [Cat(lives=n) for n in range(20)]
    assert all(isinstance(value, list) for value in shown)


async def test_the_type_str_is_plain_text() -> None:
    model = OneWay("native", ["Hello."])
    output = await Agent(model=model, output_schema=str).arun("go")
    assert (output.content, output.content_type) == ("Hello.", "str")
    assert model.requests[0].response_format is None


@pytest.mark.parametrize("declared", ["Cat", 7, Cat(lives=1), lambda: Cat, [Cat]])
def test_what_is_not_a_type_is_refused(declared: Any) -> None:
    with pytest.raises(UsageError, match="output_schema must be a type, such as a pydantic model class, or"):
        Agent(output_schema=declared)


def test_a_type_without_a_schema_is_refused() -> None:
    class Plain:
        pass

    for declared in (Plain, list[Plain]):
        with pytest.raises(UsageError, match=r"output_schema: .*Plain.* has no JSON schema"):
            Agent(output_schema=declared)


async def test_a_paused_run_goes_on_to_a_value_of_the_type() -> None:
    @tool(requires_confirmation=True)
    def look() -> str:
        """Look."""
        return "nine"

    model = OneWay("native", [tool_call("look"), '{"value": [{"lives": 9}]}'])
    agent = Agent(model=model, tools=[look], output_schema=list[Cat])
    paused = await agent.arun("go")
    assert (paused.status, paused.content) == (RunStatus.paused, None)
    paused.requirements[0].confirm()
    assert (await agent.acontinue_run(paused)).content == [Cat(lives=9)]


# A value that fits, or None


@pytest.mark.parametrize("kind", [Agent, Team])
async def test_what_a_tool_ends_the_run_with_is_the_content_only_if_it_fits(kind: Any) -> None:
    @tool(stop_after_tool_call=True)
    def look(found: str) -> str:
        """Look."""
        return found

    model = OneWay("native", [tool_call("look", found='{"lives": 9}'), tool_call("look", found="no idea")])
    options: dict[str, Any] = {"model": model, "tools": [look], "output_schema": Cat}
    runner = Agent(**options) if kind is Agent else Team([], **options)
    assert (await runner.arun("go")).content == Cat(lives=9)
    with pytest.raises(ModelBehaviorError, match="ended with an answer that does not fit") as caught:
        await runner.arun("go")
    output = caught.value.run_output
    assert output is not None
    assert (output.status, output.content) == ("ERROR", None)


async def test_a_run_that_fails_after_its_answer_has_no_content() -> None:
    def spoil() -> None:
        raise ValueError("no")

    agent = Agent(model=OneWay("native", ['{"lives": 9}']), output_schema=Cat, post_hooks=[spoil])
    with pytest.raises(HookError) as caught:
        await agent.arun("go")
    assert caught.value.run_output is not None
    assert caught.value.run_output.content is None
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert stored.content is None


class Declining(ScriptedModel):
    """A model that declines to answer."""

    async def respond(self, request: ModelRequest, sink: Any) -> ModelResponse:
        response = await super().respond(request, sink)
        return dataclasses.replace(response, finish_reason="refusal")


async def test_of_a_model_that_declines_the_content_is_none_and_its_words_are_kept() -> None:
    agent = Agent(name="Vet", model=Declining(["I would rather not."]), output_schema=Cat)
    output = await agent.arun("go")
    assert (output.status, output.content, output.content_type) == (RunStatus.completed, None, "str")
    assert output.last_turn == output.get_content_as_string() == "I would rather not."
    assert output.messages[-1].content == "I would rather not."
    assert [message.content for message in await agent.aget_chat_history()] == ["go", "I would rather not."]


async def test_a_consumer_and_a_leader_hear_that_a_model_declines() -> None:
    agent = Agent(name="Vet", model=Declining(["I would rather not."] * 2), output_schema=Cat)
    events = [event async for event in agent.arun("go", stream=True, stream_events=True)]
    assert "I would rather not." in [event.content for event in events]
    assert isinstance(events[-1], RunCompletedEvent)
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="vet", task="go")])
    routed = await Team([agent], mode="route", model=leader).arun("go")
    assert routed.content == "I would rather not."
