"""Responses as servers really send them: nothing of an answer is lost, and no cut answer is whole."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kern import Agent
from kern.errors import (
    ModelAuthError,
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelRateLimitError,
    ModelServerError,
    ModelStreamError,
)
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIResponses
from kern.run.events import RunIntermediateContentEvent
from kern.testing import ScriptedModel
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("user", "Hi")])
STREAMED = ModelRequest([Message("user", "Hi")], stream=True)
BOTH = pytest.mark.parametrize("stream", [True, False])


def model(server: ReplayServer, **settings: Any) -> OpenAIResponses:
    return OpenAIResponses("m", base_url=server.url, **{"max_retries": 0, **settings})


def said(text: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text}],
        **more,
    }


def function_call(identity: str, arguments: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{identity}",
        "call_id": identity,
        "name": "f",
        "arguments": arguments,
    }


def response(*output: Any, status: str | None = "completed", **more: Any) -> dict[str, Any]:
    return {"object": "response", "output": list(output), **({"status": status} if status else {}), **more}


def reply(
    answer: dict[str, Any], *, stream: bool, event: str = "response.completed", before: Any = ()
) -> Reply:
    if stream:
        return Reply([sse(*before, {"type": event, "response": answer})])
    return Reply([json.dumps(answer).encode()], content_type="application/json")


def item_events(index: int | None, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one item, as far as the end does not repeat them."""
    place = {} if index is None else {"output_index": index}
    if item["type"] == "message":
        [part] = item["content"]
        kind, text, empty = "output_text", part["text"], {"content": []}
    else:
        kind, text, empty = "function_call_arguments", item["arguments"], {"arguments": ""}
    half = len(text) // 2
    return [
        {"type": "response.output_item.added", **place, "item": {**item, **empty}},
        *({"type": f"response.{kind}.delta", **place, "delta": t} for t in (text[:half], text[half:])),
        {"type": "response.output_item.done", **place, "item": item},
    ]


async def respond(
    server: ReplayServer, sink: Sink, answer: Reply, *, stream: bool, **more: Any
) -> ModelResponse:
    server.replies = [answer]
    return await model(server, **more).respond(STREAMED if stream else ASK, sink)


# Items.

UNKNOWN = [
    {"type": "mcp_approval_request", "id": "1", "name": "f", "arguments": "{}"},
    {"type": "custom_tool_call", "id": "2", "call_id": "c", "name": "sql", "input": "select 1"},
    {"type": "web_search_call", "id": "3", "status": "completed"},
    {"type": "something_new", "id": "4"},
    {"note": "no type"},
]


@BOTH
@pytest.mark.parametrize("item", UNKNOWN)
async def test_an_answer_of_unknown_items_alone_names_their_types(
    server: ReplayServer, sink: Sink, item: dict[str, Any], stream: bool
) -> None:
    reasoning = {"type": "reasoning", "id": "rs", "summary": []}
    with pytest.raises(ModelBehaviorError, match=item.get("type", "none")):
        await respond(server, sink, reply(response(reasoning, item), stream=stream), stream=stream)


@BOTH
@pytest.mark.parametrize("item", UNKNOWN)
async def test_unknown_items_beside_an_answer_are_kept_and_logged(
    server: ReplayServer, sink: Sink, item: dict[str, Any], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kern"):
        answer = await respond(server, sink, reply(response(item, said("Yes")), stream=stream), stream=stream)
    assert answer.message.content == "Yes"
    assert (item.get("type", "none") in caplog.text) == (item.get("type") != "web_search_call")
    kept = [(part.provider_data or {}).get("type") for part in answer.message.parts]
    assert kept == [item["type"], None] if "type" in item else [None]
    request = ModelRequest([Message("user", "Hi"), answer.message, Message("user", "?")])
    await model(server).respond(request, sink)


async def test_a_fallback_is_asked_after_an_answer_that_holds_nothing_known(server: ReplayServer) -> None:
    server.replies = [reply(response(UNKNOWN[0]), stream=False)]
    agent = Agent(model=model(server), fallback_models=[ScriptedModel(["From the other."])])
    assert (await agent.arun("Hi")).content == "From the other."


@BOTH
@pytest.mark.parametrize("indexes", [(0, 1), (0, 0), (None, None)])
async def test_several_messages_are_paragraphs(
    server: ReplayServer, sink: Sink, stream: bool, indexes: tuple[int | None, int | None]
) -> None:
    items = [said("One."), said("Two.")]
    before = [event for index, item in zip(indexes, items, strict=True) for event in item_events(index, item)]
    answer = await respond(server, sink, reply(response(*items), stream=stream, before=before), stream=stream)
    assert answer.message.content == "One.\n\nTwo."
    assert sink.text() == ("One.\n\nTwo." if stream else "")
    request = ModelRequest([Message("user", "Hi"), answer.message, Message("user", "?")])
    await model(server).respond(request, sink)
    texts = [
        item["content"][0]["text"] for item in server.asked[-1].body["input"] if item["role"] == "assistant"
    ]
    assert texts == ["One.", "Two."]


@pytest.mark.parametrize("indexes", [(0, 1), (0, 0), (None, None)])
async def test_the_items_of_a_stream_whose_end_repeats_nothing_are_kept_apart(
    server: ReplayServer, sink: Sink, indexes: tuple[int | None, int | None]
) -> None:
    for items in (
        [said("One."), said("Two.")],
        [function_call("a", '{"x": 1}'), function_call("b", '{"x": 2}')],
    ):
        before = [e for index, item in zip(indexes, items, strict=True) for e in item_events(index, item)]
        answer = await respond(server, sink, reply(response(), stream=True, before=before), stream=True)
        calls = [(call.id, call.arguments) for call in answer.message.tool_calls]
        assert len(calls) in (0, 2)
        if calls:
            assert calls == [("a", '{"x": 1}'), ("b", '{"x": 2}')]
        else:
            assert answer.message.content == "One.\n\nTwo."


async def test_an_item_that_the_end_leaves_out_is_no_item_less(server: ReplayServer, sink: Sink) -> None:
    items = [said("One."), function_call("a", '{"x": 1}')]
    before = [event for index, item in enumerate(items) for event in item_events(index, item)]
    answer = await respond(server, sink, reply(response(items[0]), stream=True, before=before), stream=True)
    assert answer.message.content == sink.text() == "One."
    assert [call.arguments for call in answer.message.tool_calls] == ['{"x": 1}']


@pytest.mark.parametrize("arguments", ["", "null", None, "{}", {}])
async def test_a_call_without_arguments_is_made_with_none(
    server: ReplayServer, sink: Sink, arguments: Any
) -> None:
    for stream in (True, False):
        answer = reply(response(function_call("a", arguments)), stream=stream)
        [call] = (await respond(server, sink, answer, stream=stream)).message.tool_calls
        assert call.arguments == "{}"


@BOTH
@pytest.mark.parametrize("enforced", ["native", "none"])
async def test_with_a_schema_the_last_message_is_the_answer(
    server: ReplayServer, stream: bool, enforced: Any
) -> None:
    items = [said('{"n": 1}'), said('{"n": 2}')]
    before = [event for index, item in enumerate(items) for event in item_events(index, item)]
    server.replies = [reply(response(*items), stream=stream, before=before)]
    schema = {"type": "object", "title": "T", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    agent = Agent(model=model(server, structured_output=enforced), output_schema=schema)
    if stream:
        async with agent.arun("Hi", stream=True, yield_run_output=True) as events:
            *_, output = [event async for event in events]
    else:
        output = await agent.arun("Hi")
    assert output.content == {"n": 2}
    assert len(server.asked) == 1


@BOTH
async def test_commentary_is_no_part_of_the_answer(server: ReplayServer, stream: bool) -> None:
    items = [said("Looking.", phase="commentary"), function_call("a", "{}")]
    before = [event for index, item in enumerate(items) for event in item_events(index, item)]
    server.replies = [
        reply(response(*items), stream=stream, before=before),
        reply(response(said("Found.", phase="final_answer")), stream=stream),
    ]

    def f() -> str:
        """Look."""
        return "there"

    agent = Agent(model=model(server), tools=[f])
    if stream:
        async with agent.arun("Hi", stream=True, stream_events=True, yield_run_output=True) as events:
            *seen, output = [event async for event in events]
        aside = [event.content for event in seen if isinstance(event, RunIntermediateContentEvent)]
        assert "".join(aside) == "Looking."
    else:
        output = await agent.arun("Hi")
    assert output.content == "Found."
    assert "Looking." in json.dumps(server.asked[1].body["input"])


@BOTH
async def test_commentary_that_nothing_follows_is_the_answer(
    server: ReplayServer, sink: Sink, stream: bool
) -> None:
    items = [said("Done.", phase="commentary")]
    answer = reply(response(*items), stream=stream, before=item_events(0, items[0]))
    message = (await respond(server, sink, answer, stream=stream)).message
    assert (message.content, message.commentary) == ("Done.", None)
    assert sink.text() == ("Done." if stream else "")


async def test_a_sink_that_takes_no_commentary_is_not_told_of_it(server: ReplayServer) -> None:
    class Plain:
        """A sink as it was before there was commentary."""

        full = False

        def __init__(self) -> None:
            self.heard: list[str] = []

        def content(self, text: str) -> None:
            self.heard.append(text)

        reasoning = content

    items = [said("Looking.", phase="commentary"), said("Found.", phase="final_answer")]
    for before in ([], [event for index, item in enumerate(items) for event in item_events(index, item)]):
        server.replies = [reply(response(*items), stream=True, before=before)]
        sink: Any = Plain()
        message = (await model(server).respond(STREAMED, sink)).message
        assert (message.content, message.commentary) == ("Found.", "Looking.")
        assert "".join(sink.heard) == "Found."


# Ends.


@BOTH
@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "done", "expired"])
async def test_a_status_that_is_no_end_is_an_error_and_not_asked_for_again(
    server: ReplayServer, sink: Sink, status: str, stream: bool
) -> None:
    event = "response.done" if stream else ""
    answer = reply(response(said("Half"), status=status), stream=stream, event=event)
    with pytest.raises(ModelStreamError, match=status):
        await respond(server, sink, answer, stream=stream, max_retries=2)
    assert len(server.asked) == 1


@BOTH
async def test_a_status_may_be_added_to_the_good_ends(server: ReplayServer, sink: Sink, stream: bool) -> None:
    answer = reply(response(said("Yes"), status="Done"), stream=stream, event="response.done")
    got = await respond(server, sink, answer, stream=stream, good_ends=["done"])
    assert got.message.content == "Yes"


@BOTH
@pytest.mark.parametrize("reason", ["max_output_tokens", "max_tokens", "length", "content_filter"])
async def test_a_cut_answer_tells_what_it_said_and_is_not_asked_for_again(
    server: ReplayServer, sink: Sink, reason: str, stream: bool
) -> None:
    cut = response(said("Half"), status="incomplete", incomplete_details={"reason": reason})
    for event in ("response.incomplete", "response.completed"):
        server.asked.clear()
        with pytest.raises(ModelIncompleteError, match=reason) as caught:
            await respond(server, sink, reply(cut, stream=stream, event=event), stream=stream, max_retries=2)
        assert caught.value.content == "Half"
        assert len(server.asked) == 1


@BOTH
@pytest.mark.parametrize(
    ("error", "kind", "asked"),
    [
        ({"code": "rate_limit_exceeded", "message": "Oh"}, ModelRateLimitError, 2),
        ({"code": "insufficient_quota", "message": "Oh"}, ModelRateLimitError, 1),
        ({"code": "invalid_api_key", "message": "Oh"}, ModelAuthError, 1),
        ({"code": "server_error", "message": "Oh"}, ModelServerError, 2),
        ({"code": "server_error", "message": "Oh"}, ModelStreamError, 2),
        ({"code": "invalid_prompt", "message": "Oh"}, ModelStreamError, 1),
        ({"code": "cyber_policy", "message": "Oh"}, ModelStreamError, 1),
        ({"code": "image_content_policy_violation", "message": "Oh"}, ModelStreamError, 1),
        ({"code": "content_filter", "message": "Oh"}, ModelIncompleteError, 1),
        ({"message": "Oh"}, ModelStreamError, 2),
        ("Oh", ModelStreamError, 2),
    ],
)
async def test_a_failed_response_is_the_error_that_its_code_says(
    server: ReplayServer, sink: Sink, error: Any, kind: type[ModelError], asked: int, stream: bool
) -> None:
    failed = response(status="failed", error=error)
    answer = reply(failed, stream=stream, event="response.failed")
    with pytest.raises(kind, match="Oh"):
        await respond(server, sink, answer, stream=stream, max_retries=1)
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "x", "message": "Oh"},
        {"type": "error", "error": {"message": "Oh"}},
        {"error": {"message": "Oh"}},
        {"error": "Oh"},
        {"object": "error", "message": "Oh"},
    ],
)
async def test_an_error_event_of_any_shape_ends_the_answer(
    server: ReplayServer, sink: Sink, event: dict[str, Any]
) -> None:
    text = {"type": "response.output_text.delta", "output_index": 0, "delta": "Half"}
    with pytest.raises(ModelStreamError, match="Oh"):
        await respond(server, sink, Reply([sse(text, event)]), stream=True)


@BOTH
@pytest.mark.parametrize("schema", [True, False])
async def test_a_refusal_is_an_answer_and_is_asked_for_once(
    server: ReplayServer, stream: bool, schema: bool
) -> None:
    refusal = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    server.replies = [reply(response(refusal), stream=stream)]
    form = {"type": "object", "title": "T", "properties": {"n": {"type": "integer"}}}
    agent = Agent(model=model(server), output_schema=form if schema else None)
    if stream:
        async with agent.arun("Hi", stream=True, yield_run_output=True) as events:
            *pieces, output = [event async for event in events]
        assert "".join(event.content for event in pieces) == "No."
    else:
        output = await agent.arun("Hi")
    assert (output.status.value, output.content, output.content_type) == (
        "COMPLETED",
        None if schema else "No.",
        "str",
    )
    assert output.get_content_as_string() == "No."
    assert len(server.asked) == 1
