"""What the real services take, as recordings show, `ModelServer` takes as well."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from kern.testing import ModelServer, ReceivedRequest

USER = {"role": "user", "parts": [{"text": "Hi"}]}
FUNCTION = {"name": "add", "parameters": {"type": "object", "properties": {"n_a": {"any_of": [{}]}}}}
SOUND = bytes(range(250, 256))


def gemini(**more: Any) -> tuple[str, dict[str, Any]]:
    return "/models/gemini-2.5-flash:generateContent", {"contents": [USER], **more}


def chat(*parts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/chat/completions", {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}


def claude(block: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    asked = [{"role": "user", "content": [block]}]
    return "/messages", {"model": "m", "max_tokens": 100, "messages": asked}


async def received(call: tuple[str, dict[str, Any]]) -> ReceivedRequest:
    path, body = call
    async with ModelServer(["ok"]) as server, httpx.AsyncClient() as client:
        headers = {"anthropic-version": "2023-06-01", "content-type": "application/json"}
        answer = await client.post(f"{server.base_url}{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return server.requests[0]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"codeExecution": None, "functionDeclarations": [FUNCTION]}]},
        {"tools": [{"function_declarations": [FUNCTION]}], "system_instruction": {"parts": [{"text": "Be"}]}},
        {
            "tools": [{"functionDeclarations": [FUNCTION]}],
            "toolConfig": {"functionCallingConfig": {"mode": "any", "allowedFunctionNames": ["add"]}},
        },
        {
            "generationConfig": {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"$schema": "x", "type": "string", "pattern": "a", "default": "a"},
            }
        },
    ],
    ids=["null", "underscores", "a mode in small letters", "keywords"],
)
async def test_json_as_google_reads_it(more: dict[str, Any]) -> None:
    """https://protobuf.dev/programming-guides/json/"""
    request = await received(gemini(**more))
    assert [tool.name for tool in request.tools] == (["add"] if "tools" in more else [])
    if request.tools:
        assert "n_a" in request.tools[0].parameters["properties"]


async def test_parts_with_underscores_and_bytes_for_urls() -> None:
    call = {"function_call": {"name": "add", "args": {"n_a": None}}}
    contents = [
        {"role": "user", "parts": [{"inline_data": {"mime_type": "audio/mpeg", "data": "-vv8_f7_"}}]},
        {"role": "model", "parts": [call]},
        {"role": "user", "parts": [{"function_response": {"name": "add", "response": {"n_b": None}}}]},
    ]
    path, body = gemini()
    request = await received((path, {**body, "contents": contents}))
    assert base64.urlsafe_b64decode("-vv8_f7_") == SOUND
    assert request.messages[0].audio[0].content == SOUND
    assert json.loads(request.messages[1].tool_calls[0].arguments) == {"n_a": None}
    assert json.loads(request.messages[2].content or "") == {"n_b": None}


async def test_the_address_of_a_picture_alone() -> None:
    request = await received(chat({"type": "image_url", "image_url": "https://a.example/a.png"}))
    assert request.messages[0].images[0].url == "https://a.example/a.png"


async def test_a_mark_of_claude_s_that_is_null() -> None:
    request = await received(claude({"type": "text", "text": "Hi", "cache_control": None}))
    assert request.messages[0].content == "Hi"


async def test_a_call_that_is_forced_beside_adaptive_thinking() -> None:
    path, body = claude({"type": "text", "text": "Hi"})
    tool = {"name": "add", "input_schema": {"type": "object"}}
    more = {"tools": [tool], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}}
    assert (await received((path, {**body, **more}))).model == "m"
