"""What Anthropic has sent, served byte for byte and decoded, and how it goes back: recorded exchanges.

The folder lies beside the project, not in it. What a body says is read here by other means than Kern's. A
transcript by hand for each shape is in test_anthropic_answers.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from kern.errors import ModelBadRequestError, ModelError
from kern.messages import Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._ends import Ends
from kern.models.anthropic import AnthropicMessages
from kern.models.anthropic._decode import MessagesReader
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.prices import cost_of
from kern.testing import ModelServer
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_recorded_traffic import FOLDER, needs_folder, objects, pieces


def recorded() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("anthropic/*.json")) if FOLDER is not None else []


def exchange(name: str) -> Any:
    assert FOLDER is not None
    return json.loads((FOLDER / "anthropic" / f"{name}.json").read_text(encoding="utf-8"))


@dataclass
class Said:
    """What a body says."""

    blocks: list[dict[str, Any]] = field(default_factory=list)
    message: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def read(body: str, content_type: str) -> Said:
    """The blocks and the end of an answer, put together of its events."""
    said = Said()
    for event in objects(body, content_type):
        kind = event["type"]
        if kind == "error":
            said.error = event["error"]["message"]
        elif kind in ("message", "message_start"):
            said.message = dict(event.get("message", event))
            said.blocks = [dict(block) for block in said.message["content"]]
        elif kind == "content_block_start":
            assert event["index"] == len(said.blocks)
            said.blocks.append({**event["content_block"], "json": ""})
        elif kind == "content_block_delta":
            block, delta = said.blocks[event["index"]], dict(event["delta"])
            if delta.pop("type") == "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])
            elif "partial_json" in delta:
                block["json"] += delta["partial_json"]
            else:
                ((name, text),) = delta.items()
                block[name] = (block.get(name) or "") + text
        elif kind == "message_delta":
            said.message.update({k: v for k, v in event["delta"].items() if v is not None})
        said.usage.update({k: v for k, v in (event.get("usage") or {}).items() if v})
    said.usage = {**(said.message.get("usage") or {}), **said.usage}
    for block in said.blocks:
        if text := block.pop("json", ""):
            block["input"] = json.loads(text)
    return said


def served(name: str, seed: int) -> tuple[Reply, Any]:
    recorded = exchange(name)
    answer = recorded["response"]
    headers = dict(answer["headers"])
    kind = headers.pop("content-type")
    body = pieces(answer["body"].encode(), seed)
    return Reply(body, status=answer["status"], headers=headers, content_type=kind), recorded


def model_of(server: ReplayServer, recorded: Any) -> AnthropicMessages:
    name = (recorded["request"]["json"] or {}).get("model", "m")
    return AnthropicMessages(name, base_url=server.url, api_key="any", max_retries=0)


def shape(part: Any) -> Any:
    """A part, as far as a body says it."""
    match part:
        case TextPart():
            cited = [citation.provider_data for citation in part.citations]
            return ("text", part.text, cited)
        case ReasoningPart():
            return ("thinking", part.text, part.signature, part.redacted)
        case ToolCall():
            return ("call", part.id, part.name, json.loads(part.arguments))
        case ProviderCall():
            return ("provider", part.id, part.name, json.loads(part.arguments), part.result, part.status)
    raise AssertionError(part)


def shapes_in(said: Said) -> list[Any]:
    """The parts that the blocks of a body make."""
    last = next((b for b in said.blocks if b["type"].endswith("_tool_result")), {})
    results = {b["tool_use_id"]: b for b in said.blocks if b["type"].endswith("_tool_result")}
    shapes: list[Any] = []
    for block in said.blocks:
        match block["type"]:
            case "text":
                shapes.append(("text", block["text"], block.get("citations") or []))
            case "thinking":
                shapes.append(("thinking", block["thinking"], block["signature"], None))
            case "redacted_thinking":
                shapes.append(("thinking", "", None, block["data"]))
            case "tool_use":
                shapes.append(("call", block["id"], block["name"], block["input"]))
            case "server_tool_use" | "mcp_tool_use":
                result = results.get(block["id"], last)["content"]  # the ids of one were replaced
                shapes.append(("provider", block["id"], block["name"], block["input"], result, "completed"))
            case kind:
                assert kind.endswith("_tool_result")
    if said.message["stop_reason"] == "refusal":
        shapes.append(("text", said.message["stop_details"]["explanation"], []))
    return shapes or [("text", "", [])]


ENDS = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "refusal": "refusal"}


@needs_folder
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", recorded())
async def test_what_anthropic_has_sent_is_decoded_as_the_body_says(
    server: ReplayServer, sink: Sink, name: str, seed: int
) -> None:
    reply, exchanged = served(name, seed)
    server.replies = [reply]
    model = model_of(server, exchanged)
    streamed = reply.content_type.startswith("text/event-stream")
    request = ModelRequest([Message("user", "Hi")], stream=streamed)
    said = read(exchanged["response"]["body"], reply.content_type)
    if said.error is not None:
        with pytest.raises(ModelBadRequestError, match=said.error):
            await model.respond(request, sink)
        return
    answer = await model.respond(request, sink)
    message = answer.message
    assert [shape(part) for part in message.parts] == shapes_in(said)
    assert all(part.origin == ("anthropic", model.id) for part in message.parts)
    word = said.message["stop_reason"]
    assert (answer.finish_reason, answer.provider_finish_reason) == (ENDS[word], word)
    assert (answer.response_id, answer.model) == (said.message["id"], said.message["model"])
    usage, spent = answer.usage, said.usage
    read_, written = spent["cache_read_input_tokens"], spent["cache_creation_input_tokens"]
    assert (usage.cached_tokens, usage.cache_write_tokens) == (read_, written)
    assert usage.input_tokens == spent["input_tokens"] + read_ + written
    assert usage.output_tokens == spent["output_tokens"]
    thought = (spent.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    assert usage.reasoning_tokens == thought
    if streamed:
        assert sink.text() == (message.content or "")
        assert sink.text("reasoning") == (message.reasoning_content or "")
    else:
        assert not sink.pieces


@needs_folder
async def test_a_recorded_answer_costs_what_the_list_says(server: ReplayServer, sink: Sink) -> None:
    """Sonnet 4.5: 3 dollars for a million tokens of input, 0.3 from the cache, 3.75 into it, 15 of output."""
    pytest.importorskip("genai_prices", reason="the extra prices is not installed")
    reply, exchanged = served("cache-read", 0)
    server.replies = [reply]
    model = model_of(server, exchanged)
    answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
    expected = (3 * 3 + 1111 * 0.3 + 418 * 3.75 + 33 * 15) / 1_000_000
    assert cost_of(model, answer.usage, answer.model) == pytest.approx(expected)


@needs_folder
@pytest.mark.parametrize("name", [name for name in recorded() if name.endswith("-stream")])
async def test_a_stream_of_anthropics_that_breaks_off_is_never_an_answer(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    reply, exchanged = served(name, 0)
    body = reply.body[0]
    end = body.rfind(b"event: message_delta")
    for at in range(0, end, max(1, end // 40)):
        server.replies = [Reply([body[:at]], cut=bool(at % 2))]
        with pytest.raises(ModelError):
            await model_of(server, exchanged).respond(
                ModelRequest([Message("user", "Hi")], stream=True), sink
            )


@needs_folder
@pytest.mark.parametrize("name", recorded())
async def test_what_follows_an_answer_of_anthropics_is_refused_by_no_server(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    reply, exchanged = served(name, 0)
    server.replies = [reply]
    streamed = reply.content_type.startswith("text/event-stream")
    try:
        answer = await model_of(server, exchanged).respond(
            ModelRequest([Message("user", "?")], stream=streamed), sink
        )
    except ModelError:
        return  # which is no answer, and goes nowhere
    message = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    results = [
        Message("tool", "ok", tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls
    ]
    asked = [Message("user", "?"), message, *results, Message("user", "And?")]
    async with ModelServer(lambda request: "ok") as judge:
        models = [
            kind("gemini-3-pro" if kind is Gemini else "other", base_url=judge.base_url, api_key="any")
            for kind in (AnthropicMessages, OpenAIChat, OpenAIResponses, Gemini)
        ]
        for model in models:
            assert (await model.respond(ModelRequest(asked), sink)).message.content == "ok"
        for request in judge.requests[1:]:
            said = json.dumps(request.body)
            marks = ("signature_RED", "redacted_thinking", "srvtoolu", "Eo4D")
            assert not any(mark in said for mark in marks)


def comparable(value: Any) -> Any:
    """What two requests may not differ in: without marks for the cache."""
    if isinstance(value, dict):
        kept = {name: comparable(item) for name, item in value.items() if name != "cache_control"}
        return {name: item for name, item in kept.items() if item not in (None, [])}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def tools_of(request: Any) -> list[ToolDefinition]:
    return [
        ToolDefinition(tool["name"], tool.get("description", ""), tool["input_schema"])
        for tool in request.get("tools", ())
        if "input_schema" in tool
    ]


def history_of(request: Any, first: Message | None) -> list[Message]:
    """The messages of a recorded request; `first` takes the place of the first answer in it."""
    messages: list[Message] = []
    for turn in request["messages"]:
        content = turn["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if turn["role"] == "assistant":
            message = first or answered(content, request["model"])
            first = None
            messages.append(message)
            continue
        for block in content:
            if block["type"] == "tool_result":
                text = block["content"]
                text = text if isinstance(text, str) else text[0]["text"]
                messages.append(Message("tool", text, tool_call_id=block["tool_use_id"]))
            else:
                messages.append(Message("user", block["text"]))
    return messages


def answered(blocks: list[Any], model: str) -> Message:
    """An earlier answer, as its decoder makes it."""
    reader = MessagesReader(model, None, streamed=False, ends=Ends())
    reader.feed(json.dumps({"type": "message", "content": blocks, "stop_reason": "end_turn"}).encode())
    return reader.finish().message


@needs_folder
@pytest.mark.parametrize("name", [name for name in recorded() if name.endswith("-2")])
async def test_the_next_request_is_the_recorded_one(server: ReplayServer, sink: Sink, name: str) -> None:
    assert FOLDER is not None
    second = exchange(name)["request"]["json"]
    first = None
    earlier = f"{name.removesuffix('2')}1"
    if (FOLDER / "anthropic" / f"{earlier}.json").exists():
        reply, exchanged = served(earlier, 0)
        server.replies = [reply]
        asked = ModelRequest([Message("user", "?")])
        answer = await model_of(server, exchanged).respond(asked, sink)
        first = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    thinking = second.get("thinking")
    model = AnthropicMessages(
        second["model"],
        base_url=server.url,
        api_key="any",
        max_output_tokens=second["max_tokens"],
        thinking=thinking["budget_tokens"] if thinking else None,
    )
    body = model._payload(
        ModelRequest(history_of(second, first), tools=tools_of(second)), model._resolve_base_url()
    )
    expected = {name: value for name, value in second.items() if name != "stream"}
    assert comparable(body) == comparable(expected)
