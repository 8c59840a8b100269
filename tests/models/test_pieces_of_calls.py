"""Pieces of a call's arguments that name another place than the call's start, or none."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern import Agent
from kern.errors import ModelIncompleteError, ModelStreamError
from kern.models.anthropic import AnthropicMessages
from kern.models.base import Model
from kern.models.bedrock import BedrockConverse
from tests.models.bedrock_wire import FRAMES, KEYS, frame
from tests.models.replay import ReplayServer, Reply

PLACE = {"bedrock": "contentBlockIndex", "anthropic": "index"}
BEDROCK: list[dict[str, Any]] = [
    {"kind": "messageStart", "role": "assistant"},
    {"kind": "contentBlockDelta", "contentBlockIndex": 0, "delta": {"text": "Let me see."}},
    {"kind": "contentBlockStop", "contentBlockIndex": 0},
    {
        "kind": "contentBlockStart",
        "contentBlockIndex": 1,
        "start": {"toolUse": {"toolUseId": "t1", "name": "delete"}},
    },
    {"kind": "contentBlockDelta", "contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"folder": '}}},
    {"kind": "contentBlockDelta", "contentBlockIndex": 1, "delta": {"toolUse": {"input": '"tmp"}'}}},
    {"kind": "contentBlockStop", "contentBlockIndex": 1},
    {"kind": "messageStop", "stopReason": "tool_use"},
    {"kind": "metadata", "usage": {"inputTokens": 5, "outputTokens": 5}},
]
ANTHROPIC: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": {"input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Let me see."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t1", "name": "delete", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"folder": '},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '"tmp"}'},
    },
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
EVENTS = {"bedrock": BEDROCK, "anthropic": ANTHROPIC}
START, PIECES = 3, (4, 5)


def reply(kind: str, events: list[dict[str, Any]]) -> Reply:
    if kind == "bedrock":
        frames = [
            frame(event["kind"], **{name: it for name, it in event.items() if name != "kind"})
            for event in events
        ]
        return Reply(frames, content_type=FRAMES)
    return Reply([f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events])


def done(kind: str) -> Reply:
    begin, end = EVENTS[kind][:3], copy.deepcopy(EVENTS[kind][7:])
    if kind == "bedrock":
        end[0]["stopReason"] = "end_turn"
    else:
        end[0]["delta"]["stop_reason"] = "end_turn"
    return reply(kind, [*begin, *end])


def model(kind: str, server: ReplayServer) -> Model:
    url = server.url.removesuffix("/v1")
    keys: dict[str, Any] = {**KEYS}
    if kind == "bedrock":
        return BedrockConverse("us.anthropic.claude-sonnet-4-5", base_url=url, max_retries=0, **keys)
    return AnthropicMessages("claude-sonnet-4-5", base_url=url, api_key="any", max_retries=0)


async def ran(kind: str, server: ReplayServer, events: list[dict[str, Any]]) -> list[str]:
    server.replies = [reply(kind, events), done(kind)]
    folders: list[str] = []

    def delete(folder: str = "everything") -> str:
        """Delete."""
        folders.append(folder)
        return "gone"

    stream = Agent(model=model(kind, server), tools=[delete]).arun("Hi", stream=True)
    try:
        async for _ in stream:
            pass
    except ModelStreamError as error:
        assert "the answer is damaged: the input of a call" in str(error)  # noqa: PT017 - with what ran
        assert folders == []
        raise
    return folders


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("place", [1, 1.0, "1"])
async def test_an_index_may_be_written_as_another_kind_of_number(
    server: ReplayServer, kind: str, place: Any
) -> None:
    events = copy.deepcopy(EVENTS[kind])
    for number in PIECES:
        events[number][PLACE[kind]] = place
    assert await ran(kind, server, events) == ["tmp"]


@pytest.mark.parametrize("kind", EVENTS)
async def test_a_cut_is_not_taken_back_by_an_end_that_follows(server: ReplayServer, kind: str) -> None:
    own = EVENTS[kind]
    events = list(map(copy.deepcopy, [*own[:3], own[7], *own[7:]]))
    for event, word in zip(events[3:5], ("max_tokens", "end_turn"), strict=True):
        if kind == "bedrock":
            event["stopReason"] = word
        else:
            event["delta"]["stop_reason"] = word
    server.replies = [reply(kind, events)]
    with pytest.raises(ModelIncompleteError):
        async for _ in Agent(model=model(kind, server)).arun("Hi", stream=True):
            pass


@pytest.mark.parametrize("kind", EVENTS)
async def test_a_start_that_is_told_twice_is_one_call(server: ReplayServer, kind: str) -> None:
    events = copy.deepcopy(EVENTS[kind])
    events.insert(START, copy.deepcopy(events[START]))
    assert await ran(kind, server, events) == ["tmp"]


@pytest.mark.parametrize("kind", EVENTS)
async def test_an_answer_without_any_index_has_its_arguments(server: ReplayServer, kind: str) -> None:
    events = copy.deepcopy(EVENTS[kind])
    for event in events:
        event.pop(PLACE[kind], None)
    assert await ran(kind, server, events) == ["tmp"]


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("moved", [(START,), PIECES], ids=["start", "pieces"])
@pytest.mark.parametrize("place", [None, 7, [1], "x"])
async def test_pieces_of_a_call_that_nobody_has_begun_are_damage(
    server: ReplayServer, kind: str, moved: tuple[int, ...], place: Any
) -> None:
    events = copy.deepcopy(EVENTS[kind])
    for number in moved:
        events[number][PLACE[kind]] = place
    with pytest.raises(ModelStreamError):
        await ran(kind, server, events)
