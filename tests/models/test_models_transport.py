"""The transport under faults: what is tried again, what it ends in, and that nothing is left open."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from email.utils import formatdate
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    UsageError,
)
from kern.messages import Message
from kern.models import ModelRequest
from kern.models._clients import Client, _of_loop, close_clients
from kern.models._failures import Origin, of_exception, of_status, parse_retry_after
from kern.models._pool import KEPT_SECONDS
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

KEY = "sk-very-secret-0123456789"
ASK = ModelRequest([Message("user", "Hi")], stream=True)


def text(piece: str) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {"content": piece}}]})


END = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]")
OK = Reply([text("ok"), END])


def model(server: ReplayServer, **settings: Any) -> OpenAIChat:
    return OpenAIChat("m", base_url=server.url, **settings)


def problem(status: int, code: str | None = None, message: str = "Because.", **headers: str) -> Reply:
    body = b'{"error":{"message":"%s","type":null,"code":%s}}' % (
        message.encode(),
        f'"{code}"'.encode() if code else b"null",
    )
    return Reply(
        [body], status, {name.replace("_", "-"): value for name, value in headers.items()}, "application/json"
    )


def connections() -> tuple[int, int]:
    """How many connections this loop's clients have in use, and how many idle."""
    busy = idle = 0
    for client in _of_loop.get()._clients.values():
        counts = client.connections  # type: ignore[attr-defined]
        busy, idle = busy + counts[0], idle + counts[1]
    return busy, idle


# What is tried again


@pytest.mark.parametrize(
    "fault",
    [
        problem(408),
        problem(409),
        problem(429, "rate_limit_exceeded"),
        problem(500),
        problem(503),
        problem(400, x_should_retry="true"),
        Reply(refuse=True),
        Reply([b"data: {broken\n\n"]),
        Reply([b"data: 7\n\n"]),
        Reply([b"data: \xff\xfe\n\n"]),
        Reply([], cut=True),
        Reply([b"data: {"], cut=True),
        Reply([]),
        Reply([b"<html>"], content_type="text/html"),
        Reply([b"{}"], content_type="application/json"),
        Reply([b'{"choices": []}'], content_type="application/json"),
    ],
)
async def test_a_fault_before_anything_was_shown_is_tried_again(
    server: ReplayServer, sink: Sink, fault: Reply
) -> None:
    server.replies = [fault, fault, OK]
    answer = await model(server).respond(ASK, sink)
    assert answer.message.content == sink.text() == "ok"
    assert [attempt for _, attempt, _ in sink.retries] == [1, 2]
    assert all(isinstance(error, ModelError) for error, _, _ in sink.retries)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (problem(400), ModelBadRequestError),
        (problem(413), ModelBadRequestError),
        (problem(422), ModelBadRequestError),
        (problem(402), ModelBadRequestError),
        (problem(401), ModelAuthError),
        (problem(403), ModelAuthError),
        (problem(404, "model_not_found"), ModelNotFoundError),
        (problem(429, "insufficient_quota"), ModelRateLimitError),
        (problem(429, retry_after="3600"), ModelRateLimitError),
        (problem(500, x_should_retry="false"), ModelServerError),
        (problem(307, location="/elsewhere"), ModelStatusError),
    ],
)
async def test_what_no_repetition_mends_is_raised_at_once(
    server: ReplayServer, sink: Sink, fault: Reply, kind: type[ModelStatusError]
) -> None:
    server.replies = [fault]
    with pytest.raises(ModelStatusError, match="Because") as caught:
        await model(server).respond(ASK, sink)
    assert type(caught.value) is kind
    assert caught.value.status == fault.status
    assert sink.retries == []
    assert len(server.asked) == 1


async def test_the_last_error_is_raised_with_all_it_knows(server: ReplayServer, sink: Sink) -> None:
    server.replies = [
        problem(500),
        problem(500),
        problem(429, "slow_down", retry_after="0", x_request_id="req_9"),
    ]
    with pytest.raises(ModelRateLimitError) as caught:
        await model(server).respond(ASK, sink)
    error = caught.value
    assert (error.provider, error.model, error.status) == ("openai", "m", 429)
    assert (error.code, error.request_id, error.retry_after) == ("slow_down", "req_9", 0.0)
    assert str(error) == f"openai/m: HTTP 429: Because. (answered by 127.0.0.1:{server.port})"
    assert len(server.asked) == 3


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_max_retries_counts_the_attempts_after_the_first(
    server: ReplayServer, sink: Sink, retries: int
) -> None:
    server.replies = [problem(500)]
    with pytest.raises(ModelServerError):
        await model(server, max_retries=retries).respond(ASK, sink)
    assert len(server.asked) == 1 + retries
    assert len(sink.retries) == retries


@pytest.mark.parametrize(
    "fault",
    [
        Reply([text("Hel")], cut=True),
        Reply([text("Hel")]),
        Reply([text("Hel"), b"data: {broken\n\n"]),
        Reply([text("Hel"), sse({"error": {"message": "oh"}})]),
    ],
)
async def test_nothing_is_tried_again_once_a_piece_was_shown(
    server: ReplayServer, sink: Sink, fault: Reply
) -> None:
    server.replies = [fault, OK]
    with pytest.raises(ModelStreamError):
        await model(server).respond(ASK, sink)
    assert sink.text() == "Hel"
    assert sink.retries == []
    assert len(server.asked) == 1
    assert connections()[0] == 0


async def test_without_stream_a_cut_answer_is_tried_again(server: ReplayServer, sink: Sink) -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
    cut = Reply([body[:30]], content_type="application/json", cut=True)
    server.replies = [cut, Reply([body], content_type="application/json")]
    answer = await model(server).respond(ModelRequest(ASK.messages), sink)
    assert answer.message.content == "ok"
    assert sink.pieces == []
    assert [attempt for _, attempt, _ in sink.retries] == [1]


# How long it waits


async def test_retry_after_is_the_delay(server: ReplayServer, sink: Sink) -> None:
    server.replies = [problem(429, retry_after_ms="20"), OK]
    await model(server).respond(ASK, sink)
    [(_, _, delay)] = sink.retries
    assert 0.02 <= delay <= 0.022


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(1_000_020, usegmt=True)}, 20),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0),
    ],
)
def test_the_forms_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, now=1_000_000) == seconds


@given(st.text(max_size=30))
def test_no_retry_after_breaks_the_parser(value: str) -> None:
    parsed = parse_retry_after({"retry-after": value, "retry-after-ms": value}, now=time.time())
    assert parsed is None or parsed >= 0


# Silence, and hosts that are not there


async def test_silence_is_a_timeout_and_tried_again(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([], stall=True, late=True), OK]
    assert (await model(server, timeout=1000.0).respond(ASK, sink)).message.content == "ok"
    [(error, _, _)] = sink.retries
    assert isinstance(error, ModelTimeoutError)


async def test_silence_after_a_piece_is_a_timeout_and_final(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([text("Hel")], stall=True), OK]
    with pytest.raises(ModelTimeoutError):
        await model(server, timeout=0.1).respond(ASK, sink)
    assert connections() == (0, 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unreachable_host_is_a_connection_error(
    sink: Sink, server: ReplayServer, scheme: str
) -> None:
    listener = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ModelConnectionError, match=f"127.0.0.1:{port}") as caught:
        await OpenAIChat("m", base_url=f"{scheme}://127.0.0.1:{port}").respond(ASK, sink)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert len(sink.retries) == 2
    assert connections() == (0, 0)


async def test_a_stream_that_stays_open_after_its_end_is_not_waited_for(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = [Reply([text("ok"), END], stall=True)]
    assert (await model(server).respond(ASK, sink)).message.content == "ok"
    assert connections() == (0, 0)


async def test_a_stream_cut_after_its_end_is_whole(server: ReplayServer, sink: Sink) -> None:
    server.replies = [Reply([text("ok"), END], cut=True)]
    assert (await model(server).respond(ASK, sink)).message.content == "ok"
    assert sink.retries == []


# Every lower error has one of ours


def subclasses(kind: type) -> list[type]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in subclasses(child))]


HTTPX = [
    kind
    for name in httpx.__all__
    if isinstance(kind := getattr(httpx, name), type) and issubclass(kind, Exception)
]
ORIGIN = Origin("openai", "m", "example.com", (KEY,))


def make(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, f"low down, {KEY}")
    return error


@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("kind", HTTPX)
def test_every_exception_of_httpx_is_mapped(kind: type[Exception], reading: bool) -> None:
    failure = of_exception(make(kind), ORIGIN, reading=reading)
    assert failure is not None
    assert isinstance(failure.error, ModelError | UsageError)
    assert KEY not in str(failure.error)
    if issubclass(kind, httpx.TimeoutException):
        assert type(failure.error) is ModelTimeoutError


def test_all_exceptions_of_httpx_are_known_to_this_test() -> None:
    every = {kind for kind in subclasses(Exception) if kind.__module__.split(".")[0] == "httpx"}
    assert every <= set(HTTPX)
    assert len(HTTPX) > 20


def test_an_exception_that_is_not_the_clients_is_not_ours_to_map() -> None:
    assert of_exception(KeyError("x"), ORIGIN, reading=True) is None
    assert of_exception(TimeoutError(), ORIGIN, reading=True) is None


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_is_mapped(status: int) -> None:
    failure = of_status(status, {}, b"", ORIGIN)
    assert isinstance(failure.error, ModelStatusError)
    assert failure.error.status == status
    assert failure.again == (status in (408, 409, 424, 429) or status >= 500)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","code":"c","type":"t"}}', "m", "c"),
        (b'{"error":{"message":"m","code":null,"type":"t"}}', "m", "t"),
        (b'{"error":"m"}', "m", None),
        (b'{"detail":"m"}', "m", None),
        (b'{"object":"error","message":"m","code":404}', "m", "404"),
        (b"<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>", None),
        (b"", "no explanation", None),
        (b"[1]", "[1]", None),
        (b"\xff", "\ufffd", None),
    ],
)
def test_the_shapes_of_error_bodies(body: bytes, message: str, code: str | None) -> None:
    error = of_status(500, {}, body, ORIGIN).error
    assert isinstance(error, ModelStatusError)
    assert str(error) == f"openai/m: HTTP 500: {message}"
    assert error.code == code


# Secrets


def everything_shown(error: BaseException) -> str:
    chain = "".join(traceback.format_exception(error))
    return chain + repr(error) + repr(vars(error)) + repr(error.__cause__ and vars(error.__cause__))


@pytest.mark.parametrize(
    "fault",
    [
        problem(401, message=f"Incorrect API key: {KEY}"),
        Reply([f"no JSON {KEY}".encode()], 500),
        Reply([sse({"error": {"message": f"bad key {KEY}"}})]),
        Reply([f"data: broken {KEY}\n\n".encode()]),
        Reply([], cut=True),
        Reply(refuse=True),
        Reply(stall=True),
    ],
)
async def test_keys_are_in_no_error_and_no_log(
    server: ReplayServer, sink: Sink, fault: Reply, caplog: pytest.LogCaptureFixture, client: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies = [fault]
    second = "another-secret-value"
    chat = model(server, api_key=KEY, default_headers={"Api-Key": second}, max_retries=1, timeout=0.05)
    with pytest.raises(ModelError) as caught:
        await chat.respond(ASK, sink)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    shown = (
        everything_shown(caught.value)
        + caplog.text
        + repr(chat)
        + str(vars(chat) | {"default_headers": None})
    )
    shown += "".join(str(error) for error, _, _ in sink.retries)
    assert caplog.text or client == "aiohttp"  # which logs nothing of a request
    assert KEY not in shown
    assert second not in shown


@pytest.mark.parametrize("bad", [f"{KEY}\nx", f"{KEY}é", f"{KEY}\x00"])
async def test_a_key_that_http_cannot_carry_is_refused_unseen(
    server: ReplayServer, sink: Sink, bad: str
) -> None:
    for chat in (model(server, api_key=bad), model(server, default_headers={"x-key": bad})):
        with pytest.raises(UsageError, match="header") as caught:
            await chat.respond(ASK, sink)
        assert KEY not in everything_shown(caught.value)
    assert server.asked == []


def test_the_repr_shows_the_id_alone() -> None:
    chat = OpenAIChat(
        "m", api_key=KEY, default_headers={"authorization": KEY}, base_url="http://localhost/v1"
    )
    assert repr(chat) == "OpenAIChat(id='m')"
    assert KEY not in repr(chat._api_key)


# Cancellation


@pytest.mark.parametrize("where", ["before the headers", "in the stream", "in the delay", "in the drain"])
async def test_a_cancelled_request_leaves_no_connection(server: ReplayServer, where: str) -> None:
    reached = asyncio.Event()

    class Waiting(Sink):
        def content(self, text: str) -> None:
            super().content(text)
            if where == "in the stream":
                reached.set()

        def retrying(self, error: Exception, attempt: int, delay: float) -> None:
            reached.set()

        async def drain(self) -> None:
            reached.set()
            await asyncio.Event().wait()

    sink = Waiting()
    sink.full = where == "in the drain"
    fault = {"in the delay": problem(429, retry_after="30"), "before the headers": Reply(silent=True)}
    server.replies = [fault.get(where, Reply([text("a")], stall=True))]
    if where == "before the headers":
        reached = server.was_asked
    task = asyncio.create_task(model(server).respond(ASK, sink))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connections()[0] == 0
    if where != "in the delay":
        assert connections() == (0, 0)
        await server.idle.wait()  # the server's end of it is closed, too


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("scope", [False, True])
async def test_a_request_may_be_cancelled_at_any_step(server: ReplayServer, warm: bool, scope: bool) -> None:
    server.replies = [OK]
    if warm:
        await model(server).respond(ASK, Sink())
    finished = 0
    for steps in range(120):
        cancel = anyio.CancelScope()

        async def request(cancel: anyio.CancelScope = cancel) -> None:
            with cancel:
                await model(server).respond(ASK, Sink())

        task = asyncio.create_task(request())
        for _ in range(steps):
            await asyncio.sleep(0)
        finished += task.done()
        (cancel if scope else task).cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert connections()[0] == 0
        if not warm:
            await close_clients()
    assert 0 < finished < 120  # it was cancelled in the middle as well as after its end


async def test_many_cancelled_at_once_leave_no_connection(server: ReplayServer) -> None:
    server.replies = [Reply([text("a")], stall=True)]
    tasks = [asyncio.create_task(model(server).respond(ASK, Sink())) for _ in range(40)]
    for turn in range(20):
        await asyncio.sleep(0.002)
        tasks[turn].cancel()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert connections() == (0, 0)
    await server.idle.wait()


async def test_an_error_of_the_sink_is_passed_on_and_closes_the_response(server: ReplayServer) -> None:
    class Broken(Sink):
        def content(self, text: str) -> None:
            raise KeyError("mine")

    server.replies = [Reply([text("a")], stall=True)]
    with pytest.raises(KeyError, match="mine"):
        await model(server).respond(ASK, Broken())
    assert connections() == (0, 0)
    assert len(server.asked) == 1


# Connections and clients


async def test_a_full_sink_is_waited_for(server: ReplayServer, sink: Sink) -> None:
    sink.full = True
    server.replies = [OK]
    await model(server).respond(ASK, sink)
    assert sink.drained == 1


async def test_models_share_a_connection_that_is_kept(server: ReplayServer, sink: Sink) -> None:
    server.replies = [OK]
    for _ in range(5):
        await model(server).respond(ASK, sink)
    assert server.connections == 1


async def test_a_proxy_is_not_asked_for_this_machine(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    server.replies = [OK]
    await model(server, max_retries=0).respond(ASK, sink)
    assert len(server.asked) == 1


async def test_a_refused_request_keeps_its_connection_too(server: ReplayServer, sink: Sink) -> None:
    server.replies = [problem(500), problem(429, retry_after="0"), OK]
    await model(server).respond(ASK, sink)
    assert server.connections == 1


async def test_requests_at_once_have_a_connection_each_and_those_after_them_the_same_ones(
    server: ReplayServer,
) -> None:
    server.replies = [OK]
    for _ in range(3):
        answers = await asyncio.gather(*(model(server).respond(ASK, Sink()) for _ in range(100)))
        assert {answer.message.content for answer in answers} == {"ok"}
        assert connections() == (0, server.connections)
        assert server.connections <= 100
    [client] = _of_loop.get()._clients.values()
    await _of_loop.aclose()
    assert client.is_closed
    await server.idle.wait()


async def test_a_connection_that_has_idled_too_long_is_closed_when_another_comes_back(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    if client != "httpx":
        pytest.skip("aiohttp's own doing")
    server.replies = [OK]
    await asyncio.gather(*(model(server).respond(ASK, Sink()) for _ in range(20)))
    later = time.monotonic() + KEPT_SECONDS + 1
    monkeypatch.setattr("kern.models._pool.time.monotonic", lambda: later)
    await model(server).respond(ASK, sink)
    assert connections() == (0, 1)


async def test_a_connection_that_the_server_has_closed_is_not_used_again(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = [OK]
    await model(server).respond(ASK, sink)
    await server.close()
    await asyncio.sleep(0.05)  # until the end of the connection has arrived
    await model(server).respond(ASK, sink)
    assert server.connections == 2
    assert connections() == (0, 1)


async def test_a_proxy_of_the_environment_is_used(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url.rpartition("/v1")[0])
    server.replies = [OK]
    far = OpenAIChat("m", base_url="http://model.example/v1")
    for _ in range(2):
        assert (await far.respond(ASK, sink)).message.content == "ok"
    assert server.connections == 1
    await close_clients()


def test_each_loop_has_clients_of_its_own_and_closes_them() -> None:
    async def client() -> Client:
        return _of_loop.get().client(httpx.URL("http://127.0.0.1:1"))

    first, second = asyncio.run(client()), asyncio.run(client())
    assert first is not second
    assert first.is_closed
    assert second.is_closed


async def test_a_client_passed_in_is_used_as_it_is_and_never_closed(server: ReplayServer, sink: Sink) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text("mine") + END)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), timeout=7.0) as client:
        plain = OpenAIChat("m", base_url="http://localhost/v1", http_client=client)
        assert (await plain.respond(ASK, sink)).message.content == "mine"
        timed = OpenAIChat("m", base_url="http://localhost/v1", http_client=client, timeout=3.0)
        await timed.respond(ASK, sink)
        assert not client.is_closed
    assert [request.extensions["timeout"]["read"] for request in seen] == [7.0, 3.0]
    assert server.asked == []


async def test_a_client_of_another_make_with_the_same_interface_will_do(
    server: ReplayServer, sink: Sink
) -> None:
    httpx2 = pytest.importorskip("httpx2")
    server.replies = [problem(500), OK]
    async with httpx2.AsyncClient() as client:
        answer = await model(server, http_client=client, timeout=5.0).respond(ASK, sink)
        assert answer.message.content == "ok"
        server.replies = [Reply(refuse=True)]
        with pytest.raises(ModelConnectionError):
            await model(server, http_client=client).respond(ASK, sink)


async def test_a_compressed_stream_is_understood(server: ReplayServer, sink: Sink) -> None:
    import gzip

    server.replies = [Reply([gzip.compress(text("ok") + END)], headers={"content-encoding": "gzip"})]
    assert (await model(server).respond(ASK, sink)).message.content == "ok"
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_a_query_in_the_base_url_is_kept(server: ReplayServer, sink: Sink) -> None:
    server.replies = [OK]
    chat = OpenAIChat("m", base_url=f"{server.url}/?api-version=1")
    await chat.respond(ASK, sink)
    assert server.asked[0].path == "/v1/chat/completions?api-version=1"


async def test_a_message_of_a_megabyte_goes_out(server: ReplayServer, sink: Sink) -> None:
    server.replies = [OK]
    long = "ä" * 1_000_000
    await model(server).respond(ModelRequest([Message("user", long)], stream=True), sink)
    assert server.asked[0].body["messages"][0]["content"] == long
