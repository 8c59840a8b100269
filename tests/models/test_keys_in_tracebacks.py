"""An error reporter that writes down local variables, and the whole chain of an error, sees no key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import TracebackType

import pytest

from kern import Agent
from kern.messages import Message
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.raw_server import Wire, head, raw_server, said
from tests.models.replay import Sink

KEY = "sk-proj-THISISTHESECRETKEY0123456789"
OTHER = "ANOTHERSECRETHEADERVALUE987654"
PASSWORD = "THEPROXYSPASSWORD55"
ASK = ModelRequest([Message("user", "Hi")])
STREAM = ModelRequest([Message("user", "x" * 200_000)], stream=True)

pytestmark = pytest.mark.usefixtures("client")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from chain(part)


def frames(trace: TracebackType | None) -> Iterator[dict[str, object]]:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            yield trace.tb_frame.f_locals
        trace = trace.tb_next


def reported(error: BaseException) -> str:
    """What a reporter could send: rich shows the beginnings of texts, Sentry the attributes of nothing."""
    texts = []
    for link in chain(error):
        texts += [str(link), repr(link), repr(vars(link))]
        for variables in frames(link.__traceback__):
            for value in variables.values():
                with suppress(AttributeError):  # of what was not finished
                    texts += [repr(value), repr(value[:80]) if isinstance(value, str | bytes) else ""]
    return "\n".join(texts)


def check(error: BaseException) -> None:
    text = reported(error)
    for secret in (KEY, OTHER, PASSWORD):
        assert secret[:12] not in text
        assert secret[-12:] not in text


def model(url: str, **settings: object) -> OpenAIChat:
    settings = {"max_retries": 1, "timeout": 0.2, "api_key": KEY, **settings}
    return OpenAIChat("m", base_url=url, default_headers={"x-goog-api-key": OTHER}, **settings)


async def silent(wire: Wire) -> None:
    await wire.request()
    await asyncio.sleep(60)


async def closes(wire: Wire) -> None:
    await wire.request()


async def resets(wire: Wire) -> None:
    await wire.request()
    wire.reset()


async def half_a_head(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 O")


async def no_http(wire: Wire) -> None:
    await wire.request()
    await wire.send(f"not HTTP, but you said {KEY} and {OTHER}\r\n\r\n".encode())


async def lies_about_its_length(wire: Wire) -> None:
    await wire.request()
    await wire.send(head("content-length: 100000") + f'{{"you": "{KEY}'.encode())


async def bad_chunks(wire: Wire) -> None:
    await wire.request()
    await wire.send(head("transfer-encoding: chunked") + KEY.encode() + b"\r\n")


async def echoes(wire: Wire) -> None:
    await wire.request()
    await wire.send(said(f"{KEY} {OTHER}", f"x-request-id: {KEY}", status="401 No"))


async def no_json(wire: Wire) -> None:
    await wire.request()
    body = ("z" * 180 + KEY + OTHER).encode()
    await wire.send(head(f"content-length: {len(body)}") + body)


async def takes_nothing(wire: Wire) -> None:
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


FAULTS = [silent, closes, resets, half_a_head, no_http, lies_about_its_length]
FAULTS += [bad_chunks, echoes, no_json, takes_nothing]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("proxied", [False, True])
async def test_a_failed_request(
    fault: Callable[[Wire], Awaitable[None]], proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_server(fault) as server:
        url = server.url
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{server.port}")
            url = "http://provider.example/v1"
        for request in (ASK, STREAM):
            with pytest.raises(Exception) as caught:
                await model(url).respond(request, Sink())
            check(caught.value)
        assert KEY in "".join(server.heads) or fault is takes_nothing


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_cancelled_request(turns: int, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(silent) as server:
        url = server.url
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{server.port}")
            url = "http://provider.example/v1"
        task = asyncio.create_task(model(url, timeout=None).respond(STREAM, Sink()))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 10:
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        check(caught.value)


async def test_a_request_that_takes_too_long_and_a_run_that_does() -> None:
    async with raw_server(silent) as server:
        with pytest.raises(Exception) as caught:
            await model(server.url, total_timeout=0.1, timeout=None).respond(ASK, Sink())
        check(caught.value)
        agent = Agent(model=model(server.url, timeout=None))
        with pytest.raises(Exception) as caught:
            await agent.arun("hi", timeout=0.1)
        check(caught.value)
        with pytest.raises(TimeoutError) as caught_timeout:
            async with asyncio.timeout(0.1):
                await agent.arun("hi")
        check(caught_timeout.value)


async def test_where_nobody_listens() -> None:
    for url in (
        "http://127.0.0.1:1/v1",
        f"http://{'x' * 70}.invalid/v1",
        "https://127.0.0.1:1/v1",
    ):
        with pytest.raises(Exception) as caught:
            await model(url).respond(ASK, Sink())
        check(caught.value)


async def test_an_error_of_the_application_in_the_middle_of_an_answer() -> None:
    class Broken(Sink):
        def content(self, text: str) -> None:
            raise KeyError("mine")

    async with raw_server(lambda wire: once(wire, said("hi"))) as server:
        with pytest.raises(KeyError) as caught:
            await model(server.url).respond(STREAM, Broken())
        check(caught.value)


async def once(wire: Wire, data: bytes) -> None:
    await wire.request()
    await wire.send(data)


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("bad", [f"{KEY}\n{OTHER}", f"{KEY}é"])
async def test_a_key_or_header_that_cannot_be_sent(kind: type[OpenAIChat], bad: str) -> None:
    for settings in ({"api_key": bad}, {"default_headers": {"x-key": bad}}):
        made = kind("m", base_url="http://127.0.0.1:1/v1", **settings)
        with pytest.raises(Exception, match="header") as caught:
            await made.respond(ASK, Sink())
        check(caught.value)


async def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in (
        f"ftp://user:{PASSWORD}@x",
        f"http://user:{PASSWORD}@[",
        f"socks5://user:{PASSWORD}@127.0.0.1:1",
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        from kern.models._clients import close_clients

        with pytest.raises(Exception) as caught:
            await model("http://provider.example/v1").respond(ASK, Sink())
        check(caught.value)
        await close_clients()


def test_this_test_sees_what_a_reporter_sees() -> None:
    namespace: dict[str, object] = {}
    exec(compile("def fails(key):\n raise ValueError", "elsewhere.py", "exec"), namespace)
    with pytest.raises(ValueError) as caught:
        namespace["fails"]({"key": [KEY]})
    assert KEY in reported(caught.value)
