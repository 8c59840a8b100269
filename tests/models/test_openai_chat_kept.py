"""What chat servers want to see again, streamed and whole, and the pictures that they make."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern.messages import Image, Message
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

PNG = base64.b64encode(b"png").decode()
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
EXTRA = {"google": {"thought_signature": "AV"}}


async def whole(server: ReplayServer, sink: Sink, message: dict[str, Any]) -> ModelResponse:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    return await OpenAIChat("m", base_url=server.url).respond(ModelRequest([Message("user", "?")]), sink)


async def streamed(server: ReplayServer, sink: Sink, *deltas: dict[str, Any]) -> ModelResponse:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.replies = [Reply([sse(*chunks, end), b"data: [DONE]\n\n"])]
    request = ModelRequest([Message("user", "?")], stream=True)
    return await OpenAIChat("m", base_url=server.url).respond(request, sink)


def again(answer: ModelResponse) -> dict[str, Any]:
    """The answer as it goes back."""
    message = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    body = OpenAIChat("m")._body(ModelRequest([Message("user", "?"), message]))
    said: dict[str, Any] = body["messages"][1]
    return said


def piece(text: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    detail = {"type": "reasoning.text", "text": text, "index": index, "format": "anthropic-claude-v1", **more}
    return {"content": "", "reasoning": text, "reasoning_details": [detail]}


async def test_streamed_reasoning_goes_back_with_its_signature(server: ReplayServer, sink: Sink) -> None:
    hidden = {"type": "reasoning.encrypted", "data": "xyz", "id": "r1", "index": 1}
    answer = await streamed(
        server,
        sink,
        piece("Let me "),
        piece("think."),
        piece(signature="sig"),
        {"reasoning_details": [hidden]},
        {"reasoning_details": [hidden]},
        piece("More.", 2),
        {"content": "Done"},
    )
    assert answer.message.reasoning_content == "Let me think.More."
    assert again(answer)["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "text": "Let me think.",
            "index": 0,
            "format": "anthropic-claude-v1",
            "signature": "sig",
        },
        hidden,
        hidden,
        {"type": "reasoning.text", "text": "More.", "index": 2, "format": "anthropic-claude-v1"},
    ]


async def test_whole_reasoning_goes_back_as_it_came(server: ReplayServer, sink: Sink) -> None:
    details = [{"type": "reasoning.text", "text": text} for text in ("One.", "Two.")]
    answer = await whole(server, sink, {"content": "Done", "reasoning_details": details})
    assert again(answer)["reasoning_details"] == details


@pytest.mark.parametrize("stream", [False, True])
async def test_signatures_of_calls_and_of_messages_go_back(
    server: ReplayServer, sink: Sink, stream: bool
) -> None:
    calls = [{**CALL, "index": 0, "extra_content": EXTRA}, {**CALL, "id": "c2", "index": 1}]
    message = {"content": None, "tool_calls": calls, "extra_content": {"google": {"thought": True}}}
    answer = await (streamed(server, sink, message) if stream else whole(server, sink, message))
    said = again(answer)
    assert said["extra_content"] == {"google": {"thought": True}}
    assert [call.get("extra_content") for call in said["tool_calls"]] == [EXTRA, None]


async def test_pictures_of_an_answer_are_kept(server: ReplayServer, sink: Sink) -> None:
    images = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "http://x.test/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}},
        {"type": "image_url", "image_url": "x"},
        {"type": "image_url"},
    ]
    answer = await whole(server, sink, {"content": "", "images": images})
    assert answer.message.images == [
        Image(content=b"png", mime_type="image/png"),
        Image(url="http://x.test/a.png"),
    ]


@pytest.mark.parametrize("odd", [3, "x", [3, None], {}, [{"type": ["x"]}], [{"type": "reasoning.text"}]])
@pytest.mark.parametrize("name", ["reasoning_details", "extra_content", "images"])
@pytest.mark.parametrize("stream", [False, True])
async def test_odd_values_do_no_harm(
    server: ReplayServer, sink: Sink, odd: Any, name: str, stream: bool
) -> None:
    message = {"content": "Done", name: odd, "tool_calls": [{**CALL, name: odd}]}
    answer = await (streamed(server, sink, message) if stream else whole(server, sink, message))
    assert answer.message.content == "Done"
    again(answer)
