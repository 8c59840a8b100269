"""The server's reader of HTTP requests, byte by byte."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern.testing import ModelServer
from kern.testing._http import BadRequest, HttpRequest, RequestParser

WIRE = (
    b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;x=y\r\nwiki\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)
EXPECTED = [
    HttpRequest("POST", "/v1/responses", {"host": "x", "content-length": "5"}, b"hello"),
    HttpRequest("GET", "/v1/models", {"host": "x", "connection": "close"}),
    HttpRequest("POST", "/a", {"host": "x", "transfer-encoding": "chunked"}, b"wiki0123456789"),
    HttpRequest("POST", "/b", {"host": "x", "transfer-encoding": "chunked"}),
]


@given(st.lists(st.integers(0, len(WIRE)), max_size=20))
def test_any_chunking_gives_the_same_requests(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WIRE)]
    parser = RequestParser()
    found = []
    for start, end in pairwise(edges):
        found += parser.feed(WIRE[start:end])
    assert found == EXPECTED


def test_byte_by_byte_gives_the_same_requests() -> None:
    parser = RequestParser()
    assert [request for i in range(len(WIRE)) for request in parser.feed(WIRE[i : i + 1])] == EXPECTED
    assert [request.keep_alive for request in EXPECTED] == [True, False, True, True]


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(wire: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestParser().feed(wire)


async def speak(server: ModelServer, wire: bytes) -> bytes:
    port = int(server.base_url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_connection_that_speaks_something_else_gets_400_and_is_closed() -> None:
    async with ModelServer([]) as server:
        assert (await speak(server, b"EHLO me\r\n\r\n")).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    headers = b"Host: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 28\r\n\r\n"
    async with ModelServer(["hi"]) as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/responses HTTP/1.1\r\n" + headers)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"model": "m", "input": "x"}')
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_order() -> None:
    def wire(model: str) -> bytes:
        body = b'{"model": "%b", "input": "x"}' % model.encode()
        return b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    last = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with ModelServer(lambda request: f"I am {request.model}") as server:
        answer = await speak(server, wire("one") + wire("two") + last)
    assert answer.index(b"I am one") < answer.index(b"I am two") < answer.index(b'"object":"list"')
