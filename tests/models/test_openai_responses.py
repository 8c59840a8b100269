"""OpenAIResponses over a socket: what it sends, and what it makes of recorded answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import MissingKeyError, ModelStreamError, UsageError
from kern.messages import Audio, File, Image, Message, ToolCall, Video
from kern.models import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai import OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("system", "Be brief."), Message("user", "Hi")], stream=True)
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 42,
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Second."}],
    "encrypted_content": "gAAAA",
}
CALLS = [
    {
        "id": f"fc_{n}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{n}",
        "name": name,
        "arguments": arguments,
    }
    for n, name, arguments in ((1, "add", '{"item":"milk"}'), (2, "remove", '{"item":"eggs"}'))
]


def said(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
        **more,
    }


def response(status: str, output: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "output": output, "usage": USAGE, **more}


def delta(text: str, index: int = 0) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": "msg_1",
        "output_index": index,
        "content_index": 0,
        "delta": text,
        "logprobs": [],
        "obfuscation": "kq2J",
    }


def of_text(*pieces: str) -> bytes:
    """The events of a plain answer, in the order and with the fields of the real API."""
    text = "".join(pieces)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return sse(
        {"type": "response.created", "sequence_number": 0, "response": response("in_progress", [])},
        {"type": "response.in_progress", "sequence_number": 1, "response": response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": said("") | {"content": []}},
        {"type": "response.content_part.added", **place, "part": {"type": "output_text", "text": ""}},
        *(delta(piece) for piece in pieces),
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.content_part.done", **place, "part": {"type": "output_text", "text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": said(text)},
        {"type": "response.completed", "response": response("completed", [said(text)])},
    )


def arguments(index: int, text: str) -> dict[str, Any]:
    kind = "response.function_call_arguments.delta"
    return {"type": kind, "item_id": f"fc_{index}", "output_index": index, "delta": text}


def of_calls(*, repeat: bool = True, done: bool = True) -> bytes:
    """Reasoning and two calls, whose deltas are mixed. `repeat`: the last event holds the output again."""
    events: list[dict[str, Any]] = [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": REASONING | {"encrypted_content": "gA"},
        },
    ]
    for index, text in ((0, "Fir"), (0, "st."), (1, "Second.")):
        kind = "response.reasoning_summary_text.delta"
        events.append({"type": kind, "output_index": 0, "summary_index": index, "delta": text})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": REASONING})
    for index, call in enumerate(CALLS, 1):
        item = {**call, "arguments": ""}
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
    events += [
        arguments(1, '{"item":'),
        arguments(2, '{"item":"eg'),
        arguments(1, '"milk"}'),
        arguments(2, 'gs"}'),
    ]
    if done:
        for index, call in enumerate(CALLS, 1):
            events.append({"type": "response.output_item.done", "output_index": index, "item": call})
    output = [REASONING, *CALLS] if repeat else []
    events.append({"type": "response.completed", "response": response("completed", output)})
    return sse(*events)


def model(server: ReplayServer, **settings: Any) -> OpenAIResponses:
    return OpenAIResponses(base_url=server.url, **settings)


async def test_text_is_streamed_piece_by_piece_and_returned_whole(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([of_text("Hel", "lo\u2028", "wörld 😀")])]
    answer = await model(server).respond(ASK, sink)
    assert sink.pieces == [("content", "Hel"), ("content", "lo\u2028"), ("content", "wörld 😀")]
    assert answer.message.content == "Hello\u2028wörld 😀"
    assert answer.message.provider_data is None
    assert answer.finish_reason == "stop"
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (30, 12, 42)
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.requests) == (10, 5, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_an_answer_is_the_same_however_its_bytes_are_cut(
    server: ReplayServer, sink: Sink, size: int
) -> None:
    data = of_calls() if size % 2 else of_text("Grüße ", "😀", "\u2029!")
    server.replies = [Reply([data]), Reply([data[i : i + size] for i in range(0, len(data), size)])]
    whole = await model(server).respond(ASK, sink)
    pieces = list(sink.pieces)
    sink.pieces.clear()
    assert await model(server).respond(ASK, sink) == whole
    assert sink.pieces == pieces


@pytest.mark.parametrize(("repeat", "done"), [(True, True), (False, True), (False, False)])
async def test_argument_deltas_of_two_calls_do_not_mix(
    server: ReplayServer, sink: Sink, repeat: bool, done: bool
) -> None:
    server.replies = [Reply([of_calls(repeat=repeat, done=done)])]
    answer = await model(server).respond(ASK, sink)
    assert answer.message.tool_calls == [
        ToolCall("call_1", "add", '{"item":"milk"}', {"id": "fc_1"}),
        ToolCall("call_2", "remove", '{"item":"eggs"}', {"id": "fc_2"}),
    ]
    assert answer.message.content is None
    assert answer.message.reasoning_content == sink.text("reasoning") == "First.\n\nSecond."


async def test_events_without_names_are_read_by_their_type(server: ReplayServer, sink: Sink) -> None:
    lines = [line for line in of_text("a", "b").split(b"\n") if not line.startswith(b"event:")]
    server.replies = [Reply([b"\r\n".join(lines), b"data: [DONE]\r\n\r\n"])]
    assert (await model(server).respond(ASK, sink)).message.content == sink.text() == "ab"


async def test_kinds_that_say_nothing_new_are_passed_over_unparsed(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([b"event: response.output_text.done\ndata: {not looked at\n\n", of_text("ok")])]
    assert (await model(server).respond(ASK, sink)).message.content == "ok"
    assert sink.retries == []


async def test_without_stream_one_json_answer_is_read(server: ReplayServer, sink: Sink) -> None:
    body = json.dumps(response("completed", [REASONING, said("Let me."), *CALLS])).encode()
    server.replies = [Reply([body[:50], body[50:]], content_type="application/json")]
    answer = await model(server).respond(ModelRequest(ASK.messages), sink)
    assert "stream" not in server.asked[0].body
    assert sink.pieces == []
    assert answer.message.content == "Let me."
    assert [call.name for call in answer.message.tool_calls] == ["add", "remove"]
    assert answer.usage.total_tokens == 42


async def test_a_server_that_answers_a_stream_request_whole_is_understood(
    server: ReplayServer, sink: Sink
) -> None:
    body = json.dumps(response("completed", [said("Hello")])).encode()
    server.replies = [Reply([body], content_type="application/json; charset=utf-8")]
    answer = await model(server).respond(ASK, sink)
    assert answer.message.content == sink.text() == "Hello"


async def test_reasoning_goes_back_as_it_came_and_in_its_place(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([of_calls()]), Reply([of_text("Done")])]
    first = (await model(server).respond(ASK, sink)).message
    first = Message.from_dict(json.loads(json.dumps(first.to_dict())))  # through a database
    results = [Message("tool", "ok", tool_call_id=call.id, tool_name=call.name) for call in first.tool_calls]
    await model(server).respond(ModelRequest([*ASK.messages, first, *results], stream=True), sink)
    calls = [{k: v for k, v in call.items() if k != "status"} for call in CALLS]
    assert server.asked[1].body["input"] == [
        {"role": "user", "content": "Hi"},
        REASONING,
        *calls,
        {"type": "function_call_output", "call_id": "call_1", "output": "ok"},
        {"type": "function_call_output", "call_id": "call_2", "output": "ok"},
    ]


@pytest.mark.parametrize("change", ["model", "call dropped", "text changed"])
async def test_reasoning_stays_away_where_it_no_longer_fits(
    server: ReplayServer, sink: Sink, change: str
) -> None:
    server.replies = [Reply([of_calls()]), Reply([of_text("Done")])]
    first = (await model(server).respond(ASK, sink)).message
    if change == "call dropped":
        del first.tool_calls[0]
    if change == "text changed":
        first.content = "something"
    other = model(server, id="gpt-4.1") if change == "model" else model(server)
    await other.respond(ModelRequest([*ASK.messages, first], stream=True), sink)
    sent = server.asked[1].body["input"]
    assert "reasoning" not in [item.get("type") for item in sent]
    assert all("id" not in item for item in sent)
    called = [item["call_id"] for item in sent if item.get("type") == "function_call"]
    assert called == [call.id for call in first.tool_calls]


@pytest.mark.parametrize("stream", [False, True])
async def test_two_messages_with_phases_go_back_in_two(
    server: ReplayServer, sink: Sink, stream: bool
) -> None:
    output = [said("Looking. ", phase="commentary"), REASONING, said("Found it.", phase="final_answer")]
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**output[0], "content": []}},
        delta("Look"),
        delta("ing. "),
        {"type": "response.output_item.added", "output_index": 2, "item": {**output[2], "content": []}},
        delta("Found it.", 2),
    ]
    end = {"type": "response.completed", "response": response("completed", output)}
    server.replies = [Reply([sse(*(events if stream else []), end)])]
    first = (await model(server).respond(ASK, sink)).message
    assert first.content == sink.text() == "Found it."
    assert first.commentary == sink.text("commentary") == "Looking. "
    first = Message.from_dict(first.to_dict())
    await model(server).respond(ModelRequest([*ASK.messages, first, Message("user", "?")]), sink)
    sent = server.asked[1].body["input"][1:4]
    assert [item.get("phase") for item in sent] == ["commentary", None, "final_answer"]
    assert [item["content"][0]["text"] for item in sent if "phase" in item] == ["Looking. ", "Found it."]
    await model(server, id="gpt-4.1").respond(ModelRequest([*ASK.messages, first]), sink)
    plain = server.asked[2].body["input"][1:]
    assert [item["content"][0]["text"] for item in plain] == ["Looking. ", "Found it."]
    assert not any("id" in item or "phase" in item for item in plain)


async def test_a_record_of_the_version_before_goes_back_as_it_did(server: ReplayServer, sink: Sink) -> None:
    items = [
        {"type": "message", "id": "m1", "phase": "commentary", "chars": 9},
        {"type": "message", "id": "m2", "phase": "final_answer", "chars": 9},
    ]
    record = {"openai": {"model": model(server).id, "items": items}}
    old = Message("assistant", "Looking. Found it.", provider_data=record)
    server.replies = [Reply([of_text("ok")])]
    await model(server).respond(ModelRequest([*ASK.messages, old]), sink)
    sent = server.asked[0].body["input"][1:]
    assert [item["content"][0]["text"] for item in sent] == ["Looking. ", "Found it."]


async def test_a_refusal_is_told_and_sent_back_as_one(server: ReplayServer, sink: Sink) -> None:
    refusal = said("") | {"content": [{"type": "refusal", "refusal": "No."}], "phase": "final_answer"}
    kind = {"type": "response.refusal.delta", "output_index": 0, "delta": "No."}
    end = {"type": "response.completed", "response": response("completed", [refusal])}
    server.replies = [Reply([sse(kind, end)])]
    answer = await model(server).respond(ASK, sink)
    assert (answer.message.content, sink.text(), answer.finish_reason) == ("No.", "No.", "refusal")
    await model(server).respond(ModelRequest([*ASK.messages, answer.message]), sink)
    assert server.asked[1].body["input"][1]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_the_request_holds_every_setting(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([of_text("ok")])]
    settings = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "reasoning_effort": "low",
        "reasoning_summary": "auto",
        "verbosity": "low",
        "parallel_tool_calls": False,
        "extra_body": {"service_tier": "flex"},
    }
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}, "required": []}
    request = ModelRequest(
        [Message("system", "Be brief."), Message("developer", "Really."), Message("user", "Hi")],
        tools=[
            ToolDefinition("loose", "Loose.", schema),
            ToolDefinition("tight", "Tight.", schema, strict=True),
            ToolDefinition("open", "Open.", {"type": "object", "additionalProperties": True}, strict=True),
        ],
        tool_choice={"name": "tight"},
        response_format=ResponseFormat("Box[int]", schema),
        stream=True,
    )
    await model(server, organization="org", default_headers={"X-Mine": "1"}, **settings).respond(
        request, sink
    )
    closed = {
        **schema,
        "properties": {"n": {"type": "integer", "description": "default: 1"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    opened = {"type": "object", "additionalProperties": True}
    assert server.asked[0].path == "/v1/responses"
    assert server.asked[0].body == {
        "model": "gpt-5.2",
        "instructions": "Be brief.",
        "input": [{"role": "developer", "content": "Really."}, {"role": "user", "content": "Hi"}],
        "tools": [
            {
                "type": "function",
                "name": "loose",
                "description": "Loose.",
                "parameters": schema,
                "strict": False,
            },
            {
                "type": "function",
                "name": "tight",
                "description": "Tight.",
                "parameters": closed,
                "strict": True,
            },
            {
                "type": "function",
                "name": "open",
                "description": "Open.",
                "parameters": opened,
                "strict": False,
            },
        ],
        "tool_choice": {"type": "function", "name": "tight"},
        "text": {
            "format": {"type": "json_schema", "name": "Box_int_", "schema": closed, "strict": True},
            "verbosity": "low",
        },
        "temperature": 0.5,
        "top_p": 0.9,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 100,
        "reasoning": {"effort": "low", "summary": "auto"},
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "stream": True,
    }
    headers = server.asked[0].headers
    assert headers["openai-organization"] == "org"
    assert headers["x-mine"] == "1"
    assert "authorization" not in headers


async def test_media_are_sent_as_urls_bytes_and_ids(server: ReplayServer, sink: Sink, tmp_path: Any) -> None:
    server.replies = [Reply([of_text("ok")])]
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"png")
    images = [
        Image(url="https://example.com/a.jpg", detail="low"),
        Image(filepath=picture),
        Image(content=b"gif", mime_type="image/gif"),
        Image(id="file-1"),
    ]
    files = [File(url="https://example.com/a.pdf"), File(content=b"pdf", name="a.pdf"), File(id="file-2")]
    called = Message("assistant", tool_calls=[ToolCall("call_1", "look", "{}")])
    tool = Message("tool", "shot", tool_call_id="call_1", images=[Image(content=b"x")])
    await model(server).respond(
        ModelRequest([Message("user", "See", images=images, files=files), called, tool]), sink
    )
    user, _, result = server.asked[0].body["input"]
    assert user["content"] == [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "detail": "low", "image_url": "https://example.com/a.jpg"},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,cG5n"},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/gif;base64,Z2lm"},
        {"type": "input_image", "detail": "auto", "file_id": "file-1"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"},
        {"type": "input_file", "file_id": "file-2"},
    ]
    assert [part["type"] for part in result["output"]] == ["input_text", "input_image"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message("user", "See", videos=[Video(url="https://example.com/a.mp4")]), "do not support video"),
        (Message("user", "Hear", audio=[Audio(content=b"wav")]), "OpenAIChat"),
        (Message("system", "Made", images=[Image(content=b"x")]), "system message"),
        (Message("user", "See", images=[Image(filepath="/nonexistent/a.png")]), "cannot be read"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(
    server: ReplayServer, sink: Sink, message: Message, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        await model(server).respond(ModelRequest([message]), sink)
    assert server.asked == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "server_error", "message": "Oh"}},
            },
            "Oh",
        ),
        (
            {
                "type": "response.incomplete",
                "response": {"status": "incomplete", "incomplete_details": {"reason": "maintenance"}},
            },
            "maintenance",
        ),
        ({"type": "error", "code": "server_error", "message": "Broken"}, "Broken"),
        ({"type": "error", "error": {"code": "server_error", "message": "Broken"}}, "Broken"),
        ({"type": "response.completed"}, "no response"),
    ],
)
async def test_a_stream_that_ends_in_a_failure_is_an_error_and_tried_again(
    server: ReplayServer, sink: Sink, last: dict[str, Any], words: str
) -> None:
    server.replies = [Reply([sse(last)], headers={"x-request-id": "req_7"}), Reply([of_text("ok")])]
    answer = await model(server).respond(ASK, sink)
    assert answer.message.content == "ok"
    [(error, attempt, _)] = sink.retries
    assert isinstance(error, ModelStreamError)
    assert words in str(error)
    assert "req_7" in str(error)
    assert attempt == 1

    sink.retries.clear()
    server.replies = [Reply([sse(delta("Hel"), last)])]
    with pytest.raises(ModelStreamError, match=words):
        await model(server).respond(ASK, sink)
    assert sink.retries == []  # a piece was shown
    assert len(server.asked) == 3


async def test_a_failure_that_no_repetition_mends_is_not_tried_again(
    server: ReplayServer, sink: Sink
) -> None:
    error = {"code": "invalid_prompt", "message": "Against the rules"}
    server.replies = [
        Reply([sse({"type": "response.failed", "response": {"status": "failed", "error": error}})])
    ]
    with pytest.raises(ModelStreamError, match="invalid_prompt"):
        await model(server).respond(ASK, sink)
    assert len(server.asked) == 1


async def test_a_missing_key_names_the_variable(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        await OpenAIResponses().respond(ASK, sink)
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    with pytest.raises(MissingKeyError):
        await OpenAIResponses(base_url="https://eu.api.openai.com/v1").respond(ASK, sink)


async def test_the_environment_is_read_at_the_request(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [Reply([of_text("ok")])]
    made_before = OpenAIResponses()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment\n")
    await made_before.respond(ASK, sink)
    assert server.asked[0].headers["authorization"] == "Bearer sk-from-environment"
    assert server.asked[0].path == "/v1/responses"


def test_a_setting_that_cannot_work_is_refused() -> None:
    with pytest.raises(TypeError):
        OpenAIResponses(temprature=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        OpenAIResponses("gpt-5.2", "sk-positional")
    for settings in (
        {"id": ""},
        {"timeout": 0},
        {"max_retries": -1},
        {"base_url": "localhost:8000"},
        {"base_url": "https://me:secret@example.com/v1"},
        {"extra_body": {"stream": False}},
    ):
        with pytest.raises(UsageError) as caught:
            OpenAIResponses(**settings)
        assert "secret" not in str(caught.value)
