"""Text that was cut anywhere is the same text again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern.messages import Message
from kern.models._text_stream import CharacterJoiner, TextStream, mended, mended_json
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("user", "Hi")], stream=True)
WORDS = "Hi \U0001f600é\U0001f468‍\U0001f469!"


def units(text: str) -> list[str]:
    """The text in units of UTF-16, of which an emoji has two."""
    raw = text.encode("utf-16-le")
    return [raw[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(raw), 2)]


@given(st.text(), st.randoms(use_true_random=False))
def test_halves_that_meet_are_one_character(text: str, dice: object) -> None:
    joiner = CharacterJoiner()
    joined = "".join(joiner.feed(unit) for unit in units(text)) + joiner.end()
    assert joined == text
    assert mended("".join(units(text))) == text


@given(st.text())
def test_bytes_that_meet_are_one_character(text: str) -> None:
    joiner = CharacterJoiner()
    pieces = [bytes([byte]).decode(errors="surrogateescape") for byte in text.encode()]
    assert "".join(map(joiner.feed, pieces)) + joiner.end() == text


@given(st.lists(st.text(st.characters(categories=["Cs", "L"]))))
def test_whatever_comes_can_be_written(pieces: list[str]) -> None:
    shown: list[str] = []
    stream = TextStream(shown.append)
    stream.watch()
    for piece in pieces:
        stream.add(piece)
    stream.end()
    stream.whole().encode()
    assert "".join(shown) == stream.whole()
    json.dumps(mended_json({"a": pieces}), ensure_ascii=False).encode()


def test_a_part_is_a_paragraph_of_its_own() -> None:
    stream = TextStream(None)
    stream.part()
    stream.add("a")
    stream.part()
    stream.part()
    stream.add("")
    stream.add("b")
    assert stream.whole() == "a\n\nb"


def chat(pieces: list[str]) -> bytes:
    deltas: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in pieces] + [
        {"content": piece} for piece in pieces
    ]
    call = [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"x": "'}}]
    rest = [[{"index": 0, "function": {"arguments": piece}}] for piece in [*pieces, '"}']]
    deltas += [{"tool_calls": entries} for entries in (call, *rest)]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in [*chunks, end])


def responses(pieces: list[str], *, repeated: bool) -> bytes:
    call = {"type": "function_call", "id": "fc", "call_id": "1", "name": "f", "arguments": ""}
    added = [
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "content": []}},
        {"type": "response.output_item.added", "output_index": 2, "item": call},
    ]
    kinds = [
        ("reasoning_text", 0, pieces),
        ("output_text", 1, pieces),
        ("function_call_arguments", 2, ['{"x": "', *pieces, '"}']),
    ]
    deltas = [
        {"type": f"response.{kind}.delta", "output_index": index, "delta": piece}
        for kind, index, texts in kinds
        for piece in texts
    ]
    whole = "".join(pieces)
    said = {"type": "message", "content": [{"type": "output_text", "text": whole}]}
    done = {**call, "arguments": f'{{"x": "{whole}"}}'}
    output = [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": whole}]}, said, done]
    end = {"status": "completed", "output": output if repeated else []}
    events = [*added, *deltas, {"type": "response.completed", "response": end}]
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


@pytest.mark.parametrize("body", ["chat", "responses", "responses, the end repeats nothing"])
async def test_halves_of_a_character_meet_again_in_text_reasoning_and_arguments(
    server: ReplayServer, sink: Sink, body: str
) -> None:
    pieces = units(WORDS)
    text = chat(pieces) if body == "chat" else responses(pieces, repeated=body == "responses")
    server.replies = [Reply([text])]
    kind = OpenAIChat if body == "chat" else OpenAIResponses
    message = (await kind("m", base_url=server.url, max_retries=0).respond(ASK, sink)).message
    assert (message.content, message.reasoning_content) == (WORDS, WORDS)
    assert (sink.text(), sink.text("reasoning")) == (WORDS, WORDS)
    assert json.loads(message.tool_calls[0].arguments) == {"x": WORDS}
    for _, piece in sink.pieces:
        piece.encode()


async def test_bytes_of_one_character_in_two_chunks_meet_again(server: ReplayServer, sink: Sink) -> None:
    raw = "é\U0001f600".encode()
    chunks = [
        b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % raw[i : i + 1] for i in range(6)
    ]
    end = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    server.replies = [Reply([*chunks, end])]
    message = (await OpenAIChat("m", base_url=server.url, max_retries=0).respond(ASK, sink)).message
    assert message.content == sink.text() == "é\U0001f600"


async def test_a_half_that_stays_alone_is_replaced(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([chat(["a", "\ud83d"])])]
    message = (await OpenAIChat("m", base_url=server.url, max_retries=0).respond(ASK, sink)).message
    assert message.content == sink.text() == "a\ufffd"
    server.replies = [Reply([responses(["a", "\ud83d"], repeated=True)])]
    message = (await OpenAIResponses("m", base_url=server.url, max_retries=0).respond(ASK, Sink())).message
    assert message.content == "a\ufffd"
