"""A key that a server gives back as the type of what it answers is in no error and in no log."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent
from kern.errors import ModelBehaviorError
from kern.models.anthropic import AnthropicMessages
from kern.models.base import Model
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.raw_server import head, raw_server

KEY = "sk-ant-api03-0123456789abcdefABCDEF"


def anthropic(*blocks: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "end_turn"}


def chat(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


def responses(*items: Any) -> dict[str, Any]:
    return {"object": "response", "status": "completed", "output": items}


def gemini(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}


SAID = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
ODD: dict[str, tuple[Callable[..., Model], Any]] = {
    "anthropic": (AnthropicMessages, anthropic({"type": KEY})),
    "anthropic beside a text": (AnthropicMessages, anthropic({"type": KEY}, {"type": "text", "text": "Hi"})),
    "chat part": (OpenAIChat, chat(content=[{"type": KEY}])),
    "chat part beside a text": (OpenAIChat, chat(content=[{"type": KEY}, {"type": "text", "text": "Hi"}])),
    "chat field": (OpenAIChat, chat(**{KEY: "x"})),
    "responses item": (OpenAIResponses, responses({"type": KEY})),
    "responses item beside a text": (OpenAIResponses, responses({"type": KEY}, SAID)),
    "responses part": (OpenAIResponses, responses({"type": "message", "content": [{"type": KEY}]})),
    "gemini part": (Gemini, gemini({KEY: {"a": 1}})),
    "gemini part beside a text": (Gemini, gemini({KEY: {"a": 1}}, {"text": "Hi"})),
}


@pytest.mark.parametrize(("make", "answer"), ODD.values(), ids=ODD)
async def test_an_echoed_key_is_in_no_error_and_in_no_log(
    make: Callable[..., Model], answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(answer).encode()
    sent = head(f"content-length: {len(body)}", "content-type: application/json") + body
    seen: list[str] = []
    async with raw_server(lambda wire: wire.send(sent)) as server:
        agent = Agent(model=make("m", base_url=server.url, api_key=KEY, max_retries=0))
        try:
            output = await agent.arun("Hi")
        except ModelBehaviorError as error:
            ended = error.run_output
            seen += [*traceback.format_exception(error), str(ended and ended.to_dict())]
        else:
            assert output.content == "Hi"
    seen.append(caplog.text)
    assert "does not support" in "".join(seen) or "cannot read" in "".join(seen)
    assert "***" in "".join(seen)
    assert KEY[:12] not in "".join(seen)
