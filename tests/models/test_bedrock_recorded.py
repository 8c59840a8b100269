"""What Bedrock has sent, served byte for byte and decoded, and how it goes back: recorded exchanges.

The folder lies beside the project, not in it. What a body says is read here by other means than Kern's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern.errors import ModelError, ModelIncompleteError
from kern.messages import Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._ends import Ends
from kern.models._failures import StreamFault
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.bedrock import BedrockConverse
from kern.models.bedrock._decode import ConverseReader
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.prices import cost_of
from kern.testing import ModelServer
from tests.models.bedrock_wire import FRAMES, KEYS, frames, judge, served_bytes, unpacked
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_recorded_traffic import FOLDER, needs_folder, pieces

HOW_MANY = 6


def recorded() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("bedrock/*.json")) if FOLDER is not None else []


def exchange(name: str) -> Any:
    assert FOLDER is not None
    return json.loads((FOLDER / "bedrock" / f"{name}.json").read_text(encoding="utf-8"))


def id_of(recorded: Any) -> str:
    return str(recorded["request"]["path"].split("/")[2].replace("%3A", ":"))


def model_of(recorded: Any, base_url: str, **settings: Any) -> BedrockConverse:
    address = base_url.removesuffix("/v1")
    return BedrockConverse(id_of(recorded), base_url=address, max_retries=0, **{**KEYS, **settings})


def served(name: str, seed: int) -> tuple[Reply, Any]:
    recorded = exchange(name)
    answer = recorded["response"]
    kind = answer["headers"]["content-type"]
    return Reply(pieces(served_bytes(answer), seed), status=answer["status"], content_type=kind), recorded


@dataclass
class Said:
    """What a body says."""

    blocks: list[dict[str, Any]] = field(default_factory=list)
    word: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    why: str = ""


def read(body: bytes, content_type: str) -> Said:
    """The blocks and the end of an answer; those of a stream put together of its events."""
    if content_type != FRAMES:
        whole = json.loads(body)
        why = whole.get("trace", {}).get("guardrail", {}).get("actionReason", "")
        return Said(whole["output"]["message"]["content"], whole["stopReason"], whole["usage"], why)
    said = Said()
    blocks: dict[int, dict[str, Any]] = {}
    for kind, event in unpacked(body):
        if kind == "contentBlockStart":
            blocks[event["contentBlockIndex"]] = {"toolUse": {**event["start"]["toolUse"], "input": ""}}
        elif kind == "contentBlockDelta":
            block = blocks.setdefault(event["contentBlockIndex"], {"text": "", "citations": []})
            delta = event["delta"]
            if "toolUse" in delta:
                block["toolUse"]["input"] += delta["toolUse"]["input"]
            elif "citation" in delta:
                block["citations"].append(delta["citation"])
            else:
                block["text"] += delta["text"]
        elif kind == "messageStop":
            said.word = event["stopReason"]
        elif kind == "metadata":
            said.usage = event["usage"]
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
        elif block["citations"]:
            block = {
                "citationsContent": {"content": [{"text": block["text"]}], "citations": block["citations"]}
            }
        said.blocks.append(block)
    return said


def shape(part: Any) -> Any:
    """A part, as far as a body says it."""
    match part:
        case TextPart():
            return ("text", part.text, [citation.provider_data for citation in part.citations])
        case ReasoningPart():
            return ("reasoning", part.text, part.signature, part.redacted)
        case ToolCall():
            return ("call", part.id, part.name, json.loads(part.arguments))
        case ProviderCall():
            return ("provider", part.id, part.name, json.loads(part.arguments), part.result, part.status)
    raise AssertionError(part)


def shapes_in(said: Said) -> list[Any]:
    """The parts that the blocks of a body make."""
    results = {b["toolResult"]["toolUseId"]: b["toolResult"] for b in said.blocks if "toolResult" in b}
    shapes: list[Any] = []
    for block in said.blocks:
        if "text" in block:
            shapes.append(("text", block["text"], []))
        elif "citationsContent" in block:
            cited = block["citationsContent"]
            if text := "".join(piece["text"] for piece in cited.get("content", ())):
                shapes.append(("text", text, cited["citations"]))
            else:
                shapes[-1][2].extend(cited["citations"])
        elif "reasoningContent" in block:
            told = block["reasoningContent"]["reasoningText"]
            shapes.append(("reasoning", told["text"], told["signature"], None))
        elif "toolUse" in block:
            call = block["toolUse"]
            if call.get("type") == "server_tool_use":
                result = results[call["toolUseId"]]["content"]
                shapes.append(
                    ("provider", call["toolUseId"], call["name"], call["input"], result, "completed")
                )
            else:
                shapes.append(("call", call["toolUseId"], call["name"], call["input"]))
        else:
            assert "toolResult" in block
    return shapes


ENDS = {"end_turn": "stop", "tool_use": "tool_calls"}


@needs_folder
def test_all_of_bedrock_is_read() -> None:
    assert len(recorded()) == HOW_MANY


@needs_folder
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", recorded())
async def test_what_bedrock_has_sent_is_decoded_as_the_body_says(
    server: ReplayServer, sink: Sink, name: str, seed: int
) -> None:
    reply, exchanged = served(name, seed)
    server.replies = [reply]
    model = model_of(exchanged, server.url)
    streamed = reply.content_type == FRAMES
    request = ModelRequest([Message("user", "Hi")], stream=streamed)
    said = read(served_bytes(exchanged["response"]), reply.content_type)
    if said.word == "guardrail_intervened":
        with pytest.raises(ModelIncompleteError, match=said.why) as caught:
            await model.respond(request, sink)
        assert (caught.value.reason, caught.value.content) == ("content_filter", said.blocks[0]["text"])
        return
    answer = await model.respond(request, sink)
    message = answer.message
    assert [shape(part) for part in message.parts] == shapes_in(said)
    assert all(part.origin == ("bedrock", model.id) for part in message.parts)
    assert (answer.finish_reason, answer.provider_finish_reason) == (ENDS[said.word], said.word)
    usage, spent = answer.usage, said.usage
    assert (usage.input_tokens, usage.output_tokens) == (spent["inputTokens"], spent["outputTokens"])
    assert usage.total_tokens == spent["totalTokens"]
    assert server.asked[0].path.endswith("/converse-stream" if streamed else "/converse")
    if streamed:
        assert sink.text() == (message.content or "")
    else:
        assert not sink.pieces


@needs_folder
async def test_with_a_guardrail_among_the_good_ends_its_words_are_the_answer(
    server: ReplayServer, sink: Sink
) -> None:
    reply, exchanged = served("guardrail", 0)
    server.replies = [reply]
    model = model_of(exchanged, server.url, good_ends=["guardrail_intervened"])
    answer = await model.respond(ModelRequest([Message("user", "Hi")]), sink)
    assert (answer.message.content, answer.finish_reason) == ("Blocked by guardrail.", "content_filter")


@needs_folder
async def test_a_recorded_answer_of_bedrocks_costs_what_the_list_says(
    server: ReplayServer, sink: Sink
) -> None:
    """Sonnet 3.7: 3 dollars for a million tokens of input, 15 of output."""
    pytest.importorskip("genai_prices", reason="the extra prices is not installed")
    reply, exchanged = served("thinking-call-1", 0)
    server.replies = [reply]
    model = model_of(exchanged, server.url)
    answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
    assert cost_of(model, answer.usage, answer.model) == pytest.approx((397 * 3 + 130 * 15) / 1_000_000)


@needs_folder
@pytest.mark.parametrize("name", [name for name in recorded() if "stream" in name])
async def test_a_stream_of_bedrocks_that_breaks_off_is_never_an_answer(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    """At every byte up to the event that tells how the answer has ended."""
    reply, exchanged = served(name, 0)
    body = reply.body[0]
    parts = list(frames(body))
    end = len(body) - len(parts[-1])
    assert [kind for kind, _ in unpacked(body)][-2:] == ["messageStop", "metadata"]
    for at in range(end):
        reader = ConverseReader("m", sink, streamed=True, ends=Ends())
        with pytest.raises(StreamFault):
            _ = (reader.feed(body[:at]), reader.finish())
    for at in range(0, end, max(1, end // 20)):
        server.replies = [Reply([body[:at]], cut=bool(at % 2), content_type=FRAMES)]
        with pytest.raises(ModelError):
            await model_of(exchanged, server.url).respond(
                ModelRequest([Message("user", "Hi")], stream=True), sink
            )


@needs_folder
@pytest.mark.parametrize("name", recorded())
async def test_what_follows_an_answer_of_bedrocks_is_refused_by_no_server(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    reply, exchanged = served(name, 0)
    server.replies = [reply]
    model = model_of(exchanged, server.url)
    request = ModelRequest([Message("user", "?")], stream=reply.content_type == FRAMES)
    try:
        answer = await model.respond(request, sink)
    except ModelError:
        return  # which is no answer, and goes nowhere
    message = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    results = [
        Message("tool", "ok", tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls
    ]
    asked = [Message("user", "?"), message, *results, Message("user", "And?")]
    judge(model._payload(ModelRequest(asked), model._resolve_base_url()))
    async with ModelServer(lambda request: "ok") as other:
        models = [
            kind("gemini-3-pro" if kind is Gemini else "other", base_url=other.base_url, api_key="any")
            for kind in (AnthropicMessages, OpenAIChat, OpenAIResponses, Gemini)
        ]
        for judging in models:
            assert (await judging.respond(ModelRequest(asked), sink)).message.content == "ok"
        for received in other.requests:
            assert "ErcBCkgIBhABGAIiQDYN" not in json.dumps(received.body)
            assert "tooluse_" not in json.dumps(received.body)


def tools_of(request: Any) -> list[ToolDefinition]:
    specs = [tool["toolSpec"] for tool in request.get("toolConfig", {}).get("tools", ())]
    return [
        ToolDefinition(spec["name"], spec.get("description", ""), spec["inputSchema"]["json"])
        for spec in specs
    ]


def comparable(body: Any) -> Any:
    """Without what is empty: an empty list or object tells no more than none."""
    return {name: value for name, value in body.items() if value not in ([], {})}


@needs_folder
@pytest.mark.parametrize("name", [name for name in recorded() if name.endswith("-2")])
async def test_the_next_request_to_bedrock_is_the_recorded_one(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    second = exchange(name)["request"]["json"]
    reply, exchanged = served(f"{name.removesuffix('2')}1", 0)
    server.replies = [reply]
    answer = await model_of(exchanged, server.url).respond(ModelRequest([Message("user", "?")]), sink)
    first = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    messages: list[Message] = []
    for turn in second["messages"]:
        if turn["role"] == "assistant":
            messages.append(first)
            continue
        for block in turn["content"]:
            if (result := block.get("toolResult")) is not None:
                text = result["content"][0]["text"]
                messages.append(Message("tool", text, tool_call_id=result["toolUseId"]))
            else:
                messages.append(Message("user", block["text"]))
    model = model_of(exchanged, server.url, additional_fields=second["additionalModelRequestFields"])
    body = model._payload(ModelRequest(messages, tools=tools_of(second)), model._resolve_base_url())
    assert comparable(body) == comparable(second)
    judge(body)


@needs_folder
@pytest.mark.parametrize("name", ["stream-call", "citations-stream"])
async def test_a_request_asks_bedrock_as_the_recorded_one_does(server: ReplayServer, name: str) -> None:
    asked = exchange(name)["request"]
    said = asked["json"]
    system = [Message("system", block["text"]) for block in said.get("system", ())]
    user = Message("user", said["messages"][0]["content"][0]["text"])
    choice = said.get("toolConfig", {}).get("toolChoice")
    request = ModelRequest(
        [*system, user],
        tools=tools_of(said),
        tool_choice=None if choice is None else choice["tool"],
        stream=True,
    )
    model = model_of({"request": asked}, server.url)
    body = comparable(model._payload(request, model._resolve_base_url()))
    expected = comparable(said)
    expected["messages"][0]["content"] = expected["messages"][0]["content"][:1]
    assert body == expected
