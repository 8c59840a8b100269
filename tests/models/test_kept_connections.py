"""A connection that is kept between two requests gives the second one its own answer, or none."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress

import httpx
import pytest

from kern.errors import ModelConnectionError, ModelError
from kern.messages import Message
from kern.models._clients import proxy_for
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat
from tests.models.raw_server import RawServer, Wire, raw_server, said
from tests.models.replay import Sink

ASK = ModelRequest([Message("user", "Hi")])

PART = said("of another")[:9]
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

pytestmark = pytest.mark.usefixtures("client")


async def ask(server: RawServer, sink: Sink | None = None, **settings: object) -> str | None:
    settings = {"max_retries": 0, "api_key": "sk-some-tenant-0000", "base_url": server.url, **settings}
    model = OpenAIChat("m", **settings)
    return (await model.respond(ASK, sink or Sink())).message.content


# Bytes that nobody has asked for


@pytest.mark.parametrize("stray", [said("of another"), PART, b"\0", INTERIM])
@pytest.mark.parametrize("glued", [True, False])
@pytest.mark.parametrize("proxied", [True, False])
async def test_bytes_that_come_unasked_are_not_the_next_answer(
    client: str, stray: bytes, glued: bool, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            if glued:
                await wire.send(said("own") + stray)
            else:
                await wire.send(said("own"))
                await asyncio.sleep(0.02)
                await wire.send(stray)

    async with raw_server(answer) as server:
        settings: dict[str, object] = {}
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
            settings = {"base_url": "http://provider.example/v1"}
        garbled = client == "aiohttp" and glued  # which says so, or drops a beginning that it cannot read yet
        with suppress(ModelError if garbled and stray == b"\0" else KeyError):
            assert await ask(server, **settings) == "own"
        await asyncio.sleep(0.05)
        with suppress(ModelError if garbled and stray == b"\0" else KeyError):
            assert await ask(server, **settings) == "own"
        assert server.on == [0, 1] or (garbled and stray == PART)


async def test_a_stray_answer_that_the_event_loop_has_not_seen_yet_is_not_the_next_answer() -> None:
    sent = threading.Event()

    def stray(wire: Wire) -> None:
        os.write(wire.writer.get_extra_info("socket").fileno(), said("of another"))
        sent.set()

    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(said("own"))
            if wire.number == 0:
                threading.Timer(0.02, stray, [wire]).start()

    async with raw_server(answer) as server:
        assert await ask(server) == "own"
        sent.wait(5)  # the loop stands still
        time.sleep(0.01)  # noqa: ASYNC251
        assert await ask(server) == "own"
        assert server.on == [0, 1]


# A connection that the server closes in the moment in which it is used again


def closing(how: str, *, every: bool = False):  # type: ignore[no-untyped-def]
    """Answers the first request of a connection, and ends the connection when the second one comes."""

    async def answer(wire: Wire) -> None:
        if wire.number and every:
            await wire.request()
            return
        await wire.request()
        await wire.send(said(f"answer {wire.number}"))
        await wire.request()
        if how == "byte":
            await wire.send(b"H")
        if how == "interim":
            await wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        if how == "late":
            await asyncio.sleep(1.05)
        if how == "reset":
            wire.reset()

    return answer


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_request_that_meets_a_closed_connection_is_sent_again_at_once_and_uncounted(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "kern")
    async with raw_server(closing(how)) as server:
        sink = Sink()
        assert await ask(server, sink) == "answer 0"
        assert await ask(server, sink) == "answer 1"
        assert server.on == [0, 0, 1]
        assert sink.retries == []
        assert [record for record in caplog.records if record.name.startswith("kern")] == []


async def test_the_new_connection_is_none_of_those_that_were_kept() -> None:
    release = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.request()
        await release.wait()
        await wire.send(said(f"answer {wire.number}"))
        await wire.request()  # and the end, whichever is used

    async with raw_server(answer) as server:
        both = [asyncio.create_task(ask(server)) for _ in range(2)]
        while len(server.asked) < 2:
            await asyncio.sleep(0.001)
        release.set()
        await asyncio.gather(*both)
        assert await ask(server) == "answer 2"
        assert len(server.asked) == 4


async def test_it_is_sent_again_once_only() -> None:
    async with raw_server(closing("end", every=True)) as server:
        await ask(server)
        with pytest.raises(ModelConnectionError):
            await ask(server)
        assert server.on == [0, 0, 1]
        sink = Sink()
        with pytest.raises(ModelConnectionError):
            await ask(server, sink, max_retries=1)
        assert server.on[3:] == [2, 3]  # there was none to be used again
        assert len(sink.retries) == 1


@pytest.mark.parametrize("how", ["byte", "interim", "late"])
async def test_a_request_that_the_server_may_have_worked_on_is_not_sent_again(how: str) -> None:
    async with raw_server(closing(how)) as server:
        await ask(server)
        with pytest.raises(ModelError):
            await ask(server)
        assert server.on == [0, 0]


async def test_a_timeout_of_less_than_a_second_is_no_closed_connection() -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(said("answer"))
        await wire.request()
        await asyncio.sleep(30)

    async with raw_server(answer) as server:
        await ask(server)
        with pytest.raises(ModelError, match="silent"):
            await ask(server, timeout=0.05)
        assert server.on == [0, 0]


async def test_behind_a_proxy_a_closed_connection_is_met_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with raw_server(closing("end")) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
        for text in ("answer 0", "answer 1"):
            assert await ask(server, base_url="http://provider.example/v1") == text
        assert server.on == [0, 0, 1]


# What a server wants to be remembered, and where it sends to


@pytest.mark.parametrize("proxied", [True, False])
async def test_no_cookie_is_kept(proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(said("ok", "set-cookie: sid=tenant-a; Path=/", "connection: keep-alive"))

    async with raw_server(answer) as server:
        settings: dict[str, object] = {}
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
            settings = {"base_url": "http://provider.example/v1"}
        for tenant in ("a", "b"):
            await ask(server, api_key=f"sk-tenant-{tenant}-0000", **settings)
        assert "cookie" not in "".join(server.heads).lower()
        assert server.on == [0, 0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Moved", "308 Moved"])
async def test_no_redirect_takes_a_key_elsewhere(status: str) -> None:
    async def elsewhere(wire: Wire) -> None:
        await wire.request()

    async with raw_server(elsewhere) as other:

        async def answer(wire: Wire) -> None:
            await wire.request()
            await wire.send(said("", f"location: {other.url}/chat/completions", status=status))

        async with raw_server(answer) as server:
            with pytest.raises(ModelError, match="redirect"):
                await ask(server)
        assert other.heads == []


async def test_interim_answers_are_passed_over() -> None:
    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
            await asyncio.sleep(0.01)
            await wire.send(b"HTTP/1.1 102 Processing\r\n\r\n" + said("final"))

    async with raw_server(answer) as server:
        assert await ask(server) == "final"
        assert await ask(server) == "final"
        assert server.on == [0, 0]


async def test_hosts_that_the_environment_excepts_are_asked_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example, .corp, 10.0.0.1")
    for variable in ("https_proxy", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
    assert proxy_for(httpx.URL("https://api.openai.com/v1")) == "http://proxy.example:3128"
    assert proxy_for(httpx.URL("http://api.openai.com/v1")) is None
    for host in (
        "internal.example",
        "a.internal.example",
        "model.corp",
        "10.0.0.1",
        "127.0.0.1",
        "localhost",
    ):
        assert proxy_for(httpx.URL(f"https://{host}/v1")) is None
    assert proxy_for(httpx.URL("https://notinternal.example/v1")) is not None
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_for(httpx.URL("https://api.openai.com/v1")) is None
