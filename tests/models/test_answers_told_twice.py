"""What servers repeat at the end of a stream is told once; what only the stream had is not lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import ModelIncompleteError, ModelStreamError
from kern.messages import Message, ReasoningPart
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink, sse

STREAMED = ModelRequest([Message("user", "Hi")], stream=True)
ARGUMENTS = '{"amount": 100}'


def chunk(finish: str | None = None, /, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def whole(**said: Any) -> dict[str, Any]:
    """The last event: the completion as a server that does not stream would give it."""
    reason = "tool_calls" if said.get("tool_calls") else "stop"
    message = {"role": "assistant", "content": None, **said}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"object": "chat.completion", "choices": [choice]}


def call(arguments: Any, /, index: int | None = 0, call_id: str = "a", name: str = "pay") -> dict[str, Any]:
    entry = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return entry if index is None else {"index": index, **entry}


async def chat(server: ReplayServer, sink: Sink, *events: Any) -> ModelResponse:
    server.replies = [Reply([sse(*events, "[DONE]")])]
    return await OpenAIChat("m", base_url=server.url, max_retries=0).respond(STREAMED, sink)


def made(answer: ModelResponse) -> list[tuple[str, Any]]:
    return [(made.name, json.loads(made.arguments)) for made in answer.message.tool_calls]


@pytest.mark.parametrize("last", ["The answer is 42.", "The answer", "The answer is 42. Really.", "Else"])
async def test_a_text_that_is_told_once_more_is_shown_once(
    server: ReplayServer, sink: Sink, last: str
) -> None:
    pieces = [chunk(content="The answer"), chunk(content=" is 42.")]
    answer = await chat(server, sink, *pieces, whole(content=last))
    more = " Really." if last.endswith("Really.") else ""
    assert answer.message.content == sink.text() == f"The answer is 42.{more}"


async def test_reasoning_and_its_details_and_refusals_are_told_once(server: ReplayServer, sink: Sink) -> None:
    said = {
        "reasoning_content": "I think.",
        "reasoning_details": [{"type": "reasoning.text", "text": "I think.", "index": 0}],
        "refusal": "No.",
    }
    message = (await chat(server, sink, chunk(**said), whole(**said))).message
    assert (message.content, message.reasoning_content) == ("No.", "I think.")
    (kept,) = [part.provider_data for part in message.parts if isinstance(part, ReasoningPart)]
    assert kept is not None
    assert kept["reasoning_details"] == said["reasoning_details"]


async def test_the_message_beside_the_last_delta_repeats_it(server: ReplayServer, sink: Sink) -> None:
    last = chunk("stop", role="assistant")
    last["choices"][0]["message"] = {"role": "assistant", "content": "Hi there"}
    assert (await chat(server, sink, chunk(content="Hi there"), last)).message.content == "Hi there"
    assert (await chat(server, sink, last)).message.content == "Hi there"


async def test_a_last_delta_that_holds_all_of_the_text_repeats_it(server: ReplayServer, sink: Sink) -> None:
    text = "A text that nobody says twice in a row."
    answer = await chat(
        server, sink, chunk(content=text[:9]), chunk(content=text[9:]), chunk("stop", content=text)
    )
    assert answer.message.content == text
    answer = await chat(server, sink, chunk(content="ha"), chunk("stop", content="ha"))
    assert answer.message.content == "haha"


@pytest.mark.parametrize(
    "last",
    [
        [call(ARGUMENTS, None)],
        [call(ARGUMENTS, None, "other")],
        [call(ARGUMENTS, None, "")],
        [call({"amount": 100}, None)],
        [call('{"amount":100}', None)],
        [call("", None)],
        [call('{"amount": 7}', None)],
    ],
)
async def test_a_call_that_is_told_once_more_is_made_once(
    server: ReplayServer, sink: Sink, last: list[dict[str, Any]]
) -> None:
    pieces = [chunk(tool_calls=[call(ARGUMENTS[:5])]), chunk(tool_calls=[call(ARGUMENTS[5:])])]
    assert made(await chat(server, sink, *pieces, whole(tool_calls=last))) == [("pay", {"amount": 100})]


async def test_what_the_stream_lacks_the_last_event_adds(server: ReplayServer, sink: Sink) -> None:
    head = chunk(tool_calls=[call("")])
    assert made(await chat(server, sink, head, whole(tool_calls=[call(ARGUMENTS, None)]))) == [
        ("pay", {"amount": 100})
    ]
    both = [call(ARGUMENTS, None), call(ARGUMENTS, None, "b")]
    answer = await chat(server, sink, chunk(tool_calls=[call(ARGUMENTS)]), whole(tool_calls=both))
    assert made(answer) == [("pay", {"amount": 100})] * 2


async def test_equal_calls_of_one_message_are_two(server: ReplayServer, sink: Sink) -> None:
    both = [call("{}", None, "a", "roll"), call("{}", None, "b", "roll")]
    assert made(await chat(server, sink, whole(tool_calls=both))) == [("roll", {})] * 2
    deltas = [chunk(tool_calls=[call("{}", at, str(at), "roll")]) for at in (0, 1)]
    assert made(await chat(server, sink, *deltas, whole(tool_calls=both))) == [("roll", {})] * 2
    answer = await chat(server, sink, *(whole(tool_calls=[one]) for one in both))
    assert made(answer) == [("roll", {})] * 2


async def test_arguments_that_a_last_delta_repeats_are_told_once(server: ReplayServer, sink: Sink) -> None:
    again = {"index": 0, "function": {"arguments": ARGUMENTS}}
    pieces = [chunk(tool_calls=[call(ARGUMENTS[:5])]), chunk(tool_calls=[call(ARGUMENTS[5:], name="")])]
    for head in (pieces, [chunk(tool_calls=[call(ARGUMENTS)])]):
        answer = await chat(server, sink, *head, chunk("tool_calls", tool_calls=[again]))
        assert made(answer) == [("pay", {"amount": 100})]


async def test_an_id_that_is_made_up_for_each_delta_begins_no_call(server: ReplayServer, sink: Sink) -> None:
    pieces = [
        chunk(tool_calls=[call(part, 0, f"a{at}")]) for at, part in enumerate(('{"amount"', ": 1", "00}"))
    ]
    answer = await chat(server, sink, *pieces, chunk("tool_calls"))
    assert made(answer) == [("pay", {"amount": 100})]


# The Responses API.

ITEM = {"type": "function_call", "id": "fc", "call_id": "c", "name": "pay", "status": "completed"}


def added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(text: str, index: int = 0) -> dict[str, Any]:
    return {"type": "response.function_call_arguments.delta", "output_index": index, "delta": text}


def completed(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = {"status": "completed", "output": list(items), **more}
    return {"type": "response.completed", "response": response}


def said(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg", "role": "assistant", "content": content, **more}


async def respond(server: ReplayServer, sink: Sink, *events: Any) -> ModelResponse:
    server.replies = [Reply([sse(*events)])]
    return await OpenAIResponses("m", base_url=server.url, max_retries=0).respond(STREAMED, sink)


@pytest.mark.parametrize("told", ["", "{}", None, ARGUMENTS, '{"amount": 7}'])
@pytest.mark.parametrize("item_done", [True, False])
async def test_streamed_arguments_are_those_of_the_call(
    server: ReplayServer, sink: Sink, told: str | None, item_done: bool
) -> None:
    last = {**ITEM, "arguments": told, "name": "pay" if told else ""}
    pieces = [added(ITEM), delta(ARGUMENTS[:6]), delta(ARGUMENTS[6:])]
    end = [done(last)] if item_done else []
    for final in (completed(last), completed(), completed({**last, "id": "new", "call_id": "c"})):
        assert made(await respond(server, sink, *pieces, *end, final)) == [("pay", {"amount": 100})]


async def test_arguments_that_only_their_done_event_tells_are_the_calls(
    server: ReplayServer, sink: Sink
) -> None:
    all_at_once = {
        "type": "response.function_call_arguments.done",
        "output_index": 0,
        "arguments": ARGUMENTS,
    }
    answer = await respond(server, sink, added(ITEM), all_at_once, completed({**ITEM, "arguments": ""}))
    assert made(answer) == [("pay", {"amount": 100})]


async def test_items_that_the_last_event_leaves_out_belong_to_the_answer(
    server: ReplayServer, sink: Sink
) -> None:
    first = {**ITEM, "arguments": ARGUMENTS}
    second = {**ITEM, "id": "fc2", "call_id": "c2", "arguments": '{"amount": 2}'}
    answer = await respond(server, sink, done(first), completed(said("Paid.")))
    assert made(answer) == [("pay", {"amount": 100})]
    assert answer.message.content == "Paid."
    answer = await respond(server, sink, done(first), done(second, 1), completed(second))
    assert made(answer) == [("pay", {"amount": 100}), ("pay", {"amount": 2})]
    answer = await respond(server, sink, done(said("Paid.")), done(first, 1), completed(first))
    assert (answer.message.content, len(answer.message.tool_calls)) == ("Paid.", 1)


async def test_items_with_new_ids_in_the_last_event_are_the_same(server: ReplayServer, sink: Sink) -> None:
    first = {**ITEM, "arguments": ARGUMENTS}
    renamed = [said("Hi", id="new"), {**first, "id": "new2", "call_id": "other"}]
    answer = await respond(server, sink, done(said("Hi")), done(first, 1), completed(*renamed))
    assert answer.message.content == "Hi"
    assert made(answer) == [("pay", {"amount": 100})]


async def test_a_last_event_with_a_piece_of_the_text_does_not_cut_it(
    server: ReplayServer, sink: Sink
) -> None:
    pieces = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": text} for text in ("Hi ", "you")
    ]
    for last in ("you", "", "Hi you"):
        assert (await respond(server, sink, *pieces, completed(said(last)))).message.content == "Hi you"
    assert (await respond(server, sink, *pieces, completed(said("Hi you!")))).message.content == "Hi you!"


async def test_an_item_that_is_told_twice_is_one(server: ReplayServer, sink: Sink) -> None:
    item = {**ITEM, "arguments": ARGUMENTS}
    assert made(await respond(server, sink, completed(item, item))) == [("pay", {"amount": 100})]
    assert (await respond(server, sink, completed(said("Hi"), said("Hi")))).message.content == "Hi"
    other = {**item, "id": "fc2", "call_id": "c2"}
    assert len(made(await respond(server, sink, completed(item, other)))) == 2


# Ends.


@pytest.mark.parametrize("bad", ["length", "max_tokens", "content_filter"])
@pytest.mark.parametrize("again", ["stop", "tool_calls", "STOP"])
async def test_a_cut_is_not_taken_back_by_a_later_finish_reason(
    server: ReplayServer, sink: Sink, bad: str, again: str
) -> None:
    with pytest.raises(ModelIncompleteError) as caught:
        await chat(server, sink, chunk(content="Half"), chunk(bad), chunk(again))
    assert caught.value.content == "Half"


async def test_an_error_is_not_taken_back_and_a_word_that_says_nothing_is(
    server: ReplayServer, sink: Sink
) -> None:
    with pytest.raises(ModelStreamError, match="error"):
        await chat(server, sink, chunk(content="Half"), chunk("error"), chunk("stop"))
    assert (await chat(server, sink, chunk("null", content="Hi"), chunk("stop"))).message.content == "Hi"
    refused = await chat(server, sink, chunk("refusal", content="No"), chunk("stop"))
    assert refused.finish_reason == "refusal"


async def test_a_text_after_its_finish_reason_needs_another_end(server: ReplayServer, sink: Sink) -> None:
    events = [chunk("stop", role="assistant", content=""), chunk(content="The answer"), chunk(content=" is")]
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    for end in ("[DONE]", chunk("stop"), usage):
        server.replies = [Reply([sse(*events, end)])]
        answer = await OpenAIChat("m", base_url=server.url, max_retries=0).respond(STREAMED, sink)
        assert answer.message.content == "The answer is"
    server.replies = [Reply([sse(*events)])]
    with pytest.raises(ModelStreamError, match="continued after its finish reason 'stop'"):
        await OpenAIChat("m", base_url=server.url, max_retries=0).respond(STREAMED, sink)
    server.replies = [
        Reply([sse(chunk("tool_calls", tool_calls=[call("")]), chunk(tool_calls=[call('{"a')]))])
    ]
    with pytest.raises(ModelStreamError, match="continued after"):
        await OpenAIChat("m", base_url=server.url, max_retries=0).respond(STREAMED, sink)


async def test_a_completed_response_that_names_a_cut_is_cut(server: ReplayServer, sink: Sink) -> None:
    cut = completed(said("Half"), incomplete_details={"reason": "max_output_tokens"})
    with pytest.raises(ModelIncompleteError):
        await respond(server, sink, cut)
    for item in (said("Half", status="incomplete"), {**ITEM, "arguments": '{"a', "status": "incomplete"}):
        with pytest.raises(ModelStreamError, match="incomplete"):
            await respond(server, sink, completed(item))
    whole_one = completed(said("All"), incomplete_details=None)
    assert (await respond(server, sink, whole_one)).message.content == "All"
