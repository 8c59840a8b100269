"""Time that passes while a request is sent, and bounds of its whole time and of its answer."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import httpx
import pytest

from kern.errors import ModelError, ModelServerError, ModelStreamError, ModelTimeoutError, UsageError
from kern.messages import Message
from kern.models._inflate import Inflate
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.clock import pass_time
from tests.models.raw_server import RawServer, Wire, head, raw_server, said
from tests.models.replay import Sink

MEGABYTE = 1024 * 1024
SHORT = ModelRequest([Message("user", "Hi")])
STREAM = ModelRequest([Message("user", "Hi")], stream=True)
LONG = ModelRequest([Message("user", "x" * 24 * MEGABYTE)])

pytestmark = pytest.mark.usefixtures("client")


async def ask(
    server: RawServer, request: ModelRequest = SHORT, sink: Sink | None = None, **settings: object
) -> str | None:
    settings = {"max_retries": 0, "base_url": server.url, **settings}
    model = OpenAIChat("m", **settings)
    return (await model.respond(request, sink or Sink())).message.content


# Time


async def test_a_server_that_takes_nothing_of_a_request_is_given_up_like_a_silent_one() -> None:
    async def answer(wire: Wire) -> None:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    async with raw_server(answer) as server:
        with pytest.raises(ModelTimeoutError, match="silent"):
            await ask(server, LONG, timeout=0.5)


async def test_a_request_that_leaves_slowly_is_not_silent() -> None:
    async def answer(wire: Wire) -> None:
        header = await wire.reader.readuntil(b"\r\n\r\n")
        left = int(header.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while left:
            left -= len(await wire.reader.read(MEGABYTE // 2))
            await asyncio.sleep(0.03)
        await wire.send(said("all read"))

    async with raw_server(answer) as server:
        assert await ask(server, LONG, timeout=1.0) == "all read"  # which takes longer by far


async def test_an_answer_that_comes_before_the_request_has_left_is_heard() -> None:
    async def answer(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(said("too much", "connection: close", status="503 No"))
        while await wire.reader.read(MEGABYTE):
            pass

    async with raw_server(answer) as server:
        with pytest.raises(ModelServerError):
            await ask(server, LONG, timeout=5.0)


async def test_total_timeout_bounds_an_answer_that_never_falls_silent() -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(head("transfer-encoding: chunked", kind="text/event-stream"))
        for _ in range(5):
            await wire.send(b"9\r\n: still \n\r\n")
            await asyncio.sleep(0.01)
        pass_time()
        while True:
            await wire.send(b"9\r\n: still \n\r\n")
            await asyncio.sleep(0.01)

    async with raw_server(answer) as server:
        sink = Sink()
        with pytest.raises(ModelTimeoutError, match=r"took longer than 1000 s \(see `total_timeout`\)"):
            await ask(server, STREAM, sink, timeout=5000.0, total_timeout=1000.0, max_retries=3)
        assert sink.retries == []
        assert len(server.asked) == 1


async def test_total_timeout_bounds_all_attempts_and_the_pauses_between_them() -> None:
    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            if len(server.asked) == 3:
                pass_time()
            await wire.send(said("", "retry-after: 0.05", status="500 No"))

    async with raw_server(answer) as server:
        with pytest.raises(ModelTimeoutError, match="total_timeout"):
            await ask(server, total_timeout=1000.0, max_retries=1000)
        assert len(server.asked) in (3, 4)  # a fourth one may have been on its way
        with pytest.raises(ModelServerError):
            await ask(server, total_timeout=5.0, max_retries=1)


async def test_a_timeout_of_the_applications_own_stays_its_own() -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(60)

    async with raw_server(answer) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(server, total_timeout=30.0)


@pytest.mark.parametrize("name", ["timeout", "total_timeout", "max_line_bytes", "max_answer_bytes"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    for kind in (OpenAIChat, OpenAIResponses):
        with pytest.raises(UsageError, match=f"{name} must be a number of "):
            kind("m", **{name: 0})


# Size


async def endless(wire: Wire, first: bytes, piece: bytes) -> None:
    await wire.request()
    await wire.send(first)
    while True:
        await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_line_and_an_answer_without_an_end_are_stopped(streamed: bool) -> None:
    async def answer(wire: Wire) -> None:
        kind = "text/event-stream" if streamed else "application/json"
        await endless(wire, head("transfer-encoding: chunked", kind=kind), b"data: " + b"x" * 100_000)

    bounds = {"max_line_bytes": 2 * MEGABYTE, "max_answer_bytes": 4 * MEGABYTE}
    async with raw_server(answer) as server:
        words = "a line of the answer is longer than 2,097,152" if streamed else "longer than 4,194,304"
        with pytest.raises(ModelStreamError, match=words) as caught:
            await ask(server, STREAM, max_retries=3, **bounds)
        assert ("max_line_bytes" if streamed else "max_answer_bytes") in str(caught.value)
        assert len(server.asked) == 1  # the next one would be as long, and cost as much


async def test_short_lines_without_an_end_are_stopped_too() -> None:
    async def answer(wire: Wire) -> None:
        lines = b"data: x\n" * 10_000
        await endless(wire, head("transfer-encoding: chunked", kind="text/event-stream"), lines)

    async with raw_server(answer) as server:
        with pytest.raises(ModelStreamError, match="max_answer_bytes"):
            await ask(server, STREAM, max_line_bytes=1000, max_answer_bytes=MEGABYTE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
async def test_a_small_answer_that_swells_is_stopped(encoding: str, status: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    packed = b"".join(packer.compress(bytes(16 * MEGABYTE)) for _ in range(40)) + packer.flush()
    assert len(packed) < MEGABYTE

    async def answer(wire: Wire) -> None:
        await wire.request()
        size = f"content-length: {len(packed)}"
        await wire.send(head(size, f"content-encoding: {encoding}", status=status) + packed)

    async with raw_server(answer) as server:
        with pytest.raises(ModelError, match="max_answer_bytes" if status == "200 OK" else "HTTP 400"):
            await ask(server, max_answer_bytes=8 * MEGABYTE)


async def test_interim_answers_without_an_end_are_stopped() -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        while True:
            await wire.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 500)

    async with raw_server(answer) as server:
        with pytest.raises(ModelError, match="interim responses without an end"):
            await ask(server)


async def test_an_answer_of_many_megabytes_is_taken_in() -> None:
    text = "x" * 20 * MEGABYTE
    async with raw_server(lambda wire: once(wire, said(text))) as server:
        assert await ask(server) == text
    async with raw_server(lambda wire: once(wire, said(text))) as server:
        assert await ask(server, max_answer_bytes=None, max_line_bytes=None) == text


async def once(wire: Wire, data: bytes) -> None:
    await wire.request()
    await wire.send(data)


# Compression


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:]),
    "deflate": zlib.compress,
    "deflate, identity": lambda data: zlib.compress(data)[2:-4],
    "identity": bytes,
}


@pytest.mark.parametrize("encoding", list(PACKED))
async def test_a_compressed_answer_is_understood_however_it_is_cut(encoding: str) -> None:
    body = said("packed ä").partition(b"\r\n\r\n")[2]
    packed = PACKED[encoding](body)

    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(head("transfer-encoding: chunked", f"content-encoding: {encoding}"))
        for byte in packed:
            await wire.send(b"1\r\n%c\r\n" % byte)
        await wire.send(b"0\r\n\r\n")

    async with raw_server(answer) as server:
        assert await ask(server) == "packed ä"
        assert "accept-encoding: gzip, deflate\r\n" in server.heads[0].lower()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_a_compression_that_was_not_asked_for_is_told(encoding: str) -> None:
    data = said("?", f"content-encoding: {encoding}")
    async with raw_server(lambda wire: once(wire, data)) as server:
        with pytest.raises(ModelStreamError, match=f"compressed with '{encoding}', which"):
            await ask(server, max_retries=2)
        assert len(server.asked) == 1


async def test_what_cannot_be_decompressed_is_a_stream_error() -> None:
    async with raw_server(lambda wire: once(wire, said("?", "content-encoding: gzip"))) as server:
        with pytest.raises(ModelStreamError, match="cannot be decompressed"):
            await ask(server)


def test_pieces_are_bounded_and_lose_nothing() -> None:
    data = bytes(5 * MEGABYTE) + b"end"
    pieces = list(Inflate("gzip").feed(gzip.compress(data) + b"trailing"))
    assert max(map(len, pieces)) == MEGABYTE
    assert b"".join(pieces) == data


async def test_a_client_passed_in_keeps_its_own_ways(client: str) -> None:
    if client != "httpx":
        pytest.skip("it is one client")

    async def answer(wire: Wire) -> None:
        await wire.request()
        body = gzip.compress(said("packed").partition(b"\r\n\r\n")[2])
        await wire.send(head(f"content-length: {len(body)}", "content-encoding: gzip") + body)

    async with raw_server(answer) as server, httpx.AsyncClient(headers={"accept-encoding": "gzip"}) as mine:
        assert await ask(server, http_client=mine) == "packed"
        assert "accept-encoding: gzip\r\n" in server.heads[0].lower()
        with pytest.raises(ModelStreamError, match="max_answer_bytes"):
            await ask(server, http_client=mine, max_answer_bytes=20)
