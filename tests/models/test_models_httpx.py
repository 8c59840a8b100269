"""The usual client on asyncio's own connections; what models need of it is in the transport's tests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import httpx
import pytest
import trustme

from kern.models import _stream
from kern.models._failures import Origin, of_exception
from kern.models._httpx import CAUGHT, HttpxClient, mapped_error

AUTHORITY = trustme.CA()
LIMITS = (5.0, 5.0, 5.0, 5.0)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LARGE = bytes(range(256)) * 40_000  # 10 MB

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def verified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@asynccontextmanager
async def serving(answer: Answer, *, tls: bool = False) -> AsyncIterator[httpx.URL]:
    """A server that gives each connection to `answer`."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield httpx.URL(f"{'https' if tls else 'http'}://localhost:{port}/")
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every body back, in a chunk of its own."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (length, body))
        await writer.drain()


async def post(
    client: HttpxClient, url: httpx.URL, body: bytes = b"{}", limits: tuple[float, ...] = LIMITS
) -> bytes:
    async with client.stream("POST", url, content=body, headers={}, timeout=limits) as response:
        return b"".join([chunk async for chunk in response.aiter_raw()])


@pytest.mark.parametrize("tls", [False, True])
async def test_large_bodies_go_both_ways(tls: bool) -> None:
    client = HttpxClient(verified() if tls else None, keep=30.0)
    async with serving(echo, tls=tls) as url:
        for body in (b"small", LARGE, b"small again"):
            assert await post(client, url, body) == body
        assert client.connections == (0, 1)
        await client.aclose()
    assert client.is_closed


async def test_a_certificate_that_is_not_trusted_is_refused() -> None:
    client = HttpxClient(ssl.create_default_context(), keep=30.0)
    async with serving(echo, tls=True) as url:
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await post(client, url)
        assert client.connections == (0, 0)
        await client.aclose()


async def test_another_name_than_the_certificates_is_refused() -> None:
    client = HttpxClient(verified(), keep=30.0)
    async with serving(echo, tls=True) as url:
        with pytest.raises(httpx.ConnectError, match=r"(?i)mismatch"):
            await post(client, url.copy_with(host="127.0.0.1"))
        await client.aclose()


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing, say nothing."""
    await asyncio.Event().wait()


async def test_a_handshake_that_is_not_answered_is_given_up() -> None:
    client = HttpxClient(verified(), keep=30.0)
    async with serving(never) as url:
        with pytest.raises(httpx.ConnectTimeout):
            await post(client, url.copy_with(scheme="https"), limits=(0.05, 5.0, 5.0, 5.0))
        assert client.connections == (0, 0)
        await client.aclose()


async def test_a_handshake_with_what_speaks_no_tls_fails() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"no TLS here, sorry\r\n" * 10)

    client = HttpxClient(verified(), keep=30.0)
    async with serving(rude) as url:
        with pytest.raises(httpx.ConnectError):
            await post(client, url.copy_with(scheme="https"))
        await client.aclose()


async def test_a_server_that_takes_nothing_is_given_up() -> None:
    client = HttpxClient(None, keep=30.0)
    async with serving(never) as url:
        with pytest.raises(httpx.WriteTimeout):
            await post(client, url, LARGE, limits=(5.0, 5.0, 0.05, 5.0))
        with pytest.raises(httpx.ReadTimeout):
            await post(client, url, limits=(5.0, 0.05, 5.0, 5.0))
        assert client.connections == (0, 0)
        await client.aclose()


async def test_an_answer_that_comes_before_the_request_is_whole_is_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo long")
        while await reader.read(65536):  # or the answer is lost with the connection
            pass

    client = HttpxClient(None, keep=30.0)
    async with serving(refuse) as url:
        assert await post(client, url, LARGE) == b"too long"
        await client.aclose()


async def test_a_connection_that_breaks_within_the_answer_is_an_error() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
        await writer.drain()
        if url.fragment:  # a reset instead of an end
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()

    client = HttpxClient(None, keep=30.0)
    async with serving(cut) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(client, url)
        url = url.copy_with(fragment="reset")
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await post(client, url)
        assert client.connections == (0, 0)
        await client.aclose()


async def test_what_is_not_read_yet_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_stream.Stream] = []

    class Watched(_stream.Stream):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(_stream, "Stream", Watched)
    client = HttpxClient(None, keep=30.0)
    async with (
        serving(echo) as url,
        client.stream("POST", url, content=LARGE, headers={}, timeout=LIMITS) as response,
    ):
        chunks = response.aiter_raw()
        received = await anext(chunks)
        for _ in range(200):
            await asyncio.sleep(0)
        assert 0 < len(made[0]._unread) < 1_000_000
        async for chunk in chunks:
            received += chunk
        assert received == LARGE
    await client.aclose()


async def test_a_connection_that_was_closed_while_the_loop_stood_still_is_not_used_again() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[int] = []
    closed = threading.Event()

    def serve() -> None:
        for number in range(2):
            connection, _ = listener.accept()
            accepted.append(number)
            with connection:
                connection.recv(65536)
                connection.sendall(OK)
                hold.wait()
            closed.set()

    hold = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    client = HttpxClient(None, keep=30.0)
    url = httpx.URL(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    try:
        assert await post(client, url) == b"ok"
        hold.set()
        closed.wait()  # the loop is not told
        assert await post(client, url) == b"ok"
    finally:
        await client.aclose()
        hold.set()
        server.join()
        listener.close()
    assert accepted == [0, 1]


async def test_a_host_that_there_is_none_of_is_a_connect_error() -> None:
    client = HttpxClient(None, keep=30.0)
    for url in ("http://127.0.0.1:1/", f"http://{'x' * 70}.invalid/"):
        with pytest.raises(httpx.ConnectError):
            await post(client, httpx.URL(url))
    with pytest.raises(httpx.UnsupportedProtocol):
        await post(client, httpx.URL("ftp://127.0.0.1/"))
    await client.aclose()


async def test_head_and_body_of_a_small_request_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    flush = _stream.Stream._flush

    def note(stream: _stream.Stream) -> None:
        sent.extend([b"".join(stream._unsent)] if stream._unsent else [])
        flush(stream)

    monkeypatch.setattr(_stream.Stream, "_flush", note)
    client = HttpxClient(None, keep=30.0)
    async with serving(echo) as url:
        assert await post(client, url, b"the body") == b"the body"
        await client.aclose()
    (request,) = sent
    assert request.startswith(b"POST / HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nthe body")


def test_every_exception_of_httpcore_becomes_the_one_of_httpx_of_that_name() -> None:
    kinds = [
        kind for kind in vars(httpcore).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    known = [kind for kind in kinds if issubclass(kind, CAUGHT)]
    # The pool gives a connection to one request at a time.
    assert set(kinds) - set(known) == {httpcore.ConnectionNotAvailable}
    for kind in known:
        mapped = mapped_error(kind("why"))
        assert (type(mapped).__name__, str(mapped)) == (kind.__name__, "why")
        assert of_exception(mapped, Origin("openai", "m", "example.com"), reading=True) is not None
