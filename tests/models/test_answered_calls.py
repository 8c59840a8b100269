"""A history that is given by hand: each call has its result behind it, whatever the protocol."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kern import Agent
from kern.messages import Image, Message, Origin, ToolCall
from kern.models._history import NO_RESULT, answered
from kern.models.anthropic import AnthropicMessages
from kern.models.anthropic._conversation import Conversation
from kern.models.base import Model, ModelRequest
from kern.models.bedrock._conversation import Conversation as BedrockConversation
from kern.models.bedrock._facts import facts_of
from kern.models.google import Gemini
from kern.models.google._contents import contents_of
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.openai._chat_encode import encode as encode_chat
from kern.models.openai._responses_encode import encode as encode_responses
from kern.models.servers import server_named
from kern.testing import ModelServer

Turns = list[tuple[list[str], list[str]]]
"""Of each answer the calls, and the results that are right behind it, by what identifies them."""


def called(*ids: str) -> Message:
    return Message("assistant", tool_calls=[ToolCall(each, f"look_{each}", "{}") for each in ids])


def result(of: str, text: str = "found") -> Message:
    return Message("tool", text, tool_call_id=of, tool_name=f"look_{of}")


def chat(messages: Sequence[Message]) -> Turns:
    body = encode_chat(ModelRequest(messages), Origin("openai", "m"), server=server_named("openai"))
    turns: Turns = []
    open_ = False
    for message in body["messages"]:
        if message["role"] == "assistant":
            turns.append(([each["id"] for each in message.get("tool_calls", ())], []))
            open_ = True
        elif message["role"] == "tool":
            assert open_, "a result stands right behind the calls"
            turns[-1][1].append(message["tool_call_id"])
        else:
            open_ = False
    return turns


def responses(messages: Sequence[Message]) -> Turns:
    """Here results only have to be there, each once, behind their calls."""
    calls: list[str] = []
    results: list[str] = []
    for item in encode_responses(ModelRequest(messages), Origin("openai", "m"))["input"]:
        if item.get("type") == "function_call":
            calls.append(item["call_id"])
        elif item.get("type") == "function_call_output":
            assert item["call_id"] in calls
            results.append(item["call_id"])
    assert len(set(calls)) == len(calls)
    return [(calls, results)]


def gemini(messages: Sequence[Message]) -> Turns:
    turns: Turns = []
    for content in contents_of(messages, "gemini-2.5-flash"):
        if content["role"] == "model":
            turns.append(([p["functionCall"]["name"] for p in content["parts"] if "functionCall" in p], []))
        else:
            told = [p["functionResponse"]["name"] for p in content["parts"] if "functionResponse" in p]
            assert turns or not told
            if told:
                turns[-1][1].extend(told)
    return turns


def claude(messages: Sequence[Message]) -> Turns:
    conversation = Conversation()
    conversation.read(messages)
    turns: Turns = []
    for turn in conversation.turns:
        if turn["role"] == "assistant":
            turns.append(([b["id"] for b in turn["content"] if b["type"] == "tool_use"], []))
        else:
            kinds = [block["type"] for block in turn["content"]]
            told = [block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"]
            assert kinds[: len(told)] == ["tool_result"] * len(told)
            if told:
                turns[-1][1].extend(told)
    return turns


def bedrock(messages: Sequence[Message]) -> Turns:
    model = "anthropic.claude-sonnet-4-5-v1:0"
    conversation = BedrockConversation(model, facts_of(model))
    conversation.read(messages)
    turns: Turns = []
    for turn in conversation.turns:
        if turn["role"] == "assistant":
            turns.append(([b["toolUse"]["toolUseId"] for b in turn["content"] if "toolUse" in b], []))
        elif told := [b["toolResult"]["toolUseId"] for b in turn["content"] if "toolResult" in b]:
            turns[-1][1].extend(told)
    return turns


PROTOCOLS = [chat, responses, gemini, claude, bedrock]
HELLO, BYE = Message("user", "Hello"), Message("user", "Bye")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "messages",
    [
        [HELLO, called("a"), BYE],
        [HELLO, called("a", "b"), result("b"), BYE],
        [HELLO, called("a")],
        [HELLO, result("a"), BYE],
        [result("a"), HELLO],
        [HELLO, called("a"), result("a"), result("a"), BYE],
        [HELLO, called("a"), BYE, result("a"), Message("user", "Well?")],
        [HELLO, called("a"), result("z"), BYE],
        [HELLO, called("a", "a"), result("a", "1"), result("a", "2"), BYE],
        [HELLO, called("a"), result("a"), called("a"), result("a"), BYE],
        [HELLO, called("a"), Message("assistant", "Done"), result("a"), BYE],
    ],
)
def test_every_call_has_its_result_and_every_result_its_call(
    protocol: Callable[[Sequence[Message]], Turns], messages: list[Message]
) -> None:
    for calls, results in protocol(messages):
        assert sorted(calls) == sorted(results)


@pytest.mark.parametrize("seed", range(150))
def test_no_random_history_leaves_a_call_without_its_result(seed: int) -> None:
    chance = random.Random(seed)
    ids = "abc"
    messages: list[Message] = []
    for _ in range(chance.randrange(1, 9)):
        kind = chance.choice(["user", "call", "call", "tool", "tool", "said"])
        if kind == "user":
            messages.append(Message("user", "Hi"))
        elif kind == "said":
            messages.append(Message("assistant", "Well"))
        elif kind == "tool":
            messages.append(result(chance.choice(ids)))
        else:
            messages.append(called(*(chance.choice(ids) for _ in range(chance.randrange(1, 4)))))
    for protocol in PROTOCOLS:
        for calls, results in protocol(messages):
            assert sorted(calls) == sorted(results)
    once = answered(messages, unique=True)
    assert answered(once, unique=True) is once


def test_what_is_sound_is_sent_as_it_is() -> None:
    messages = [HELLO, called("a", "b"), result("b"), result("a"), BYE, called("a"), result("a")]
    assert answered(messages) is messages
    renamed = answered(messages, unique=True)
    assert [call.id for message in renamed for call in message.tool_calls] == ["a", "b", "a-2"]


def test_results_go_to_their_calls_in_order_and_lost_ones_are_told_in_words() -> None:
    picture = Image(content=b"\x89PNG\r\n\x1a\n")
    shown = Message("tool", "see", tool_call_id="z", tool_name="draw", images=[picture])
    mended = answered([HELLO, called("a", "a", "b"), result("a", "1"), shown, BYE, result("a", "2")])
    assert [(m.role, m.tool_call_id, m.content) for m in mended] == [
        ("user", None, "Hello"),
        ("assistant", None, None),
        ("tool", "a", "1"),
        ("tool", "a-2", "2"),
        ("tool", "b", NO_RESULT),
        ("user", None, "(result of the tool draw)\n\nsee"),
        ("user", None, "Bye"),
    ]
    assert mended[5].images == [picture]


@pytest.mark.parametrize("made", [OpenAIChat, OpenAIResponses, AnthropicMessages, Gemini])
async def test_a_run_with_such_a_history_is_answered(made: Any) -> None:
    async with ModelServer(["Done."]) as server:
        model: Model = made("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=0)
        output = await Agent(model=model).arun([HELLO, called("a"), BYE, result("q")])
        assert output.content == "Done."
