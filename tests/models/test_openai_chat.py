"""OpenAIChat over a socket: what it sends, and what it makes of what OpenAI and other servers answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import MissingKeyError, ModelStreamError, UsageError
from kern.messages import Audio, File, Image, Message, ToolCall
from kern.models import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("system", "Be brief."), Message("user", "Hi")], stream=True)


def model(server: ReplayServer, **settings: Any) -> OpenAIChat:
    return OpenAIChat("llama3.2", base_url=server.url, **settings)


def chunk(finish: str | None = None, /, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": None}


USAGE = {
    "id": "c-1",
    "object": "chat.completion.chunk",
    "choices": [],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
PLAIN = sse(
    chunk(role="assistant", content=""),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk("stop"),
    USAGE,
    "[DONE]",
)


def call(
    index: int | None, identity: str | None = None, name: str | None = None, arguments: Any = ""
) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    delta: dict[str, Any] = {"function": function}
    if index is not None:
        delta["index"] = index
    if identity is not None:
        delta |= {"id": identity, "type": "function"}
    return delta


async def test_text_is_streamed_piece_by_piece_and_returned_whole(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([PLAIN])]
    answer = await model(server).respond(ASK, sink)
    assert sink.pieces == [("content", "Hel"), ("content", "lo")]
    assert answer.message.content == "Hello"
    assert answer.finish_reason == "stop"
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 4, 13)
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.requests) == (2, 1, 1)


TWO = [ToolCall("call_a", "add", '{"item":"milk"}'), ToolCall("call_b", "remove", '{"item":"eggs"}')]


@pytest.mark.parametrize(
    "deltas",
    [
        [  # OpenAI: name and id first, arguments in pieces, told apart by index
            [call(0, "call_a", "add")],
            [call(1, "call_b", "remove")],
            [call(0, None, None, '{"item":'), call(1, None, None, '{"item":"eg')],
            [call(1, None, None, 'gs"}'), call(0, None, None, '"milk"}')],
        ],
        [  # both whole, in one delta
            [call(0, "call_a", "add", '{"item":"milk"}'), call(1, "call_b", "remove", '{"item":"eggs"}')],
        ],
        [  # all with index 0, told apart by their ids
            [call(0, "call_a", "add", '{"item":"milk"}')],
            [call(0, "call_b", "remove", '{"item":"eggs"}')],
        ],
        [  # no index at all
            [call(None, "call_a", "add", '{"item":')],
            [call(None, None, None, '"milk"}')],
            [call(None, "call_b", "remove", '{"item":"eggs"}')],
        ],
        [  # name and id in every delta
            [call(0, "call_a", "add", '{"item":')],
            [call(0, "call_a", "add", '"milk"}')],
            [call(1, "call_b", "remove", '{"item":"eggs"}')],
        ],
        [  # arguments as an object
            [call(0, "call_a", "add", {"item": "milk"}), call(1, "call_b", "remove", {"item": "eggs"})],
        ],
    ],
)
async def test_two_calls_do_not_mix(server: ReplayServer, sink: Sink, deltas: list[Any]) -> None:
    events = [chunk(tool_calls=delta) for delta in deltas]
    server.replies = [Reply([sse(*events, chunk("tool_calls"), "[DONE]")])]
    answer = await model(server).respond(ASK, sink)
    assert answer.message.tool_calls == TWO
    assert answer.message.content is None


async def test_a_call_without_an_id_gets_one(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse(chunk(tool_calls=[call(0, "", "add", "{}")]), chunk("stop"), "[DONE]")])]
    [made] = (await model(server).respond(ASK, sink)).message.tool_calls
    assert made.id.startswith("call_")
    assert (made.name, made.arguments) == ("add", "{}")


async def test_usage_that_a_server_leaves_out_counts_as_one_request(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse(chunk(content="Hi"), chunk("stop"), "[DONE]")])]
    usage = (await model(server).respond(ASK, sink)).usage
    assert usage.to_dict() == {"requests": 1}


async def test_a_finish_reason_is_an_end_without_the_mark(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse(chunk(content="Hi")), sse(chunk("stop"))], chunked=False)]
    assert (await model(server).respond(ASK, sink)).message.content == "Hi"


async def test_a_stream_without_an_end_mark_is_an_error(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse(chunk(content="Hi"))])]
    with pytest.raises(ModelStreamError, match="has no finish reason"):
        await model(server).respond(ASK, sink)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("reason", "words"), [("length", "max_output_tokens"), ("content_filter", "filter")])
async def test_a_cut_answer_is_an_error(server: ReplayServer, sink: Sink, reason: str, words: str) -> None:
    server.replies = [Reply([sse(chunk(content="Hi"), chunk(reason), "[DONE]")])]
    with pytest.raises(ModelStreamError, match=words):
        await model(server).respond(ASK, sink)


async def test_an_error_inside_the_stream_is_an_error(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse({"error": {"message": "out of memory", "code": 500}})]), Reply([PLAIN])]
    assert (await model(server).respond(ASK, sink)).message.content == "Hello"
    [(error, _, _)] = sink.retries
    assert "out of memory" in str(error)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_shown_and_goes_back_with_the_calls_of_its_turn(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    calls = [call(0, "call_a", "add", "{}")]
    thinks = sse(
        chunk(**{name: "Hm"}), chunk(**{name: "m."}), chunk(tool_calls=calls), chunk("tool_calls"), "[DONE]"
    )
    server.replies = [Reply([thinks]), Reply([PLAIN])]
    first = (await model(server).respond(ASK, sink)).message
    assert first.reasoning_content == sink.text("reasoning") == "Hmm."
    said = [*ASK.messages, first, Message("tool", "ok", tool_call_id="call_a")]
    await model(server).respond(ModelRequest(said), sink)
    assert server.asked[1].body["messages"][2][name] == "Hmm."
    await model(server).respond(ModelRequest([*said, Message("user", "And?")]), sink)
    assert server.asked[2].body["messages"][2][name] == "Hmm."


async def test_a_second_choice_is_left_alone(server: ReplayServer, sink: Sink) -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "NO"}}]}
    server.replies = [Reply([sse(chunk(content="yes"), second, chunk("stop"), "[DONE]")])]
    assert (await model(server).respond(ASK, sink)).message.content == sink.text() == "yes"


async def test_a_refusal_is_told(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([sse(chunk(role="assistant", refusal="No."), chunk("stop"), "[DONE]")])]
    answer = await model(server).respond(ASK, sink)
    assert (answer.message.content, sink.text(), answer.finish_reason) == ("No.", "No.", "refusal")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_is_read(server: ReplayServer, sink: Sink, stream: bool) -> None:
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in TWO
    ]
    message = {
        "role": "assistant",
        "content": "Sure",
        "tool_calls": calls,
        "refusal": None,
        "reasoning_content": "Hm",
    }
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": USAGE["usage"],
    }
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    answer = await model(server).respond(ModelRequest(ASK.messages, stream=stream), sink)
    assert answer.message.tool_calls == TWO
    assert answer.message.content == "Sure"
    assert answer.message.reasoning_content == "Hm"
    assert answer.usage.total_tokens == 13
    assert sink.pieces == ([("reasoning", "Hm"), ("content", "Sure")] if stream else [])


async def test_the_request_holds_every_setting(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([PLAIN])]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    closed = {**schema, "additionalProperties": False}
    request = ModelRequest(
        [
            Message("system", "Be brief."),
            Message("developer", "Really."),
            Message("user", "Hi", name="Ann B."),
            Message("assistant", None, tool_calls=TWO),
            Message("tool", "ok", tool_call_id="call_a"),
            Message("tool", None, tool_call_id="call_b", images=[Image(url="https://example.com/a.png")]),
            Message("assistant"),
        ],
        tools=[
            ToolDefinition("loose", "Loose.", schema),
            ToolDefinition("tight", "Tight.", schema, strict=True),
        ],
        tool_choice="required",
        response_format=ResponseFormat("Box", schema),
        stream=True,
    )
    chat = model(
        server,
        temperature=0.5,
        max_output_tokens=100,
        reasoning_effort="low",
        verbosity="high",
        seed=7,
        stop=["END"],
        parallel_tool_calls=True,
        extra_body={"keep_alive": "5m"},
    )
    await chat.respond(request, sink)
    asked = server.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "llama3.2",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Really."},
            {"role": "user", "content": "Hi", "name": "Ann_B_"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                    for c in TWO
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "ok"},
            {"role": "tool", "tool_call_id": "call_b", "content": ""},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "(attached by the tools)"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            },
            {"role": "assistant", "content": ""},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "loose", "description": "Loose.", "parameters": schema},
            },
            {
                "type": "function",
                "function": {"name": "tight", "description": "Tight.", "parameters": closed, "strict": True},
            },
        ],
        "tool_choice": "required",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Box", "schema": closed, "strict": True},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 100,
        "reasoning_effort": "low",
        "verbosity": "high",
        "seed": 7,
        "stop": ["END"],
        "parallel_tool_calls": True,
        "keep_alive": "5m",
    }


async def test_openai_itself_gets_its_own_names() -> None:
    chat = OpenAIChat(max_output_tokens=100)
    body = chat._body(ModelRequest([Message("developer", "Really.")]))
    assert body["messages"] == [{"role": "developer", "content": "Really."}]
    assert body["max_completion_tokens"] == 100
    assert "max_tokens" not in body


async def test_media_are_sent_as_this_protocol_takes_them(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([PLAIN])]
    message = Message(
        "user",
        None,
        images=[Image(content=b"png", detail="high")],
        audio=[Audio(content=b"sound", mime_type="audio/mpeg")],
        files=[File(content=b"pdf", name="a.pdf"), File(id="file-1")],
    )
    await model(server).respond(ModelRequest([message]), sink)
    assert server.asked[0].body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n", "detail": "high"}},
        {"type": "input_audio", "input_audio": {"data": "c291bmQ=", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]


@pytest.mark.parametrize(
    "media",
    [
        {"images": [Image(id="file-1")]},
        {"files": [File(url="https://example.com/a.pdf")]},
        {"audio": [Audio(url="https://example.com/a.wav")]},
        {"audio": [Audio(content=b"x", mime_type="audio/ogg")]},
    ],
)
async def test_media_that_it_does_not_take_are_refused(
    server: ReplayServer, sink: Sink, media: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        await model(server).respond(ModelRequest([Message("user", "See", **media)]), sink)
    assert server.asked == []


async def test_a_key_is_needed_at_openai_only(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [Reply([PLAIN])]
    await model(server).respond(ASK, sink)
    assert "authorization" not in server.asked[0].headers
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        await OpenAIChat().respond(ASK, sink)
