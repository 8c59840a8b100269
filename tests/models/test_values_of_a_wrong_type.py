"""Values of a wrong type in an answer: an error where its text or a call would be lost, else one warning."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kern.errors import ModelStreamError
from kern.messages import Message
from kern.models.anthropic import AnthropicMessages
from kern.models.base import Model, ModelRequest
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink

MADE: dict[str, Any] = {
    "chat": OpenAIChat,
    "responses": OpenAIResponses,
    "claude": AnthropicMessages,
    "gemini": Gemini,
}


@pytest.fixture
def client() -> str:
    """What is read does not depend on the HTTP client: one will do."""
    return "any"


def chat(content: Any = "ok", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}


def claude(*content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(content), "stop_reason": "end_turn"}


def gemini(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP"}]}


def responses(*output: Any) -> dict[str, Any]:
    return {"status": "completed", "output": list(output)}


def message(*content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(content)}


TEXT = {"type": "text", "text": "ok"}
OUT = {"type": "output_text", "text": "ok"}


async def answer(kind: str, body: Any, server: ReplayServer) -> str | None:
    if isinstance(body, list):
        named = [(f"event: {each['type']}\n" if "type" in each else "", each) for each in body]
        data = "".join(f"{name}data: {json.dumps(each)}\n\n" for name, each in named)
        server.replies = [Reply([data.encode()])]
    else:
        server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    model: Model = MADE[kind]("m", base_url=server.url, api_key="any", max_retries=0)
    request = ModelRequest([Message("user", "Hi")], stream=isinstance(body, list))
    return (await model.respond(request, Sink())).message.content


@pytest.mark.parametrize(
    ("kind", "body", "where"),
    [
        ("chat", chat([{"type": "text", "text": 5}, TEXT]), "the text of a part is a number, not text"),
        ("chat", chat([TEXT, 5]), "a part of the content is a number, not an object"),
        ("chat", chat(tool_calls="look"), "tool_calls is text, not a list"),
        ("chat", chat(tool_calls=["look"]), "an item of tool_calls is text, not an object"),
        ("chat", {"choices": ["ok"]}, "an item of choices is text, not an object"),
        ("chat", chat(refusal=["no"]), "the refusal is a list, not text"),
        ("responses", responses("ok", message(OUT)), "an item of output is text, not an object"),
        ("responses", responses(message(OUT, 5)), "an item of content is a number, not an object"),
        ("responses", responses(message(OUT | {"text": 5})), "the text of a message is a number, not text"),
        (
            "responses",
            [{"type": "response.output_text.delta", "output_index": 0, "delta": ["ok"]}],
            "the delta of a text is a list, not text",
        ),
        (
            "responses",
            [{"type": "response.function_call_arguments.delta", "output_index": 0, "delta": {}}],
            "the delta of a call's arguments is an object, not text",
        ),
        ("claude", claude("ok"), "an item of content is text, not an object"),
        ("claude", claude({"type": "text", "text": ["ok"]}), "the text of a block is a list, not text"),
        (
            "claude",
            [{"type": "content_block_start", "index": 0, "content_block": "text"}],
            "content_block is text, not an object",
        ),
        (
            "claude",
            [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": [[]]}}],
            "the text of a delta is a list, not text",
        ),
        (
            "claude",
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "name": "a"},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": {"a": 1}},
                },
            ],
            "partial_json is an object, not text",
        ),
        (
            "claude",
            [{"type": "content_block_delta", "index": 0, "delta": 5}],
            "the delta of a block is a number",
        ),
        ("gemini", gemini("ok"), "an item of parts is text, not an object"),
        ("gemini", gemini({"text": 5}), "the text of a part is a number, not text"),
        ("gemini", gemini({"text": "ok"}, {"functionCall": "look"}), "functionCall is text, not an object"),
        ("gemini", gemini({"functionCall": {"name": "a", "args": "x"}}), "the args of a call is text"),
        (
            "gemini",
            {"candidates": [{"content": "ok", "finishReason": "STOP"}]},
            "content is text, not an object",
        ),
        ("gemini", [{"candidates": 1}], "candidates is a number, not a list"),
    ],
)
async def test_what_would_lose_text_or_a_call_is_an_error_that_names_it(
    kind: str, body: Any, where: str, server: ReplayServer
) -> None:
    with pytest.raises(ModelStreamError, match="the answer is damaged: ") as caught:
        await answer(kind, body, server)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("chat", chat([None, TEXT, None]), "null in content is skipped"),
        ("chat", chat(reasoning_content=5), "reasoning_content is a number, not text, and is skipped"),
        ("chat", chat(tool_calls=[None]), "null in tool_calls is skipped"),
        ("responses", responses(None, message(None, OUT)), "null in output is skipped"),
        ("claude", claude(None, TEXT, None), "null in content is skipped"),
        ("claude", claude({"type": "thinking", "thinking": 5}, TEXT), "thinking is a number, not text"),
        ("gemini", gemini(None, {"text": "ok"}), "null in parts is skipped"),
    ],
)
async def test_what_loses_nothing_of_the_answer_is_passed_over_with_one_warning(
    kind: str, body: Any, told: str, server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "kern.models"):
        assert await answer(kind, body, server) == "ok"
    warnings = [record.getMessage() for record in caplog.records if told in record.getMessage()]
    assert len(warnings) == 1
    assert "/m at 127.0.0.1:" in warnings[0]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", chat("ok", tool_calls=None, refusal=None, reasoning_content=None)),
        ("chat", chat("ok", tool_calls=[])),
        ("chat", chat("ok", tool_calls="")),
        ("responses", responses(message(OUT | {"annotations": None}))),
        ("claude", claude(TEXT | {"citations": None})),
        ("gemini", gemini({"text": "ok", "thought": False}, {"functionCall": None})),
    ],
)
async def test_what_is_null_or_empty_is_nothing(
    kind: str, body: Any, server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert await answer(kind, body, server) == "ok"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
