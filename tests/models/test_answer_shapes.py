"""Answers in other shapes than the usual: what is clear is read, and what is not is no empty answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import (
    ModelBehaviorError,
    ModelError,
    ModelRateLimitError,
    ModelStreamError,
)
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink, sse

BOTH = pytest.mark.parametrize("stream", [True, False], ids=["events", "body"])
NOTE = {"id": "1", "type": "function", "function": {"name": "note", "arguments": "{}"}}


async def chat(server: ReplayServer, sink: Sink, *choices: dict[str, Any], stream: bool) -> ModelResponse:
    """The choices as events of a stream, or the last one as the body of a JSON answer."""
    bodies = [{"choices": [{"index": 0, "finish_reason": None, **choice}]} for choice in choices]
    bodies[-1]["choices"][0]["finish_reason"] = "stop"
    events = Reply([sse(*bodies, "[DONE]")])
    server.replies = [
        events if stream else Reply([json.dumps(bodies[-1]).encode()], content_type="application/json")
    ]
    request = ModelRequest([Message("user", "Hi")], stream=True)
    return await OpenAIChat("m", base_url=server.url, max_retries=0).respond(request, sink)


@BOTH
@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"delta": {"role": "assistant", "content": "42"}}, "42"),
        ({"delta": "42"}, "42"),
        ({"message": "42"}, "42"),
        ({"message": [{"type": "text", "text": "42"}]}, "42"),
        ({"text": "42"}, "42"),
        ({"message": {"role": "assistant", "text": "42"}}, "42"),
        ({"message": {"content": 42}}, "42"),
        ({"message": {"content": 0}}, "0"),
        ({"message": {"content": {"answer": 42}}}, '{"answer":42}'),
        ({"message": {"content": {"text": "42"}}}, "42"),
        ({"message": {"content": [{"answer": 42}, {"answer": 43}]}}, '[{"answer":42},{"answer":43}]'),
        ({"message": {"content": ["4", "2"]}}, "42"),
        ({"message": {"content": ""}}, ""),
        ({"message": {"content": None}}, ""),
        ({"message": {"role": "assistant"}}, ""),
        ({"message": {"content": "", "annotations": [{"url": "x"}], "new": "y"}}, ""),
    ],
)
async def test_what_is_clear_is_read(
    server: ReplayServer, sink: Sink, choice: dict[str, Any], text: str, stream: bool
) -> None:
    assert (await chat(server, sink, choice, stream=stream)).message.content == sink.text() == text


@BOTH
@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"message": None},
        {"messages": [{"role": "assistant", "content": "42"}]},
        {"message": {"role": "assistant", "parts": [{"text": "42"}]}},
        {"message": {"role": "assistant", "content": None, "tool_calls": "note()"}},
        {"message": {"answer": "42"}},
    ],
)
async def test_an_answer_of_which_nothing_could_be_read_is_an_error(
    server: ReplayServer, sink: Sink, choice: dict[str, Any], stream: bool
) -> None:
    with pytest.raises((ModelStreamError, ModelBehaviorError), match=r"no message|cannot read|is damaged"):
        await chat(server, sink, choice, stream=stream)


@BOTH
@pytest.mark.parametrize("entry", [NOTE, [NOTE], {"id": "1", "name": "note", "arguments": {}}])
async def test_calls_are_read_in_other_shapes(
    server: ReplayServer, sink: Sink, entry: Any, stream: bool
) -> None:
    answer = await chat(server, sink, {"message": {"content": None, "tool_calls": entry}}, stream=stream)
    assert [call.name for call in answer.message.tool_calls] == ["note"]


@BOTH
@pytest.mark.parametrize("name", ["message", "delta"])
@pytest.mark.parametrize(
    "more",
    [
        {
            "tool_calls": [
                {"index": 0, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "id": None, "function": {"name": None, "arguments": None}}]},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0}]},
        {"tool_calls": [{}, {}]},
        {"function_call": {"name": "", "arguments": ""}},
        {"function_call": {}},
    ],
)
async def test_an_entry_without_anything_is_no_call(
    server: ReplayServer, sink: Sink, name: str, more: dict[str, Any], stream: bool
) -> None:
    answer = await chat(server, sink, {name: {"content": "The answer", **more}}, stream=stream)
    assert (answer.message.content, answer.message.tool_calls) == ("The answer", [])


async def test_an_empty_entry_of_the_responses_api_is_no_call(server: ReplayServer, sink: Sink) -> None:
    empty = {"type": "function_call", "name": "", "arguments": ""}
    answer = await respond(server, sink, output=[message("Hi"), empty, {**empty, "call_id": "c"}])
    assert (answer.message.content, answer.message.tool_calls) == ("Hi", [])


def message(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": content}


async def respond(server: ReplayServer, sink: Sink, **response: Any) -> ModelResponse:
    body = json.dumps({"status": "completed", **response}).encode()
    server.replies = [Reply([body], content_type="application/json")]
    model = OpenAIResponses("m", base_url=server.url, max_retries=0)
    return await model.respond(ModelRequest([Message("user", "Hi")]), sink)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"output": [message("42")]}, "42"),
        ({"output": [message({"type": "output_text", "text": "42"})]}, "42"),
        ({"output": [message(["4", {"type": "text", "text": "2"}])]}, "42"),
        ({"output": [message({"answer": 42})]}, '{"answer":42}'),
        ({"output": [message([{"type": "output_text", "text": {"value": "42"}}])]}, "42"),
        ({"output": message("42")}, "42"),
        ({"output": "42"}, "42"),
        ({"output_text": "42"}, "42"),
        ({"output": [], "output_text": "42"}, "42"),
        ({"output": [message(None)]}, ""),
    ],
)
async def test_what_is_clear_in_a_response_is_read(
    server: ReplayServer, sink: Sink, response: dict[str, Any], text: str
) -> None:
    assert (await respond(server, sink, **response)).message.content == text


async def test_a_response_of_parts_that_cannot_be_read_names_them(server: ReplayServer, sink: Sink) -> None:
    with pytest.raises(ModelBehaviorError, match="output_audio"):
        await respond(server, sink, output=[message([{"type": "output_audio", "data": "AA=="}])])
    with pytest.raises(ModelStreamError, match="no output"):
        await respond(server, sink, output=42)


# Events.


@pytest.mark.parametrize("quiet", ["data:\n\n", "data: \n\n", "id: 1\ndata:\n\n", "event: ping\ndata:\n\n"])
async def test_an_event_without_data_says_nothing(server: ReplayServer, sink: Sink, quiet: str) -> None:
    request = ModelRequest([Message("user", "Hi")], stream=True)
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    server.replies = [Reply([quiet.encode(), sse(chunk), quiet.encode(), b"data: [DONE]\n\n"])]
    answer = await OpenAIChat("m", base_url=server.url, max_retries=0).respond(request, sink)
    assert answer.message.content == "Hi"
    end = {"type": "response.completed", "response": {"status": "completed", "output": [message("Hi")]}}
    server.replies = [Reply([quiet.encode(), sse(end)])]
    answer = await OpenAIResponses("m", base_url=server.url, max_retries=0).respond(request, sink)
    assert answer.message.content == "Hi"


async def test_the_type_of_an_event_may_stand_in_its_name_alone(server: ReplayServer, sink: Sink) -> None:
    whole = {"status": "completed", "output": [message("Hi you")]}
    for last in ({"response": whole}, whole):
        events = [("response.output_text.delta", {"delta": "Hi "}), ("response.completed", last)]
        text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
        server.replies = [Reply([text.encode()])]
        model = OpenAIResponses("m", base_url=server.url, max_retries=0)
        answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)
        assert answer.message.content == "Hi you"


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"message": "slow down", "code": 429}, ModelRateLimitError),
        ({"detail": "slow down"}, ModelStreamError),
        ({"message": "slow down", "status": 429}, ModelRateLimitError),
    ],
)
async def test_a_servers_words_in_a_stream_are_told(
    server: ReplayServer, sink: Sink, kind: type[OpenAIChat], event: dict[str, Any], error: type[ModelError]
) -> None:
    server.replies = [Reply([sse(event, "[DONE]")])]
    with pytest.raises(error, match="slow down"):
        await kind("m", base_url=server.url, max_retries=0).respond(
            ModelRequest([Message("user", "Hi")], stream=True), sink
        )


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
}


@pytest.mark.parametrize(
    "later",
    [
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 5},
        {"completion_tokens": 5, "prompt_tokens_details": None},
        {"prompt_tokens_details": {"cached_tokens": 0}},
        {"prompt_tokens": -1, "completion_tokens": "5", "total_tokens": None, "prompt_tokens_details": 0},
        {},
    ],
)
async def test_a_count_that_was_said_is_not_undone(
    server: ReplayServer, sink: Sink, later: dict[str, Any]
) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
    server.replies = [Reply([sse(chunk, {"choices": [], "usage": later}, "[DONE]")])]
    model = OpenAIChat("m", base_url=server.url, max_retries=0)
    usage = (await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cached_tokens) == (
        10,
        5,
        15,
        4,
    )
