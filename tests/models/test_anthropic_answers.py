"""Answers of the Messages API, written by hand from its documentation: one for each shape.

https://platform.claude.com/docs/en/build-with-claude/streaming and the pages of the features. What Anthropic
has really sent is read in test_anthropic_recorded.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import (
    ModelBadRequestError,
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelRateLimitError,
    ModelServerError,
    ModelStreamError,
)
from kern.messages import Citation, Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest, ModelResponse
from kern.usage import Usage
from tests.models.replay import ReplayServer, Reply, Sink, sse

START = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x-1", "role": "assistant"}}


def start(**usage: int) -> dict[str, Any]:
    return {**START, "message": {**START["message"], "content": [], "usage": usage}}


def block(index: int, data: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": data},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def call(
    index: int, kind: str, identity: str, name: str, arguments: str, **more: Any
) -> list[dict[str, Any]]:
    data = {"type": kind, "id": identity, "name": name, "input": {}, **more}
    pieces = [arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]]
    return block(index, data, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def end(reason: str | None = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


class Parts(Sink):
    """A sink that takes all."""

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        self.pieces.append((f"arguments of {name}", delta))

    def provider_call(self, call: ProviderCall) -> None:
        self.pieces.append((f"{call.name} {call.status}", call.arguments))

    def citation(self, citation: Citation) -> None:
        self.pieces.append(("citation", citation.text or ""))


async def answered(server: ReplayServer, *events: Any, sink: Sink | None = None) -> ModelResponse:
    flat = [event for given in events for event in (given if isinstance(given, list) else [given])]
    server.replies = [Reply([sse(*flat)])]
    model = AnthropicMessages("claude-x", base_url=server.url, api_key="any", max_retries=0)
    return await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink or Sink())


async def whole(
    server: ReplayServer, body: Any, *, stream: bool = False, sink: Sink | None = None
) -> ModelResponse:
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    model = AnthropicMessages("claude-x", base_url=server.url, api_key="any", max_retries=0)
    return await model.respond(ModelRequest([Message("user", "Hi")], stream=stream), sink or Sink())


async def test_a_text_and_what_it_cost(server: ReplayServer) -> None:
    sink = Sink()
    begun = start(input_tokens=7, cache_read_input_tokens=20, cache_creation_input_tokens=5, output_tokens=1)
    answer = await answered(server, begun, text(0, "Hel", "lo"), end(output_tokens=9), sink=sink)
    assert answer.message.parts == [TextPart("Hello")]
    assert (sink.text(), answer.response_id, answer.model) == ("Hello", "msg_1", "claude-x-1")
    assert (answer.finish_reason, answer.provider_finish_reason) == ("stop", "end_turn")
    assert answer.usage == Usage(32, 9, 41, cached_tokens=20, cache_write_tokens=5, requests=1)


async def test_calls_beside_each_other_are_told_as_they_are_written(server: ReplayServer) -> None:
    sink = Parts()
    answer = await answered(
        server,
        start(),
        call(0, "tool_use", "toolu_1", "add", '{"item":"milk"}'),
        call(1, "tool_use", "toolu_2", "now", ""),
        end("tool_use"),
        sink=sink,
    )
    assert answer.message.tool_calls == [
        ToolCall("toolu_1", "add", '{"item":"milk"}'),
        ToolCall("toolu_2", "now", "{}"),
    ]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    assert sink.text("arguments of add") == '{"item":"milk"}'


async def test_thinking_is_kept_with_its_signature_and_what_is_hidden_of_it(server: ReplayServer) -> None:
    sink = Sink()
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "I "},
        {"type": "thinking_delta", "thinking": "think."},
        {"type": "signature_delta", "signature": "EqQB"},
    )
    hidden = block(1, {"type": "redacted_thinking", "data": "EmwK"})
    silent = block(2, {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": "Eq"})
    more = block(
        3,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Again."},
    )
    answer = await answered(server, start(), thinking, hidden, silent, more, text(4, "Hi"), end(), sink=sink)
    assert answer.message.parts == [
        ReasoningPart("I think.", signature="EqQB"),
        ReasoningPart(redacted="EmwK"),
        ReasoningPart(signature="Eq"),
        ReasoningPart("Again."),
        TextPart("Hi", paragraph=False),
    ]
    assert sink.text("reasoning") == answer.message.reasoning_content == "I think.\n\nAgain."


async def test_a_search_of_the_providers_with_its_results_and_citations(server: ReplayServer) -> None:
    sink = Parts()
    cited = {
        "type": "web_search_result_location",
        "url": "https://example.com",
        "title": "Sky",
        "cited_text": "It is blue.",
        "encrypted_index": "Eo8",
    }
    found = [{"type": "web_search_result", "url": "https://example.com", "encrypted_content": "Eq"}]
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": found}
    answer = await answered(
        server,
        start(),
        text(0, "I look."),
        call(1, "server_tool_use", "srvtoolu_1", "web_search", '{"query":"sky"}'),
        block(2, result),
        text(3, "It is "),
        block(
            4,
            {"type": "text", "text": ""},
            {"type": "citations_delta", "citation": cited},
            {"type": "text_delta", "text": "blue"},
        ),
        text(5, "."),
        end(),
        sink=sink,
    )
    first, search, then, quoted, last = answer.message.parts
    assert (first, then, last) == (TextPart("I look."), TextPart("It is ", paragraph=True), TextPart("."))
    assert isinstance(search, ProviderCall)
    assert (search.name, search.arguments, search.result) == ("web_search", '{"query":"sky"}', found)
    assert search.provider_data == {
        "call": {
            "type": "server_tool_use",
            "id": "srvtoolu_1",
            "name": "web_search",
            "input": {"query": "sky"},
        },
        "result": result,
    }
    assert isinstance(quoted, TextPart)
    (citation,) = quoted.citations
    assert (citation.url, citation.title, citation.text) == ("https://example.com", "Sky", "It is blue.")
    assert (citation.start, citation.end, citation.provider_data) == (0, 4, cited)
    assert answer.message.content == sink.text() == "I look.\n\nIt is blue."
    assert [kind for kind, _ in sink.pieces if kind != "content"] == [
        "web_search running",
        "web_search completed",
        "citation",
    ]


async def test_code_that_fails_and_files_that_it_has_made(server: ReplayServer) -> None:
    failed = {"type": "code_execution_tool_result_error", "error_code": "unavailable"}
    made = {
        "type": "bash_code_execution_result",
        "stdout": "ok",
        "content": [{"type": "bash_code_execution_output", "file_id": "file_1"}],
    }
    container = {"id": "container_1", "expires_at": "2126-01-01T00:00:00Z"}
    ended = end()
    ended[0]["delta"]["container"] = container
    answer = await answered(
        server,
        start(),
        call(0, "server_tool_use", "a", "bash_code_execution", "{}"),
        call(1, "server_tool_use", "b", "bash_code_execution", "{}"),
        block(2, {"type": "bash_code_execution_tool_result", "tool_use_id": "b", "content": made}),
        block(3, {"type": "bash_code_execution_tool_result", "tool_use_id": "a", "content": failed}),
        text(4, "Done."),
        ended,
    )
    first, second = answer.message.provider_calls
    assert (first.status, first.result, first.media) == ("failed", failed, [])
    assert (second.status, second.result) == ("completed", made)
    assert [media.id for media in second.media] == ["file_1"]
    assert answer.message.provider_data == {"anthropic": {"container": container}}


async def test_an_answer_that_pauses_and_the_result_that_comes_later(server: ReplayServer) -> None:
    use = call(0, "server_tool_use", "srvtoolu_1", "web_search", "{}")
    paused = await answered(server, start(), use, end("pause_turn"))
    assert (paused.finish_reason, paused.provider_finish_reason) == ("paused", "pause_turn")
    assert [part.status for part in paused.message.provider_calls] == ["running"]
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    then = await answered(server, start(), block(0, result), text(1, "Nothing."), end())
    (late,) = then.message.provider_calls
    assert (late.id, late.name, late.status) == ("srvtoolu_1", "web_search", "completed")
    assert late.provider_data == {"result": result}


async def test_an_answer_that_stops_for_a_summary_goes_on_too(server: ReplayServer) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/compaction"""
    summary = {"type": "compaction", "content": "So far: ..."}
    paused = await answered(server, start(), block(0, summary), end("compaction"))
    assert (paused.finish_reason, paused.provider_finish_reason) == ("paused", "compaction")
    assert [part.provider_data for part in paused.message.parts] == [{"block": summary}]


async def test_a_refusal_says_why(server: ReplayServer) -> None:
    sink = Sink()
    ended = end("refusal")
    ended[0]["delta"]["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": "No."}
    answer = await answered(server, start(), text(0, "Well"), ended, sink=sink)
    assert (answer.finish_reason, answer.message.content, sink.text()) == (
        "refusal",
        "Well\n\nNo.",
        "Well\n\nNo.",
    )
    bare = await answered(server, start(), end("refusal"))
    assert (bare.finish_reason, bare.message.content) == ("refusal", "")


async def test_nothing_is_an_answer_too(server: ReplayServer) -> None:
    assert (await answered(server, start(), end("stop_sequence"))).message.content == ""
    assert (
        await answered(server, start(), block(0, {"type": "text", "text": ""}), end())
    ).message.content == ""


@pytest.mark.parametrize("word", ["max_tokens", "model_context_window_exceeded"])
async def test_an_answer_that_was_cut_is_told_with_its_text_and_cost(server: ReplayServer, word: str) -> None:
    with pytest.raises(ModelIncompleteError) as caught:
        await answered(server, start(input_tokens=3), text(0, "One"), end(word, output_tokens=2))
    assert (caught.value.reason, caught.value.content) == ("max_output_tokens", "One")
    assert caught.value.usage == Usage(3, 2, 5, requests=1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ModelServerError),
        ("api_error", ModelServerError),
        ("rate_limit_error", ModelRateLimitError),
        ("invalid_request_error", ModelBadRequestError),
        ("some_new_error", ModelStreamError),
    ],
)
async def test_an_error_in_the_stream_is_of_its_class(
    server: ReplayServer, kind: str, expected: type[ModelError]
) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "Overloaded, say"}}
    with pytest.raises(expected, match="Overloaded, say"):
        await answered(server, start(), text(0, "One"), event)


async def test_what_is_not_known_is_passed_over_or_kept(server: ReplayServer) -> None:
    """A block of a new type goes back as it came; one alone is no answer."""
    new = block(0, {"type": "digest", "content": "a"}, {"type": "digest_delta", "content": "b"})
    unknown = {"type": "something_new", "index": 0}
    answer = await answered(server, start(), unknown, new, text(1, "Hi"), end())
    kept = answer.message.parts[0]
    assert isinstance(kept, ProviderCall)
    assert kept.provider_data == {"block": {"type": "digest", "content": "ab"}}
    assert answer.message.content == "Hi"
    with pytest.raises(ModelBehaviorError, match="digest"):
        await answered(server, start(), new, end())


async def test_a_whole_answer_for_a_stream_is_shown_all_the_same(server: ReplayServer) -> None:
    body = {
        "type": "message",
        "id": "msg_1",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
            {"type": "text", "text": "Hi"},
        ],
        "stop_reason": "end_turn",
    }
    sink = Parts()
    answer = await whole(server, body, stream=True, sink=sink)
    assert sink.pieces == [("reasoning", "Hm"), ("content", "Hi"), ("web_search completed", '{"query":"x"}')]
    assert answer.message.content == "Hi"
    quiet = Parts()
    await whole(server, body, sink=quiet)
    assert quiet.pieces == []


ODD: list[tuple[str, list[Any]]] = [
    ("no end", [start(), *text(0, "Hi")]),
    ("an end without a reason", [start(), *text(0, "Hi"), {"type": "message_stop"}]),
    ("an end of a new kind", [start(), *text(0, "Hi"), *end("something_new")]),
    ("more behind the end", [start(), *text(0, "Hi"), end()[0], *text(1, "there")]),
    ("a call that is not there", [start(), *text(0, "Hi"), *end("tool_use")]),
    ("nothing", []),
    ("no objects", ["[]"]),
    ("no JSON", ["{"]),
    ("another protocol", [{"choices": [{"delta": {"content": "Hi"}}]}]),
]


@pytest.mark.parametrize(("name", "events"), ODD, ids=[name for name, _ in ODD])
async def test_a_stream_that_is_no_whole_answer_is_an_error(
    server: ReplayServer, name: str, events: list[Any]
) -> None:
    with pytest.raises(ModelError):
        await answered(server, events)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "message", "content": "Hi", "stop_reason": "end_turn"},
        {"type": "error", "error": {"type": "api_error", "message": "no"}},
        {"type": "message", "content": [], "stop_reason": None},
        {"error": "no"},
    ],
)
async def test_a_body_that_is_no_message_is_an_error(server: ReplayServer, body: Any) -> None:
    with pytest.raises(ModelError):
        await whole(server, body)


async def test_damaged_values_end_in_a_part_or_in_nothing(server: ReplayServer) -> None:
    """A server may leave out, or garble, whatever it likes: no answer raises anything but our errors."""
    values: list[Any] = [None, 0, "x", [], {}, True]
    for value in values:
        data = {"type": "tool_use", "id": value, "name": value, "input": value, "caller": value}
        events = [
            {"type": "message_start", "message": value},
            {"type": "content_block_start", "index": value, "content_block": data},
            {"type": "content_block_delta", "index": value, "delta": value},
            {"type": "content_block_delta", "index": value, "delta": {"type": "text_delta", "text": value}},
            {"type": "content_block_stop", "index": value},
            {"type": "content_block_start", "index": value, "content_block": value},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "container": value},
                "usage": value,
            },
            {"type": "message_stop"},
        ]
        try:
            answer = await answered(server, events)
        except ModelError:
            continue
        Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
