"""The faults of the wire and of the service, on Anthropic's protocol: never an answer, no key in any text."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelServerError,
    ModelStatusError,
    ModelStreamError,
    ModelTimeoutError,
)
from kern.messages import Message
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest
from tests.models.replay import ReplayServer, Reply, Sink, shown_by_a_failure, sse

KEY = "sk-ant-api03-this-key-is-in-no-text-0123456789"
ASK = ModelRequest([Message("user", "Hi")], stream=True)
USAGE = {"input_tokens": 3, "output_tokens": 5}
CONTENT = [
    {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
    {"type": "text", "text": "Grüße \U0001f600"},
    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"item": "milk"}},
]
WHOLE = json.dumps(
    {"type": "message", "id": "m", "content": CONTENT, "stop_reason": "tool_use", "usage": USAGE}
)
STREAM = sse(
    {"type": "message_start", "message": {"id": "m", "content": [], "usage": USAGE}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Grüße \U0001f600"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"item":"milk"}'},
    },
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)
END = STREAM.index(b"event: message_delta")
REASON = STREAM.index(b"\n\n", END) + 2
JSON = "application/json"


def model(server: ReplayServer, **settings: Any) -> AnthropicMessages:
    settings = {"max_retries": 2, **settings}
    return AnthropicMessages("claude-x", base_url=server.url, api_key=KEY, **settings)


def problem(status: int, kind: str = "some_error", **headers: str) -> Reply:
    error = {"type": "error", "error": {"type": kind, "message": f"Because of {KEY}"}, "request_id": "req_1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(error).encode()], status, {"request-id": "req_1", **named}, JSON)


def summary(message: Message) -> Any:
    calls = [(call.id, call.name, json.loads(call.arguments)) for call in message.tool_calls]
    return message.reasoning_content, message.content, calls


ANSWER = ("Hm.", "Grüße \U0001f600", [("toolu_1", "add", {"item": "milk"})])


@pytest.mark.parametrize(
    "fault",
    [
        problem(408),
        problem(409),
        problem(429, "rate_limit_error"),
        problem(500, "api_error"),
        problem(504, "timeout_error"),
        problem(529, "overloaded_error"),
        problem(400, "invalid_request_error", x_should_retry="true"),
        Reply(refuse=True),
        Reply([b"data: {broken\n\n"]),
        Reply([b"data: 7\n\n"]),
        Reply([b"event: message_start\ndata: \xff\xfe\n\n"]),
        Reply([], cut=True),
        Reply([STREAM[:150]], cut=True),
        Reply([]),
        Reply([b"<html><body>Bad gateway</body></html>"], content_type="text/html"),
        Reply([b"{}"], content_type=JSON),
        Reply([b""], content_type=JSON),
        Reply([b'{"type": "message", "content": []}'], content_type=JSON),
        Reply([sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})]),
        Reply([sse({"type": "error", "error": {"type": "api_error", "message": "Internal"}})]),
    ],
)
async def test_what_may_pass_is_asked_for_again(server: ReplayServer, sink: Sink, fault: Reply) -> None:
    server.replies = [fault, fault, Reply([STREAM])]
    answer = await model(server).respond(ASK, sink)
    assert summary(answer.message) == ANSWER
    assert [attempt for _, attempt, _ in sink.retries] == [1, 2]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (problem(400, "invalid_request_error"), ModelBadRequestError),
        (problem(401, "authentication_error"), ModelAuthError),
        (problem(402, "billing_error"), ModelBadRequestError),
        (problem(403, "permission_error"), ModelAuthError),
        (problem(404, "not_found_error"), ModelNotFoundError),
        (problem(413, "request_too_large"), ModelBadRequestError),
        (problem(429, "rate_limit_error", retry_after="3600"), ModelRateLimitError),
        (problem(529, "overloaded_error", x_should_retry="false"), ModelServerError),
        (problem(307, location="/elsewhere"), ModelStatusError),
    ],
)
async def test_what_no_repetition_mends_is_raised_at_once(
    server: ReplayServer, sink: Sink, fault: Reply, kind: type[ModelStatusError]
) -> None:
    server.replies = [fault]
    with pytest.raises(ModelStatusError, match="Because of") as caught:
        await model(server).respond(ASK, sink)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.request_id, error.provider, error.model) == (
        fault.status,
        "req_1",
        "anthropic",
        "claude-x",
    )
    assert len(server.asked) == 1


async def test_the_wait_that_an_overloaded_service_asks_for_is_kept(server: ReplayServer, sink: Sink) -> None:
    server.replies = [problem(529, "overloaded_error", retry_after="0.01"), Reply([STREAM])]
    await model(server).respond(ASK, sink)
    ((error, attempt, delay),) = sink.retries
    assert isinstance(error, ModelServerError)
    assert (error.status, error.code, attempt) == (529, "overloaded_error", 1)
    assert 0.01 <= delay <= 0.011


@pytest.mark.parametrize("clean", [True, False])
async def test_a_stream_that_is_cut_at_any_byte_is_no_answer(server: ReplayServer, clean: bool) -> None:
    """Every byte up to the event that says how the answer ended; each is cut on a connection of its own."""
    sink = Sink()
    for at in range(0, REASON, 3 if clean else 7):
        server.replies = [Reply([STREAM[:at]], cut=not clean)]
        with pytest.raises(ModelError) as caught:
            await model(server, max_retries=0).respond(ASK, sink)
        assert isinstance(caught.value, ModelStreamError | ModelConnectionError), at


async def test_a_whole_answer_that_is_cut_at_any_byte_is_none(server: ReplayServer, sink: Sink) -> None:
    body = WHOLE.encode()
    for at in range(0, len(body), 3):
        server.replies = [Reply([body[:at]], content_type=JSON, cut=bool(at % 2))]
        with pytest.raises(ModelError):
            await model(server, max_retries=0).respond(ModelRequest(ASK.messages), sink)


async def test_a_stream_in_pieces_of_any_size_is_the_same(server: ReplayServer) -> None:
    for size in (1, 2, 3, 5, 17):
        sink = Sink()
        server.replies = [Reply([STREAM[at : at + size] for at in range(0, len(STREAM), size)])]
        answer = await model(server).respond(ASK, sink)
        assert summary(answer.message) == ANSWER
        assert (sink.text("reasoning"), sink.text()) == ANSWER[:2]


async def test_a_compressed_answer_is_understood(server: ReplayServer, sink: Sink) -> None:
    packed = {"content-encoding": "gzip"}
    server.replies = [
        Reply([gzip.compress(WHOLE.encode())], 200, packed, JSON),
        Reply([gzip.compress(STREAM)], 200, packed),
        Reply([gzip.compress(STREAM)[:-20]], 200, packed),
    ]
    for request in (ModelRequest(ASK.messages), ASK):
        assert summary((await model(server).respond(request, sink)).message) == ANSWER
    with pytest.raises(ModelStreamError):
        await model(server, max_retries=0).respond(ASK, Sink())


@pytest.mark.parametrize("after", [0, 150, REASON - 60])
async def test_silence_is_a_timeout(server: ReplayServer, sink: Sink, after: int) -> None:
    server.replies = [Reply([STREAM[:after]], stall=True)]
    with pytest.raises(ModelTimeoutError):
        await model(server, max_retries=0, timeout=0.1).respond(ASK, sink)


async def test_once_a_piece_was_shown_nothing_is_asked_again(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([STREAM[: END - 5]], cut=True), Reply([STREAM])]
    with pytest.raises(ModelError):
        await model(server).respond(ASK, sink)
    assert (len(server.asked), sink.text("reasoning")) == (1, "Hm.")


async def test_arguments_that_were_shown_count_as_shown(server: ReplayServer) -> None:
    class Arguments(Sink):
        def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
            self.pieces.append((name, delta))

    events = STREAM.split(b"\n\n")
    calls_only = b"\n\n".join([*events[:2], *events[9:12]]) + b"\n\n"
    server.replies = [Reply([calls_only], cut=True), Reply([STREAM])]
    sink = Arguments()
    with pytest.raises(ModelError):
        await model(server).respond(ASK, sink)
    assert (len(server.asked), sink.pieces) == (1, [("add", '{"item":"milk"}')])


FAULTS = [
    problem(400),
    problem(401),
    problem(529),
    Reply([f"<html>{KEY}</html>".encode()], 502, content_type="text/html"),
    Reply([f'{{"error": "{KEY}"}}'.encode()], content_type=JSON),
    Reply([f"data: {{{KEY}\n\n".encode()]),
    Reply([sse({"type": "error", "error": {"type": "api_error", "message": f"key {KEY}"}})]),
    Reply([sse({"type": "message_delta", "delta": {"stop_reason": KEY}}, {"type": "message_stop"})]),
    Reply(refuse=True),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_fails_and_shows_no_key(
    server: ReplayServer, caplog: pytest.LogCaptureFixture, fault: Reply, stream: bool
) -> None:
    server.replies = [fault]
    shown = await shown_by_a_failure(model(server, max_retries=1), caplog, stream=stream)
    assert KEY not in shown
    assert "this-key-is-in-no-text" not in shown
