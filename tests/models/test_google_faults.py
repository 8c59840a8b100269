"""What goes wrong between Kern and Google: whatever comes, or does not come, ends in one of Kern's errors."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import traceback
from typing import Any

import pytest

from kern import Agent
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
from kern.models.base import ModelRequest, ModelResponse
from kern.models.google import Gemini
from kern.run.events import RunCompletedEvent
from kern.testing import no_leaks
from tests.models.replay import ReplayServer, Reply, Sink

KEY = "secret-0123456789abcdef"
CHUNKS: list[dict[str, Any]] = [
    {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True}]}, "index": 0}]},
    {"candidates": [{"content": {"parts": [{"text": "Grüße \U0001f6d2"}]}, "index": 0}]},
    {
        "candidates": [
            {
                "content": {"parts": [{"functionCall": {"name": "add", "args": {"n": 1}}}]},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3},
    },
]
STREAM = b"".join(b"data: %s\r\n\r\n" % json.dumps(each, ensure_ascii=False).encode() for each in CHUNKS)
PARTS = [part for each in CHUNKS for part in each["candidates"][0]["content"]["parts"]]
WHOLE = json.dumps(
    {"candidates": [{"content": {"parts": PARTS}, "finishReason": "STOP"}]}, ensure_ascii=False
).encode()
JSON = "application/json; charset=UTF-8"


def model_of(server: ReplayServer, **options: Any) -> Gemini:
    return Gemini("gemini-2.5-flash", base_url=server.url, api_key=KEY, **{"max_retries": 0, **options})


async def ask(model: Gemini, *, stream: bool) -> ModelResponse:
    return await model.respond(ModelRequest([Message("user", "Hi")], stream=stream), Sink())


def check_silent(error: BaseException) -> None:
    shown = [str(error), repr(vars(error)), *traceback.format_exception(error)]
    assert KEY not in "\n".join(shown)


STATUSES: dict[int, type[ModelStatusError]] = {
    400: ModelBadRequestError,
    401: ModelAuthError,
    403: ModelAuthError,
    404: ModelNotFoundError,
    409: ModelServerError,
    413: ModelBadRequestError,
    429: ModelRateLimitError,
    499: ModelBadRequestError,
    500: ModelServerError,
    503: ModelServerError,
    504: ModelServerError,
    302: ModelStatusError,
}
BODIES = [
    json.dumps({"error": {"code": 1, "message": f"key {KEY} is bad", "status": "X", "details": [5, {}]}}),
    json.dumps([{"error": {"message": f"key {KEY} is bad"}}]),
    f"<html><body>nginx: {KEY}</body></html>",
    "",
    "\x00\xff garbage",
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", STATUSES)
async def test_every_status_is_the_error_of_its_class(
    server: ReplayServer, status: int, stream: bool
) -> None:
    for body in BODIES:
        for kind in (JSON, "text/event-stream", "text/html"):
            server.replies = [Reply([body.encode()], status=status, content_type=kind)]
            with pytest.raises(STATUSES[status]) as caught:
                await ask(model_of(server), stream=stream)
            assert caught.value.status == status
            check_silent(caught.value)


async def test_a_stream_that_breaks_off_at_any_byte_is_never_an_answer(server: ReplayServer) -> None:
    model = model_of(server)
    async with no_leaks():
        for end in range(len(STREAM) - 2):
            for clean in (True, False):
                server.replies = [Reply([STREAM[:end]], cut=not clean)]
                with pytest.raises(ModelError) as caught:
                    await ask(model, stream=True)
                check_silent(caught.value)
    server.replies = [Reply([STREAM])]
    answer = await ask(model, stream=True)
    assert [call.name for call in answer.message.tool_calls] == ["add"]


async def test_a_body_that_breaks_off_at_any_byte_is_never_an_answer(server: ReplayServer) -> None:
    model = model_of(server)
    for end in range(len(WHOLE)):
        for clean in (True, False):
            server.replies = [Reply([WHOLE[:end]], cut=not clean, content_type=JSON)]
            with pytest.raises(ModelError):
                await ask(model, stream=False)


async def test_a_stream_is_the_same_in_any_pieces(server: ReplayServer) -> None:
    model = model_of(server)
    for size in (1, 2, 3, 7, 64):
        server.replies = [Reply([STREAM[at : at + size] for at in range(0, len(STREAM), size)])]
        answer = await ask(model, stream=True)
        assert (answer.message.content, answer.message.reasoning_content) == ("Grüße \U0001f6d2", "Hm.")
        assert answer.usage.input_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_at_any_place_ends_in_a_timeout(server: ReplayServer, stream: bool) -> None:
    body, kind = (STREAM, "text/event-stream") if stream else (WHOLE, JSON)
    model = model_of(server, timeout=0.05)
    async with no_leaks():
        for end in (0, 1, len(body) // 2, len(body) - 1):
            server.replies = [Reply([body[:end]], stall=True, content_type=kind)]
            with pytest.raises(ModelTimeoutError) as caught:
                await ask(model, stream=stream)
            check_silent(caught.value)
        server.replies = [Reply(silent=True)]
        with pytest.raises(ModelTimeoutError):
            await ask(model, stream=stream)
        server.replies = [Reply(refuse=True)]
        with pytest.raises(ModelConnectionError):
            await ask(model, stream=stream)


GARBAGE = [
    b"",
    b"\xff\xfe\x00",
    b"<html>Bad gateway</html>",
    b"data: {\n\n",
    b"data: []\n\n",
    b"data: null\n\n",
    b'data: {"candidates": 5}\n\n',
    b": only a comment\n\n",
    b"event: error\ndata: it broke\n\n",
    b'[{"candidates": []}',
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [JSON, "text/event-stream", "text/html", "text/plain"])
async def test_garbage_with_status_200_is_an_error(server: ReplayServer, kind: str, stream: bool) -> None:
    for body in GARBAGE:
        server.replies = [Reply([body], content_type=kind)]
        with pytest.raises(ModelStreamError) as caught:
            await ask(model_of(server), stream=stream)
        check_silent(caught.value)


async def test_an_error_in_a_stream_shows_no_key_and_is_tried_again_where_nothing_was_shown(
    server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = {"error": {"code": 503, "message": f"Overloaded, {KEY}", "status": "UNAVAILABLE"}}
    broken = b"data: %s\n\n" % json.dumps(error).encode()
    server.replies = [Reply([broken]), Reply([STREAM])]
    answer = await ask(model_of(server, max_retries=1), stream=True)
    assert answer.message.content
    server.replies = [Reply([STREAM[: STREAM.index(b"data", 5)] + broken]), Reply([STREAM])]
    with pytest.raises(ModelServerError) as caught:
        await ask(model_of(server, max_retries=1), stream=True)
    check_silent(caught.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_gzip_is_read_and_one_that_is_cut_or_false_is_an_error(
    server: ReplayServer, stream: bool
) -> None:
    body, kind = (STREAM, "text/event-stream") if stream else (WHOLE, JSON)
    packed = gzip.compress(body)
    model = model_of(server)
    packing = {"content-encoding": "gzip"}
    server.replies = [Reply([packed[:9], packed[9:]], headers=packing, content_type=kind)]
    assert (await ask(model, stream=stream)).message.content == "Grüße \U0001f6d2"
    for broken in (packed[:-9], packed[:20], b"no gzip at all"):
        server.replies = [Reply([broken], headers=packing, content_type=kind)]
        with pytest.raises(ModelStreamError):
            await ask(model, stream=stream)


async def test_a_run_over_any_of_it_is_never_completed(server: ReplayServer) -> None:
    agent = Agent(model=model_of(server, timeout=0.1))
    replies = [
        Reply([STREAM[: len(STREAM) // 2]]),
        Reply([STREAM[: len(STREAM) // 2]], cut=True),
        Reply([b"data: {"]),
        Reply([b"<html>"], content_type="text/html"),
        Reply([b""]),
        Reply([b"{}"], status=500, content_type=JSON),
        Reply(silent=True),
        Reply(refuse=True),
    ]
    for reply in replies:
        for stream in (False, True):
            server.replies = [reply]
            with pytest.raises(ModelError) as caught:
                if stream:
                    async for event in agent.arun("Hi", stream=True, stream_events=True):
                        assert not isinstance(event, RunCompletedEvent)
                else:
                    await agent.arun("Hi")
            check_silent(caught.value)


async def test_a_request_that_is_cancelled_leaves_nothing_behind(server: ReplayServer) -> None:
    server.replies = [Reply([STREAM[:40]], stall=True)]
    async with no_leaks():
        task = asyncio.create_task(ask(model_of(server), stream=True))
        await server.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await server.idle.wait()
