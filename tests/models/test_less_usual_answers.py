"""Answers in shapes that services send rarely: seen in recordings of other projects, written here by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import ModelStreamError
from kern.messages import Message
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

STREAMED = ModelRequest([Message("user", "?")], stream=True)
USAGE = {"prompt_tokens": 57, "completion_tokens": 17, "total_tokens": 74}


def again(message: Message) -> Message:
    """The message as it comes out of a database."""
    return Message.from_dict(json.loads(json.dumps(message.to_dict())))


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


async def asked(server: ReplayServer, sink: Sink, body: bytes, name: str = "openrouter") -> Message:
    server.replies = [Reply([body])]
    model = OpenAIChat("m", server=name, base_url=server.url, api_key="any", max_retries=0)
    return (await model.respond(STREAMED, sink)).message


async def test_a_stream_with_usage_and_mark_needs_no_finish_reason(server: ReplayServer, sink: Sink) -> None:
    """OpenRouter passes on what Novita sends for Kimi K2 (recorded by simonw/llm, tools_streaming variant a)."""
    call = {"index": 0, "id": "0", "type": "function", "function": {"name": "version", "arguments": "{}"}}
    body = sse(chunk(content=None, tool_calls=[call]), {**chunk(content=""), "usage": USAGE}, "[DONE]")
    message = await asked(server, sink, body)
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [("0", "version", "{}")]


@pytest.mark.parametrize("lacks", ["usage", "mark", "arguments"])
async def test_without_any_of_these_it_broke_off(server: ReplayServer, sink: Sink, lacks: str) -> None:
    arguments = '{"city": "Ber' if lacks == "arguments" else "{}"
    call = {"index": 0, "id": "0", "function": {"name": "version", "arguments": arguments}}
    last = chunk(content="") if lacks == "usage" else {**chunk(content=""), "usage": USAGE}
    body = sse(chunk(tool_calls=[call]), last, *([] if lacks == "mark" else ["[DONE]"]))
    with pytest.raises(ModelStreamError, match="has no finish reason"):
        await asked(server, sink, body)


async def test_a_field_error_of_a_stream_is_its_error(server: ReplayServer, sink: Sink) -> None:
    """As in older builds of llama.cpp (`server_sent_event(sink, "error", ...)`), and GPUStack on top of it."""
    body = sse(chunk(content="Hi")) + b'error: {"error": {"message": "failed to decode, try again"}}\n\n'
    with pytest.raises(ModelStreamError, match="failed to decode, try again"):
        await asked(server, sink, body, "llamacpp")


async def test_the_text_of_a_parsed_document_goes_back_to_openrouter_alone(
    server: ReplayServer, sink: Sink
) -> None:
    """https://openrouter.ai/docs/features/multimodal/pdfs: who sends it back does not pay for it again."""
    parsed = {"hash": "a1", "name": "a.pdf", "content": [{"type": "text", "text": "# A"}]}
    annotation = {"type": "file", "file": parsed}
    body = sse(
        chunk(content="A"),
        chunk(annotations=[annotation]),
        {"choices": [{"index": 0, "delta": {"annotations": [annotation]}, "finish_reason": "stop"}]},
        "[DONE]",
    )
    message = again(await asked(server, sink, body))
    assert message.content == "A"
    request = ModelRequest([Message("user", "?"), message, Message("user", "And?")])
    models = [
        OpenAIChat(name, server=other, base_url=server.url)
        for name, other in (("m", "openrouter"), ("other", "openrouter"), ("m", "groq"))
    ]
    kept = [model._body(request)["messages"][1].get("annotations") for model in models]
    assert kept == [[annotation], None, None]
