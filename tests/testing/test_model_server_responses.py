"""The Responses protocol of `ModelServer`, judged by the official client and its types."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from kern.messages import ToolCall
from kern.testing import Answer, Fault, ModelServer, Reply, tool_call
from kern.usage import Usage

EVENT = TypeAdapter[Any](ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@asynccontextmanager
async def serving(*answers: Reply, retries: int = 0) -> AsyncIterator[tuple[ModelServer, openai.AsyncOpenAI]]:
    async with ModelServer(answers) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-any", max_retries=retries)
        async with client:
            yield server, client


async def raw_events(answer: Reply, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream as JSON, read without any client's help."""
    async with ModelServer([answer]) as server, httpx.AsyncClient() as client:
        payload = {"model": "gpt-5.2", "input": "hi", "stream": True, **body}
        response = await client.post(f"{server.base_url}/responses", json=payload)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        event, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert event == f"event: {events[-1]['type']}"
    return events


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


async def test_text_arrives_whole() -> None:
    usage = Usage(input_tokens=7, output_tokens=5, total_tokens=12, cached_tokens=3, reasoning_tokens=2)
    async with serving(Answer("Good morning, Ada.", usage=usage)) as (_, client):
        response = await client.responses.create(model="gpt-5.2", input="hi")
    assert response.output_text == "Good morning, Ada."
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert response.usage.output_tokens_details.reasoning_tokens == 2
    assert response.usage.total_tokens == 12
    Response.model_validate(response.to_dict(), strict=True)


async def test_the_events_of_a_text_come_in_the_order_of_the_real_api() -> None:
    events = await raw_events("Good morning")
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"][0] == events[-2]["item"]


async def test_every_event_fits_the_official_types() -> None:
    answer = Answer(
        "Both, please.",
        reasoning="Two cities were named.",
        tool_calls=[tool_call("weather", city="Oslo"), tool_call("weather", city="Rome")],
        interleave=True,
    )
    for event in await raw_events(answer, tools=[WEATHER], reasoning={"effort": "low", "summary": "auto"}):
        EVENT.validate_python(event, strict=True)


async def test_reasoning_is_streamed_as_a_summary_before_the_message() -> None:
    events = await raw_events(Answer("42", reasoning="Six by seven."))
    assert kinds(events)[2:10] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert [event["output_index"] for event in events if event["type"].endswith("item.added")] == [0, 1]


async def test_encrypted_reasoning_comes_only_where_it_is_included() -> None:
    answer = Answer("42", reasoning="Six by seven.")
    plain = (await raw_events(answer))[-1]["response"]["output"][0]
    included = (await raw_events(answer, include=["reasoning.encrypted_content"]))[-1]["response"]["output"][
        0
    ]
    assert "encrypted_content" not in plain
    assert included["encrypted_content"]


@pytest.mark.parametrize("interleave", [False, True])
async def test_several_tool_calls_keep_their_arguments_apart(interleave: bool) -> None:
    calls = [tool_call("weather", city="Oslo"), tool_call("weather", city="A city with a longer name")]
    async with serving(Answer(tool_calls=calls, interleave=interleave)) as (_, client):
        arguments: dict[str, str] = {}
        order: list[str] = []
        async with client.responses.stream(model="gpt-5.2", input="hi", tools=[WEATHER]) as stream:
            async for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    arguments[event.item_id] = arguments.get(event.item_id, "") + event.delta
                    order.append(event.item_id)
            response = await stream.get_final_response()
    items = [item for item in response.output if item.type == "function_call"]
    assert [(item.call_id, item.arguments) for item in items] == [(c.id, c.arguments) for c in calls]
    assert [arguments[item.id or ""] for item in items] == [call.arguments for call in calls]
    assert (order == sorted(order, key=order.index)) is not interleave


async def test_broken_arguments_are_sent_as_they_are() -> None:
    async with serving(ToolCall("call_1", "weather", '{"city": ')) as (_, client):
        response = await client.responses.create(model="gpt-5.2", input="hi")
    assert response.output[0].type == "function_call"
    assert response.output[0].arguments == '{"city": '


async def test_a_conversation_with_tools_goes_round() -> None:
    async with serving(tool_call("weather", city="Oslo"), "It rains.") as (server, client):
        items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "Oslo?"}]}]
        first = await client.responses.create(
            model="gpt-5.2", instructions="Be brief.", input=items, tools=[WEATHER]
        )
        items += [item.to_dict() for item in first.output]
        items.append({"type": "function_call_output", "call_id": first.output[0].call_id, "output": "rain"})
        second = await client.responses.create(model="gpt-5.2", instructions="Be brief.", input=items)
        server.assert_exhausted()
    assert second.output_text == "It rains."
    request = server.requests[1]
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.system_text == "Be brief."
    assert request.user_text == "Oslo?"
    assert [(m.tool_name, m.content) for m in request.tool_results] == [("weather", "rain")]
    assert request.messages[2].tool_calls[0].arguments == '{"city":"Oslo"}'
    assert server.requests[0].tool_names == ["weather"]
    assert server.requests[0].tools[0].strict


async def test_a_failure_in_the_stream_ends_it_with_response_failed() -> None:
    events = await raw_events(Answer("one two three", fault=Fault.failed(2, code="rate_limit_exceeded")))
    assert kinds(events)[-3:] == ["output_text.delta", "output_text.delta", "failed"]
    assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
    EVENT.validate_python(events[-1], strict=True)


async def test_an_error_event_reaches_the_official_client() -> None:
    fault = Fault.error_event(1, code="insufficient_quota")
    async with serving(Answer("one two", fault=fault)) as (_, client):
        stream = await client.responses.create(model="gpt-5.2", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="exceeded your current quota"):
            async for _ in stream:
                pass


async def test_an_incomplete_answer_says_why() -> None:
    answer = Answer("one two three four", fault=Fault.incomplete(2))
    events = await raw_events(answer)
    assert events[-1]["type"] == "response.incomplete"
    async with serving(answer) as (_, client):
        response = await client.responses.create(model="gpt-5.2", input="hi")
    for final in (Response.model_validate(events[-1]["response"], strict=True), response):
        assert final.status == "incomplete"
        assert final.incomplete_details is not None
        assert final.incomplete_details.reason == "max_output_tokens"
        assert final.output_text == "one two"


async def test_a_failure_without_a_stream_has_status_failed() -> None:
    async with serving(Answer(fault=Fault.failed(message="No luck."))) as (_, client):
        response = await client.responses.create(model="gpt-5.2", input="hi")
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message == "No luck."


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [{"type": "function_call_output", "call_id": "call_x", "output": ""}],
            "No tool call found for function call output with call_id call_x.",
        ),
        (
            [{"type": "function_call", "call_id": "call_x", "name": "f", "arguments": "{}"}],
            "No tool output found for function call call_x.",
        ),
        (
            [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}],
            "Supported values are: 'output_text', 'refusal'",
        ),
        ([{"role": "robot", "content": "x"}], "Invalid value: 'robot'"),
        ([{"type": "function_call", "name": "f"}], r"Missing required parameter: 'input\[0\].call_id'"),
        ([7], "expected an object"),
    ],
)
async def test_input_that_the_real_api_refuses_is_refused(items: list[Any], message: str) -> None:
    async with serving("never said") as (server, client):
        with pytest.raises(openai.BadRequestError, match=message):
            await client.responses.create(model="gpt-5.2", input=items)
    assert server.remaining == 1


async def test_a_strict_tool_with_an_open_schema_is_refused() -> None:
    loose = {**WEATHER, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    async with serving("never said") as (_, client):
        with pytest.raises(openai.BadRequestError, match="additionalProperties"):
            await client.responses.create(model="gpt-5.2", input="hi", tools=[loose])


async def test_pictures_and_files_are_decoded() -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAEC", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.org/cat.png", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAEC"},
    ]
    async with serving("A cat.") as (server, client):
        await client.responses.create(model="gpt-5.2", input=[{"role": "user", "content": content}])
    message = server.requests[0].messages[0]
    assert message.content == "What is this?"
    assert message.images[0].content == b"\x00\x01\x02"
    assert message.images[1].url == "https://example.org/cat.png"
    assert (message.files[0].name, message.files[0].mime_type) == ("a.pdf", "application/pdf")
