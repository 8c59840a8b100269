"""Both models against two other readings of the protocols: our model server, the official client's types."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import BaseModel, TypeAdapter

from kern.errors import ModelAuthError, ModelIncompleteError, ModelNotFoundError, ModelStreamError
from kern.messages import File, Image, Message
from kern.models import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.base import Model
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, Fault, ModelServer, split_randomly, tool_call
from tests.models.replay import Sink

MODELS = [OpenAIResponses, OpenAIChat]
Make = Callable[..., Model]
SCHEMA = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
ADD = ToolDefinition("add_item", "Adds an item.", SCHEMA)


class Box(BaseModel):
    item: str
    count: int = 1


def respond(model: Model, sink: Sink, *messages: Message, stream: bool = True, **more: Any) -> Any:
    return model.respond(
        ModelRequest([Message("system", "Be brief."), *messages], stream=stream, **more), sink
    )


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_with_calls_and_its_results(make: Make, stream: bool, sink: Sink) -> None:
    calls = [tool_call("add_item", item="milk"), tool_call("add_item", item="Käse\u2028😀")]
    first = Answer(
        "Adding both.", tool_calls=calls, reasoning="Two items.", interleave=True, split=split_randomly(3)
    )
    async with ModelServer([first, "All done."]) as server:
        model = make("m", base_url=server.base_url)
        ask = Message("user", "Milk and cheese")
        answer = await respond(model, sink, ask, stream=stream, tools=[ADD], tool_choice="auto")
        assert [call.arguments for call in answer.message.tool_calls] == [call.arguments for call in calls]
        assert [call.id for call in answer.message.tool_calls] == [call.id for call in calls]
        assert answer.message.content == "Adding both."
        assert answer.message.reasoning_content == "Two items."
        assert answer.usage.output_tokens > 0
        if stream:
            assert (sink.text(), sink.text("reasoning")) == ("Adding both.", "Two items.")
        results = [Message("tool", "added", tool_call_id=call.id) for call in calls]
        last = await respond(model, sink, ask, answer.message, *results, stream=stream, tools=[ADD])
        assert last.message.content == "All done."
        server.assert_exhausted()


@pytest.mark.parametrize("make", MODELS)
async def test_strict_tools_and_structured_answers_are_accepted(make: Make, sink: Sink) -> None:
    strict = ToolDefinition("box", "Boxes.", Box.model_json_schema(), strict=True)
    async with ModelServer(['{"item": "milk", "count": 2}']) as server:
        answer = await respond(
            make("m", base_url=server.base_url),
            sink,
            Message("user", "A box"),
            tools=[strict, ADD],
            response_format=ResponseFormat("Box", Box.model_json_schema()),
        )
        assert Box.model_validate_json(answer.message.content) == Box(item="milk", count=2)
        server.assert_exhausted()


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(429, retry_after=0),
        Fault.status(500),
        Fault.disconnect(),
        Fault.cut(),
        Fault.cut(clean=True),
        Fault.malformed(),
        Fault.failed(),
        Fault.error_event(),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_fault_before_anything_was_shown_is_overcome(
    make: Make, stream: bool, fault: Fault, sink: Sink
) -> None:
    async with ModelServer([Answer("Lost words.", fault=fault), "ok"]) as server:
        answer = await respond(
            make("m", base_url=server.base_url), sink, Message("user", "Hi"), stream=stream
        )
        assert answer.message.content == "ok"
        assert len(sink.retries) == 1


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("fault", [Fault.cut(2), Fault.malformed(2), Fault.failed(2), Fault.incomplete(2)])
async def test_a_fault_after_something_was_shown_is_final(make: Make, fault: Fault, sink: Sink) -> None:
    async with ModelServer([Answer("One two three four.", fault=fault)]) as server:
        with pytest.raises(ModelStreamError):
            await respond(make("m", base_url=server.base_url), sink, Message("user", "Hi"))
        assert sink.text()
        assert sink.retries == []


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reason", "way_out"), [("max_output_tokens", "raise max_output_tokens"), ("content_filter", "change")]
)
async def test_an_answer_that_the_provider_has_cut_is_not_paid_for_again(
    make: Make,
    stream: bool,
    reason: Literal["max_output_tokens", "content_filter"],
    way_out: str,
    sink: Sink,
) -> None:
    async with ModelServer([Answer("Lost words.", fault=Fault.incomplete(reason=reason)), "never"]) as server:
        with pytest.raises(ModelIncompleteError, match=way_out) as caught:
            await respond(make("m", base_url=server.base_url), sink, Message("user", "Hi"), stream=stream)
        assert len(server.requests) == 1
    assert caught.value.reason == reason
    assert reason in str(caught.value)
    assert caught.value.usage.input_tokens > 0
    assert sink.retries == []


@pytest.mark.parametrize("make", MODELS)
async def test_a_wrong_key_and_an_unknown_model_are_told_apart(make: Make, sink: Sink) -> None:
    async with ModelServer([], api_key="right", models=["known"]) as server:
        with pytest.raises(ModelAuthError) as refused:
            await respond(
                make("known", base_url=server.base_url, api_key="wrong-key-1"), sink, Message("user", "Hi")
            )
        assert "wrong-key-1" not in str(refused.value)
        with pytest.raises(ModelNotFoundError) as missing:
            await respond(
                make("gone", base_url=server.base_url, api_key="right"), sink, Message("user", "Hi")
            )
        assert missing.value.code == "model_not_found"


def consume(value: Any) -> None:
    """Walk to the last leaf: what the types call an Iterable is validated when it is read, not before."""
    if isinstance(value, dict):
        value = value.values()
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        for item in value:
            consume(item)


@pytest.mark.parametrize(
    ("make", "params"),
    [(OpenAIResponses, ResponseCreateParamsStreaming), (OpenAIChat, CompletionCreateParamsStreaming)],
)
async def test_the_requests_fit_the_official_types(make: Make, params: Any, sink: Sink) -> None:
    """A value outside of the types, a key missing: pydantic says so (a key too many, it does not)."""
    adapter = TypeAdapter(params)
    calls = [tool_call("add_item", item="milk")]
    async with ModelServer([Answer("Adding.", tool_calls=calls, reasoning="Hm."), "ok"]) as server:
        settings = {
            "temperature": 0.5,
            "max_output_tokens": 50,
            "reasoning_effort": "low",
            "verbosity": "low",
        }
        model = make("gpt-5.2", base_url=server.base_url, parallel_tool_calls=True, **settings)
        see = Message("user", "See", images=[Image(content=b"x")], files=[File(content=b"x", name="a.pdf")])
        more: dict[str, Any] = {"tools": [ADD], "tool_choice": {"name": "add_item"}}
        answer = await respond(model, sink, see, **more)
        result = Message("tool", "added", tool_call_id=calls[0].id)
        format_ = ResponseFormat("Box", Box.model_json_schema())
        await respond(model, sink, see, answer.message, result, response_format=format_, **more)
        for request in server.requests:
            consume(adapter.validate_python(json.loads(json.dumps(request.body))))
