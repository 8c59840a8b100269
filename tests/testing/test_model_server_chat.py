"""The Chat Completions protocol of `ModelServer`, judged by the official client and its types."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from kern.testing import Answer, Fault, ModelServer, Reply, tool_call
from kern.usage import Usage

HI: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@asynccontextmanager
async def serving(*answers: Reply) -> AsyncIterator[tuple[ModelServer, openai.AsyncOpenAI]]:
    async with ModelServer(answers) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-any", max_retries=0)
        async with client:
            yield server, client


async def raw_chunks(answer: Reply, **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream as JSON, read without any client's help; "[DONE]" is checked and left out."""
    async with ModelServer([answer]) as server, httpx.AsyncClient() as client:
        payload = {"model": "gpt-5.2", "messages": HI, "stream": True, **body}
        response = await client.post(f"{server.base_url}/chat/completions", json=payload)
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_text_arrives_whole() -> None:
    usage = Usage(input_tokens=7, output_tokens=5, total_tokens=12, cached_tokens=3, reasoning_tokens=2)
    async with serving(Answer("Good morning.", usage=usage)) as (_, client):
        completion = await client.chat.completions.create(model="gpt-5.2", messages=HI)
    ChatCompletion.model_validate(completion.to_dict(), strict=True)
    assert completion.choices[0].message.content == "Good morning."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 3
    assert completion.usage.total_tokens == 12


async def test_chunks_come_in_the_order_of_the_real_api_and_fit_the_official_types() -> None:
    chunks = await raw_chunks("Good morning", stream_options={"include_usage": True})
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:3]] == ["Good", " morning"]
    assert chunks[3]["choices"][0]["finish_reason"] == "stop"
    assert chunks[4]["choices"] == []
    assert chunks[4]["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:4])
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_usage_comes_only_where_it_is_asked_for() -> None:
    chunks = await raw_chunks("Good morning")
    assert len(chunks) == 4
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("interleave", [False, True])
async def test_several_tool_calls_keep_their_arguments_apart(interleave: bool) -> None:
    calls = [
        tool_call("weather", city="Oslo"),
        tool_call("weather"),
        tool_call("weather", city="Rome, Italy"),
    ]
    async with serving(Answer(tool_calls=calls, interleave=interleave)) as (_, client):
        stream = await client.chat.completions.create(
            model="gpt-5.2", messages=HI, tools=[WEATHER], stream=True
        )
        ids: dict[int, str] = {}
        arguments: dict[int, str] = {}
        order: list[int] = []
        finish = None
        async for chunk in stream:
            finish = chunk.choices[0].finish_reason
            for call in chunk.choices[0].delta.tool_calls or ():
                assert call.function is not None
                if call.id is not None:
                    ids[call.index] = call.id
                else:
                    order.append(call.index)
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    assert finish == "tool_calls"
    assert list(ids.values()) == [call.id for call in calls]
    assert list(arguments.values()) == [call.arguments for call in calls]
    assert (order == sorted(order)) is not interleave


async def test_a_call_without_arguments_is_still_announced() -> None:
    call = tool_call("weather")
    call.arguments = ""
    chunks = await raw_chunks(call)
    assert chunks[1]["choices"][0]["delta"]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": "",
    }


async def test_reasoning_is_sent_as_compatible_servers_do() -> None:
    chunks = await raw_chunks(Answer("42", reasoning="Six by seven."))
    reasoning = [chunk["choices"][0]["delta"].get("reasoning_content") for chunk in chunks]
    assert "".join(text for text in reasoning if text) == "Six by seven."


async def test_a_conversation_with_tools_goes_round() -> None:
    async with serving(tool_call("weather", city="Oslo"), "It rains.") as (server, client):
        first = await client.chat.completions.create(model="gpt-5.2", messages=HI, tools=[WEATHER])
        said = first.choices[0].message
        assert said.tool_calls is not None
        result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "rain"}
        messages = [*HI, said.to_dict(), result]
        second = await client.chat.completions.create(model="gpt-5.2", messages=messages, tools=[WEATHER])
        server.assert_exhausted()
    assert second.choices[0].message.content == "It rains."
    request = server.requests[1]
    assert request.system_text == "Be brief."
    assert [(m.tool_name, m.content) for m in request.tool_results] == [("weather", "rain")]
    assert request.tool_names == ["weather"]


async def test_an_error_in_the_stream_reaches_the_official_client() -> None:
    async with serving(Answer("one two", fault=Fault.failed(1))) as (_, client):
        stream = await client.chat.completions.create(model="gpt-5.2", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="server had an error"):
            async for _ in stream:
                pass


async def test_an_incomplete_answer_has_the_finish_reason_length() -> None:
    answer = Answer("one two three", fault=Fault.incomplete(2))
    async with serving(answer) as (_, client):
        completion = await client.chat.completions.create(model="gpt-5.2", messages=HI)
    chunks = await raw_chunks(answer)
    assert completion.choices[0].finish_reason == chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert completion.choices[0].message.content == "one two"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "tool", "tool_call_id": "call_x", "content": "x"}], "must be a response to a preceding"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "call_x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                },
                {"role": "user", "content": "and?"},
            ],
            "did not have response messages: call_x",
        ),
        ([{"role": "user"}], "expected a string, got null"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "Invalid value: 'input_text'"),
        ([], "Missing required parameter: 'messages'"),
    ],
)
async def test_messages_that_the_real_api_refuses_are_refused(messages: list[Any], message: str) -> None:
    async with serving("never said") as (server, client):
        with pytest.raises(openai.BadRequestError, match=message):
            await client.chat.completions.create(model="gpt-5.2", messages=messages)
    assert server.remaining == 1


async def test_a_strict_answer_schema_that_is_open_is_refused() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema, "strict": True}}
    async with serving("never said", "{}") as (_, client):
        with pytest.raises(openai.BadRequestError, match="Missing 'a'"):
            await client.chat.completions.create(model="gpt-5.2", messages=HI, response_format=form)
        schema["required"] = ["a"]
        await client.chat.completions.create(model="gpt-5.2", messages=HI, response_format=form)
