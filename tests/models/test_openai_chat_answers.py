"""Chat completions as servers really send them: nothing of an answer is lost, and no cut answer is whole."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kern import Agent
from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelServerError,
    ModelStreamError,
    UsageError,
)
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat
from kern.testing import ScriptedModel
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("user", "Hi")])
STREAMED = ModelRequest([Message("user", "Hi")], stream=True)


def model(server: ReplayServer, **settings: Any) -> OpenAIChat:
    return OpenAIChat("m", base_url=server.url, **{"max_retries": 0, **settings})


def chunk(
    finish: str | None = None, /, *, more: dict[str, Any] | None = None, **delta: Any
) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(more or {})}]}


def whole(finish: str | None = "stop", /, *, more: dict[str, Any] | None = None, **said: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish, **(more or {})}
    return Reply([json.dumps({"choices": [choice]}).encode()], content_type="application/json")


async def streamed(server: ReplayServer, sink: Sink, *events: Any, **settings: Any) -> ModelResponse:
    server.replies = [Reply([sse(*events)])]
    return await model(server, **settings).respond(STREAMED, sink)


# Errors inside of a 200.


@pytest.mark.parametrize("place", ["beside", "choice", "alone"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "Oh"}, ModelRateLimitError),
        ({"code": "rate_limit_exceeded", "message": "Oh"}, ModelRateLimitError),
        ({"code": "insufficient_quota", "message": "Oh"}, ModelRateLimitError),
        ({"code": 401, "message": "Oh"}, ModelAuthError),
        ({"type": "authentication_error", "message": "Oh"}, ModelAuthError),
        ({"code": "model_not_found", "message": "Oh"}, ModelNotFoundError),
        ({"code": 400, "message": "Oh"}, ModelBadRequestError),
        ({"code": 502, "message": "Oh"}, ModelServerError),
        ({"type": "overloaded_error", "message": "Oh"}, ModelServerError),
        ({"code": "E17", "type": "overloaded_error", "message": "Oh"}, ModelServerError),
        ({"code": "429", "message": "Oh"}, ModelRateLimitError),
        ({"code": 502, "message": "Oh"}, ModelStreamError),
        ({"code": "content_filter", "message": "Oh", "status": 400}, ModelIncompleteError),
        ({"message": "Provider", "metadata": {"raw": "Oh"}}, ModelStreamError),
        ("Oh", ModelStreamError),
    ],
)
async def test_an_error_inside_of_a_200_is_the_error_that_its_code_says(
    server: ReplayServer, sink: Sink, place: str, stream: bool, error: Any, kind: type[ModelError]
) -> None:
    at_top, in_choice = ({"error": error} if name == place else {} for name in ("beside", "choice"))
    if place == "alone":
        events: list[dict[str, Any]] = [{"error": error}]
    else:
        events = [{**chunk("error", content="Half", more=in_choice), **at_top}]
    if not stream:
        text = json.dumps(events[0]).replace('"delta"', '"message"').encode()
        server.replies = [Reply([text], content_type="application/json")]
    else:
        server.replies = [Reply([sse(*events, "[DONE]")])]
    with pytest.raises(kind, match="Oh"):
        await model(server).respond(STREAMED if stream else ASK, sink)
    assert "Half" not in sink.text()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("error", [None, "", {}, {"message": "", "type": "", "param": None, "code": None}])
async def test_an_error_that_says_nothing_is_none(
    server: ReplayServer, sink: Sink, error: Any, stream: bool
) -> None:
    body = {**chunk("stop", more={"error": error}, content="Hi"), "error": error}
    if stream:
        server.replies = [Reply([sse(body)])]
    else:
        text = json.dumps(body).replace('"delta"', '"message"').encode()
        server.replies = [Reply([text], content_type="application/json")]
    answer = await model(server).respond(STREAMED if stream else ASK, sink)
    assert answer.message.content == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"object": "error", "message": "Oh", "type": "server_error", "code": 50001}\n\n',
        b'event: error\ndata: {"message": "Oh"}\n\n',
        b'event: error\ndata: {"error": {"message": "Oh"}}\n\n',
        b'data: {"error": "Oh", "code": "x"}\n\n',
    ],
)
async def test_an_error_event_of_any_shape_ends_the_answer(
    server: ReplayServer, sink: Sink, event: bytes
) -> None:
    server.replies = [Reply([sse(chunk(content="Half")), event, sse("[DONE]")])]
    with pytest.raises(ModelStreamError, match="Oh"):
        await model(server).respond(STREAMED, sink)


@pytest.mark.parametrize(
    ("native", "kind"),
    [
        ("max_output_tokens", ModelIncompleteError),
        ("MAX_TOKENS", ModelIncompleteError),
        ("SAFETY", ModelIncompleteError),
        ("error", ModelStreamError),
        ("MALFORMED_FUNCTION_CALL", ModelStreamError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_the_word_of_the_provider_behind_a_router_counts(
    server: ReplayServer, sink: Sink, native: str, kind: type[ModelError], stream: bool
) -> None:
    more = {"native_finish_reason": native}
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    server.replies = [
        Reply([sse(chunk(tool_calls=[call]), chunk("tool_calls", more=more), "[DONE]")])
        if stream
        else whole("tool_calls", more=more, tool_calls=[call])
    ]
    with pytest.raises(kind):
        await model(server).respond(STREAMED if stream else ASK, sink)


async def test_a_native_word_that_is_not_known_is_no_error(server: ReplayServer, sink: Sink) -> None:
    more = {"native_finish_reason": "completed"}
    assert (await streamed(server, sink, chunk("stop", content="Hi", more=more))).message.content == "Hi"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fallback_is_asked_for_an_error_inside_of_a_200(server: ReplayServer, stream: bool) -> None:
    server.replies = [Reply([sse({"error": {"code": 401, "message": "Oh"}})])]
    agent = Agent(model=model(server), fallback_models=[ScriptedModel(["From the other."])])
    if not stream:
        assert (await agent.arun("Hi")).content == "From the other."
        return
    async with agent.arun("Hi", stream=True) as events:
        assert "".join([event.content async for event in events]) == "From the other."


# Content that is no text.

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "closed": True}


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "Yes"}], "Yes", None),
        ({"type": "text", "text": "Yes"}, "Yes", None),
        (["Y", "es"], "Yes", None),
        ([{"type": "text", "text": {"value": "Yes"}}], "Yes", None),
        ([{"type": "output_text", "text": "Yes"}], "Yes", None),
        ([{"text": "Yes"}], "Yes", None),
        ([THINKING, {"type": "text", "text": "Yes"}], "Yes", "Hm."),
        ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes"}], "Yes", "Hm."),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Yes"}], "Yes", "Hm."),
        ([{"type": "text", "text": "Yes"}, {"type": "reference", "reference_ids": [1]}], "Yes", None),
        ([], "", None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_content_in_parts_is_text_and_reasoning(
    server: ReplayServer, sink: Sink, content: Any, text: str, reasoning: str | None, stream: bool
) -> None:
    server.replies = [
        Reply([sse(chunk(content=content), chunk("stop"))]) if stream else whole(content=content)
    ]
    message = (await model(server).respond(STREAMED if stream else ASK, sink)).message
    assert (message.content, message.reasoning_content) == (text, reasoning)
    assert sink.text() == (text if stream else "")
    assert sink.text("reasoning") == ((reasoning or "") if stream else "")


@pytest.mark.parametrize("stream", [True, False])
async def test_parts_that_are_not_known_are_no_empty_answer(
    server: ReplayServer, sink: Sink, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    part = {"type": "hologram", "data": "x"}
    for content in ([part], [part, {"type": "text", "text": "Yes"}]):
        server.replies = [
            Reply([sse(chunk(content=content), chunk("stop"))]) if stream else whole(content=content)
        ]
        if len(content) == 1:
            with pytest.raises(ModelBehaviorError, match="hologram"):
                await model(server).respond(STREAMED if stream else ASK, sink)
        else:
            with caplog.at_level(logging.INFO, "kern"):
                answer = await model(server).respond(STREAMED if stream else ASK, sink)
            assert answer.message.content == "Yes"
            assert "hologram" in caplog.text


async def test_an_answer_of_a_custom_tool_call_alone_is_no_answer(server: ReplayServer, sink: Sink) -> None:
    call = {"index": 0, "id": "1", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    rest = {"index": 0, "custom": {"input": " from t"}}
    with pytest.raises(ModelBehaviorError, match="custom"):
        await streamed(server, sink, chunk(tool_calls=[call]), chunk(tool_calls=[rest]), chunk("tool_calls"))
    both = [call, entry(1, "2", "f", A)]
    answer = await streamed(
        server, sink, chunk(tool_calls=both), chunk(tool_calls=[rest]), chunk("tool_calls")
    )
    assert [(made.name, made.arguments) for made in answer.message.tool_calls] == [("f", A)]


# Tool calls.


def entry(index: int | None, id: str | None, name: str | None, arguments: Any = ...) -> dict[str, Any]:
    function = {"name": name} | ({} if arguments is ... else {"arguments": arguments})
    data = {"index": index, "id": id, "type": "function"}
    given = {key: value for key, value in data.items() if value is not None}
    return {**given, "function": {key: value for key, value in function.items() if key != "name" or value}}


A, B = '{"x": 1}', '{"x": 2}'
TWO = [("f", A), ("g", B)]
SAME = [("f", A), ("f", B)]


@pytest.mark.parametrize(
    ("chunks", "want"),
    [
        ([[entry(0, "a", "f", A)], [entry(0, "b", "g", B)]], TWO),  # one index
        ([[entry(0, "a", "f", A), entry(0, "b", "g", B)]], TWO),
        (
            [[entry(0, "a", "f", "")], [entry(0, "a", None, A)], [entry(0, "b", "g", "")]],
            [("f", A), ("g", "{}")],
        ),
        ([[entry(None, "a", "f", A)], [entry(None, "b", "g", B)]], TWO),  # no index
        ([[entry(None, "a", "f", '{"x"')], [entry(None, "a", None, ": 1}")]], [("f", A)]),
        ([[entry(None, "a", "f", '{"x"')], [entry(None, "a", "f", ": 1}")]], [("f", A)]),
        ([[entry(None, "a", "f", '{"x"')], [entry(None, None, None, ": 1}")]], [("f", A)]),
        ([[entry(None, None, "f", A), entry(None, None, "f", B)]], SAME),  # nor ids
        ([[entry(None, "", "f", A)], [entry(None, "", "f", B)]], SAME),
        ([[entry(None, None, "f", A)], [entry(None, None, "g", B)]], TWO),
        ([[entry(0, "", "f", A)], [entry(0, "", "f", B)]], SAME),  # one index and empty ids
        ([[entry(0, None, "f", A)], [entry(0, None, "g", B)]], TWO),
        ([[entry(0, "", "f")], [entry(0, "", "g")]], [("f", "{}"), ("g", "{}")]),
        ([[entry(0, "a", "f", A)], [entry(1, "a", "f", B)]], SAME),  # one id for two
        ([[entry(0, "a", "f", A), entry(0, "a", "f", B)]], SAME),
        ([[entry(0, "a", "f", A)], [entry(0, "a", "f", B)]], SAME),
        (
            [
                [entry(0, "a", "f", "")],
                [entry(1, "a", "g", "")],
                [entry(0, None, None, A)],
                [entry(1, None, None, B)],
            ],
            TWO,
        ),
        ([[entry(0, "a", "f", '{"x"')], [entry(0, "a", "f", ": 1}")], [entry(0, "a", "f", "")]], [("f", A)]),
        ([[entry(0, "a", "f", '{"x"')], [entry(0, "z", None, ": 1}")]], [("f", A)]),  # an id for each delta
        (
            [[entry(0, "a", "f", '{"x"')], [entry(0, "a", "f", ": 1}")], [entry(0, "a", "f", A)]],
            [("f", A)],
        ),  # twice
        ([[entry(0, "a", None)], [entry(0, None, "f", A)]], [("f", A)]),
        (
            [
                [{**entry(None, "a", "f", ""), "index": "0"}, {**entry(None, "b", "g", ""), "index": "1"}],
                [{**entry(None, None, None, A), "index": "0"}, {**entry(None, None, None, B), "index": "1"}],
            ],
            TWO,
        ),
        ([[entry(0, "a", "f", {"x": 1})]], [("f", '{"x":1}')]),
        ([[entry(0, "a", "f", "null")]], [("f", "{}")]),
        ([[entry(0, "a", "f", None)]], [("f", "{}")]),
        ([[entry(0, "a", "f", "")]], [("f", "{}")]),
        ([[entry(0, "a", "f")]], [("f", "{}")]),
        ([[entry(0, "a", "f", "null"), entry(1, "b", "g", "null")]], [("f", "{}"), ("g", "{}")]),
        ([[entry(0, "a", "f", '{"x"')], [entry(1, "b", "g", B)], [entry(0, None, None, ": 1}")]], TWO),
    ],
)
async def test_each_call_of_a_stream_is_made_once_with_its_own_arguments(
    server: ReplayServer, sink: Sink, chunks: list[Any], want: list[tuple[str, str]]
) -> None:
    events = [chunk(tool_calls=entries) for entries in chunks]
    calls = (await streamed(server, sink, *events, chunk("tool_calls"), "[DONE]")).message.tool_calls
    assert [(call.name, call.arguments) for call in calls] == want
    assert all(call.id for call in calls)


@pytest.mark.parametrize(
    ("entries", "want"),
    [
        ([entry(None, "a", "f", A), entry(None, "b", "g", B)], TWO),
        ([entry(0, "a", "f", A), entry(0, "b", "g", B)], TWO),
        ([entry(0, "a", "f", A), entry(0, "a", "f", B)], SAME),
        ([entry(None, "", "f", A), entry(None, "", "f", B)], SAME),
        ([entry(0, None, "f", A), entry(0, None, "f", A)], [("f", A), ("f", A)]),
        ([entry(None, "a", "f", "null"), entry(None, "b", "g", "")], [("f", "{}"), ("g", "{}")]),
        ([entry(None, "a", "f"), entry(None, "b", "g", {"x": 2})], [("f", "{}"), ("g", '{"x":2}')]),
    ],
)
@pytest.mark.parametrize("as_event", [True, False])
async def test_each_call_of_a_whole_answer_is_made_once(
    server: ReplayServer, sink: Sink, entries: list[Any], want: list[tuple[str, str]], as_event: bool
) -> None:
    server.replies = [whole("tool_calls", tool_calls=entries, content=None)]
    if as_event:  # a server that does not stream, but sends its one answer as an event
        server.replies = [Reply([sse(json.loads(server.replies[0].body[0]), "[DONE]")])]
    calls = (await model(server).respond(STREAMED if as_event else ASK, sink)).message.tool_calls
    assert [(call.name, call.arguments) for call in calls] == want


@pytest.mark.parametrize("stream", [True, False])
async def test_the_old_form_of_a_call_is_understood(server: ReplayServer, sink: Sink, stream: bool) -> None:
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ": 1}"}]
    events = [chunk(function_call=piece) for piece in pieces]
    server.replies = [
        Reply([sse(*events, chunk("function_call"))])
        if stream
        else whole("function_call", function_call={"name": "f", "arguments": A})
    ]
    [call] = (await model(server).respond(STREAMED if stream else ASK, sink)).message.tool_calls
    assert (call.name, call.arguments) == ("f", A)


async def test_calls_that_are_said_to_be_there_and_are_not_are_an_error(
    server: ReplayServer, sink: Sink
) -> None:
    with pytest.raises(ModelStreamError, match="has no tool call"):
        await streamed(server, sink, chunk("tool_calls"), "[DONE]")


# Ends.


@pytest.mark.parametrize(
    "word", ["stop", "STOP", "eos", "end_turn", "stop_sequence", "tool_calls", "Tool_Use", "function_call"]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_known_good_end_is_an_end(server: ReplayServer, sink: Sink, word: str, stream: bool) -> None:
    server.replies = [Reply([sse(chunk(content="Hi"), chunk(word))]) if stream else whole(word, content="Hi")]
    answer = await model(server).respond(STREAMED if stream else ASK, sink)
    assert (answer.message.content, answer.provider_finish_reason) == ("Hi", word)


@pytest.mark.parametrize("word", ["abort", "error", "done", "unknown", "", None, "OTHER"])
@pytest.mark.parametrize("stream", [True, False])
async def test_any_other_end_is_an_error_that_quotes_it(
    server: ReplayServer, sink: Sink, word: str | None, stream: bool
) -> None:
    server.replies = [
        Reply([sse(chunk(content="Hi"), chunk(word), "[DONE]")]) if stream else whole(word, content="Hi")
    ]
    with pytest.raises(ModelStreamError, match=f"'{word}'" if word else "no finish reason"):
        await model(server).respond(STREAMED if stream else ASK, sink)


async def test_a_models_constructor_adds_to_the_good_ends(server: ReplayServer, sink: Sink) -> None:
    answer = await streamed(server, sink, chunk(content="Hi"), chunk("Done"), good_ends=["done"])
    assert answer.message.content == "Hi"
    answer = await streamed(server, sink, chunk(content="Hi"), "[DONE]", good_ends=[""])
    assert answer.message.content == "Hi"
    with pytest.raises(UsageError, match="good_ends"):
        model(server, good_ends="done")


async def test_an_unknown_end_is_not_paid_for_again(server: ReplayServer, sink: Sink) -> None:
    server.replies = [whole("done", content="Hi")]
    with pytest.raises(ModelStreamError, match="good_ends"):
        await model(server, max_retries=2).respond(ASK, sink)
    assert len(server.asked) == 1


@pytest.mark.parametrize("word", ["length", "content_filter", "max_tokens"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_answer_tells_what_it_said(
    server: ReplayServer, sink: Sink, word: str, stream: bool
) -> None:
    server.replies = [
        Reply([sse(chunk(content="Half"), chunk(word))]) if stream else whole(word, content="Half")
    ]
    with pytest.raises(ModelIncompleteError) as caught:
        await model(server, max_retries=2).respond(STREAMED if stream else ASK, sink)
    assert caught.value.content == "Half"
    assert len(server.asked) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("field", ["refusal", "content"])
async def test_a_refusal_is_an_answer_and_is_asked_for_once(
    server: ReplayServer, stream: bool, field: str
) -> None:
    word = "stop" if field == "refusal" else "refusal"
    server.replies = [
        Reply([sse(chunk(**{field: "I will not."}), chunk(word))])
        if stream
        else whole(word, **{field: "I will not."})
    ]
    schema = {"type": "object", "title": "T", "properties": {"n": {"type": "integer"}}}
    for options in ({}, {"output_schema": schema}):
        server.asked.clear()
        agent = Agent(model=model(server), **options)
        if stream:
            async with agent.arun("Hi", stream=True, yield_run_output=True) as events:
                *pieces, output = [event async for event in events]
            assert "".join(event.content for event in pieces) == "I will not."
        else:
            output = await agent.arun("Hi")
        assert (output.status.value, output.content) == ("COMPLETED", None if options else "I will not.")
        assert output.get_content_as_string() == "I will not."
        assert len(server.asked) == 1


# Usage.


async def test_nonsense_in_usage_takes_nothing_off(server: ReplayServer, sink: Sink) -> None:
    usage = {
        "prompt_tokens": -5,
        "completion_tokens": 7.0,
        "total_tokens": -1,
        "prompt_tokens_details": {"cached_tokens": "many"},
        "completion_tokens_details": [True],
    }
    answer = await streamed(server, sink, chunk("stop", content="Hi"), {"choices": [], "usage": usage})
    assert answer.usage.to_dict() == {"output_tokens": 7, "total_tokens": 7, "requests": 1}
    for odd in ("many", [1], 3, {"prompt_tokens": True}, {"prompt_tokens": 1e400}):
        answer = await streamed(server, sink, chunk("stop", content="Hi"), {"choices": [], "usage": odd})
        assert answer.usage.to_dict() == {"requests": 1}


async def test_usage_is_found_where_groq_and_moonshot_put_it(server: ReplayServer, sink: Sink) -> None:
    spent = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cached_tokens": 2}
    answer = await streamed(server, sink, {**chunk("stop", content="Hi"), "x_groq": {"usage": spent}})
    assert answer.usage.to_dict() == {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "cached_tokens": 2,
        "requests": 1,
    }
