"""extra_body adds to a request, and takes nothing of the run's away unsaid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import ModelBadRequestError, UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink

MODELS = (OpenAIChat, OpenAIResponses)
SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}
REQUEST = ModelRequest(
    [Message("user", "Hi")],
    tools=[ToolDefinition("find", "Find.", SCHEMA)],
    response_format=ResponseFormat("Box", SCHEMA),
    stream=True,
)
OK = Reply(
    [b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "output": []}'],
    content_type="application/json",
)


async def body(
    server: ReplayServer, sink: Sink, kind: Any, extra: dict[str, Any], **more: Any
) -> dict[str, Any]:
    server.replies = [OK]
    await kind("m", base_url=server.url, extra_body=extra, **more).respond(REQUEST, sink)
    sent: dict[str, Any] = server.asked[-1].body
    return sent


@pytest.mark.parametrize("kind", MODELS)
async def test_the_providers_own_tools_stand_beside_the_agents(
    server: ReplayServer, sink: Sink, kind: Any
) -> None:
    sent = await body(server, sink, kind, {"tools": [{"type": "web_search"}]})
    assert [tool["type"] for tool in sent["tools"]] == ["function", "web_search"]


@pytest.mark.parametrize("kind", MODELS)
async def test_a_tool_of_the_same_name_is_refused_before_anything_is_sent(
    server: ReplayServer, sink: Sink, kind: Any
) -> None:
    tool = {"type": "function", "name": "find", "function": {"name": "find"}}
    with pytest.raises(UsageError, match="'find'"):
        await body(server, sink, kind, {"tools": [tool]})
    assert server.asked == []


async def test_objects_are_merged_and_lists_are_joined(server: ReplayServer, sink: Sink) -> None:
    extra = {"text": {"verbosity": "low"}, "include": ["web_search_call.action.sources"], "user": "u"}
    sent = await body(server, sink, OpenAIResponses, extra)
    assert sent["text"]["format"]["name"] == "Box"
    assert sent["text"]["verbosity"] == "low"
    assert sent["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert sent["user"] == "u"
    sent = await body(server, sink, OpenAIChat, {"stream_options": {"include_obfuscation": False}})
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "extra", [{"stream": True}, {"messages": []}, {"input": "x"}, {"instructions": "x"}, {"tools": {}}]
)
def test_what_is_the_runs_cannot_be_set(kind: Any, extra: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(extra))):
        kind("m", extra_body=extra)


@pytest.mark.parametrize(
    ("model", "settings", "asked"),
    [
        ("gpt-5.2", {}, True),
        ("o3", {}, True),
        ("qwen3", {}, True),
        ("gpt-5.2", {"store": True}, False),
        ("gpt-5.2", {"store": None}, False),
        ("gpt-4.1-mini", {}, False),
        ("ft:gpt-4o-2024-08-06:org::x", {}, False),
        ("gpt-5-chat-latest", {}, False),
        ("openai/gpt-4o", {}, False),
        ("gpt-5.2", {"extra_body": {"include": None}}, False),
    ],
)
async def test_encrypted_reasoning_is_asked_for_where_nothing_is_stored(
    server: ReplayServer, sink: Sink, model: str, settings: dict[str, Any], asked: bool
) -> None:
    server.replies = [OK]
    await OpenAIResponses(model, base_url=server.url, **settings).respond(REQUEST, sink)
    assert bool(server.asked[0].body.get("include")) is asked


def refused(message: str, code: str | None = None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": "include", "code": code}
    return Reply([json.dumps({"error": error}).encode()], status=400, content_type="application/json")


async def test_a_model_that_refuses_the_question_is_asked_without_it_from_then_on(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = [refused("Encrypted content is not supported with this model."), OK, OK]
    model = OpenAIResponses("my-deployment", base_url=server.url, max_retries=0)
    for _ in range(2):
        await model.respond(REQUEST, sink)
    assert [bool(asked.body.get("include")) for asked in server.asked] == [True, False, False]


@pytest.mark.parametrize(
    "refusal",
    [
        refused("The encrypted content gAAA could not be verified.", "invalid_encrypted_content"),
        refused("Item 'rs_1' of type 'reasoning' was provided without its required following item."),
        refused("Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."),
    ],
)
async def test_reasoning_that_a_server_cannot_read_any_more_is_left_out(
    server: ReplayServer, sink: Sink, refusal: Reply
) -> None:
    server.replies = [refusal, OK]
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    items = [thought, {"type": "message", "id": "msg_1", "chars": 2}]
    data = {"openai": {"model": "m", "items": items, "whole": True}}
    messages = [Message("user", "Hi"), Message("assistant", "Ho", provider_data=data), Message("user", "Ha")]
    model = OpenAIResponses("m", base_url=server.url, max_retries=0)
    answer = await model.respond(ModelRequest(messages), sink)
    assert answer.message.content == ""
    first, second = (asked.body["input"] for asked in server.asked)
    assert [item.get("id") for item in first] == [None, "rs_1", "msg_1", None]
    assert [item.get("id") for item in second] == [None, None, None]


async def test_a_refusal_for_another_reason_is_told_at_once(server: ReplayServer, sink: Sink) -> None:
    server.replies = [refused("No.", "invalid_encrypted_content"), OK]
    with pytest.raises(ModelBadRequestError):  # there is nothing that could be left out
        await OpenAIResponses("m", base_url=server.url, max_retries=0).respond(REQUEST, sink)
    assert len(server.asked) == 1
