"""Answers in which a value is not what it should be: an answer or an error of Kern's, and nothing else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from kern._json import json_bytes
from kern.errors import KernError, UsageError
from kern.messages import Message
from kern.messages import Origin as Maker
from kern.models._ends import Ends
from kern.models._failures import Origin, StreamFault, of_fault
from kern.models._reading import AnswerReader
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.openai._chat_decode import ChatReader
from kern.models.openai._responses_decode import ResponsesReader
from tests.models.replay import Sink

ODD: list[Any] = [
    None,
    True,
    -1,
    1.5,
    1e400,
    "",
    "x",
    "\ud83d",
    [],
    [None],
    [[1]],
    {},
    {"a": {"b": [1]}},
    10**30,
]
CALL = {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
SAID = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "text", "text": "Hi"},
    ],
    "reasoning_content": "Hm",
    "refusal": "No",
    "audio": {"transcript": "Hi"},
    "tool_calls": [CALL, CALL],
    "function_call": {"name": "f", "arguments": "{}"},
    "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 0}],
    "extra_content": {"google": {"thought_signature": "x"}},
    "images": [{"image_url": {"url": "data:image/png;base64,aGk="}}],
}
CHOICE = {"index": 0, "finish_reason": "stop", "native_finish_reason": "stop", "error": None}
CHAT = {"object": "x", "choices": [{**CHOICE, "message": SAID}], "usage": USAGE, "error": None}
CHUNK = {"object": "x", "choices": [{**CHOICE, "delta": SAID}], "usage": USAGE, "x_groq": {"usage": USAGE}}
ERROR = {"error": {"message": "Oh", "code": 500, "type": "x", "metadata": {"raw": "x"}, "status": 500}}
OUTPUT = [
    {"type": "reasoning", "id": "rs", "content": [{"type": "reasoning_text", "text": "Hm"}], "summary": []},
    {"type": "message", "id": "m", "phase": "commentary", "content": [{"type": "output_text", "text": "Hi"}]},
    {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"},
    {"type": "image_generation_call", "id": "i", "result": "aGk=", "output_format": "png"},
    {"type": "web_search_call", "id": "w"},
]
RESPONSE = {
    "status": "completed",
    "error": None,
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": OUTPUT,
    "usage": {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
}
EVENTS = [
    {"type": "response.output_item.added", "output_index": 0, "item": OUTPUT[1]},
    {"type": "response.output_text.delta", "output_index": 0, "item_id": "m", "delta": "Hi"},
    {"type": "response.reasoning_text.delta", "output_index": 1, "content_index": 0, "delta": "Hm"},
    {"type": "response.function_call_arguments.delta", "output_index": 2, "item_id": "fc", "delta": "{}"},
    {"type": "response.output_item.done", "output_index": 2, "item": OUTPUT[2]},
    {"type": "error", "code": "x", "message": "Oh"},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def garbled(value: Any) -> Iterator[Any]:
    """The value with one place after the other missing, or odd."""
    for path in places(value):
        for odd in (..., *ODD):
            changed = copy.deepcopy(value)
            at = changed
            for key in path[:-1]:
                at = at[key]
            if odd is ...:
                del at[path[-1]]
            else:
                at[path[-1]] = odd
            yield changed


def sse(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def chat(*, streamed: bool) -> AnswerReader:
    return ChatReader(Maker("openai", "m"), Sink(), streamed=streamed, ends=Ends())


def responses(*, streamed: bool) -> AnswerReader:
    return ResponsesReader(Maker("openai", "m"), Sink(), streamed=streamed, ends=Ends(), structured=False)


def check(reader: AnswerReader, body: bytes, model: OpenAIChat | OpenAIResponses) -> bool:
    """Read the body; True if there was an answer. It can be stored, and sent back."""
    try:
        reader.feed(body)
        answer = reader.finish()
    except StreamFault as fault:
        str(of_fault(fault, Origin("p", "m", "h"), None).error).encode(errors="surrogatepass")
        return False
    except KernError:
        return False
    usage = answer.usage.to_dict()
    counts = [count for name, count in usage.items() if name not in ("billed", "terms")]
    counts += usage.get("billed", {}).values()
    assert min(counts, default=0) >= 0
    again = Message.from_dict(json.loads(json_bytes(answer.message.to_dict())))
    try:
        model._body(ModelRequest([Message("user", "Hi"), again, Message("user", "?")]))
    except UsageError as error:
        pytest.fail(f"{error} after {body!r}")
    return True


@pytest.mark.parametrize(
    "answer", [CHAT, {**CHAT, "choices": [{**CHOICE, "message": {"content": "Hi"}}]}, ERROR]
)
def test_a_garbled_chat_completion_is_an_answer_or_an_error(answer: dict[str, Any]) -> None:
    model = OpenAIChat("m")
    for changed in garbled(answer):
        check(chat(streamed=False), json.dumps(changed).encode(), model)


@pytest.mark.parametrize("first", [CHUNK, ERROR])
def test_a_garbled_chunk_is_an_answer_or_an_error(first: dict[str, Any]) -> None:
    model = OpenAIChat("m")
    end = {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": "stop"}]}
    for changed in garbled(first):
        check(chat(streamed=True), sse(changed, end), model)


@pytest.mark.parametrize(
    "answer", [RESPONSE, {**RESPONSE, "status": "incomplete"}, {**ERROR, "status": "failed"}]
)
@pytest.mark.parametrize("streamed", [True, False])
def test_a_garbled_response_is_an_answer_or_an_error(answer: dict[str, Any], streamed: bool) -> None:
    model = OpenAIResponses("m")
    for changed in garbled(answer):
        body = (
            sse({"type": "response.completed", "response": changed})
            if streamed
            else json.dumps(changed).encode()
        )
        check(responses(streamed=streamed), body, model)


def test_a_garbled_event_is_an_answer_or_an_error() -> None:
    model = OpenAIResponses("m")
    end = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    for events in (EVENTS[:-1], EVENTS):
        for changed in garbled(events):
            check(
                responses(streamed=True),
                sse(*changed, end),
                model,
            )


def test_bytes_that_are_flipped_are_an_answer_or_an_error() -> None:
    dice = random.Random(8)
    for reader, model, body in (
        (chat, OpenAIChat("m"), sse(CHUNK, {"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        (
            responses,
            OpenAIResponses("m"),
            sse(*EVENTS[:-1], {"type": "response.completed", "response": RESPONSE}),
        ),
    ):
        for _ in range(1_500):
            flipped = bytearray(body)
            for _ in range(dice.randint(1, 3)):
                flipped[dice.randrange(len(flipped))] = dice.randrange(256)
            check(reader(streamed=True), bytes(flipped), model)
