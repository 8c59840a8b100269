"""Over TLS, and through a proxy's tunnel, what holds for plain connections holds as well."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from kern import Agent
from kern.errors import ModelConnectionError, ModelError, ModelTimeoutError
from kern.messages import Message
from kern.models import _clients
from kern.models._clients import close_clients
from kern.models._connect import _first_of
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat
from tests.models.raw_server import said
from tests.models.replay import Sink

AUTHORITY = trustme.CA()
KEY = "sk-proj-THISISTHESECRETKEY0123456789"
ASK = ModelRequest([Message("user", "Hi")])
LONG = ModelRequest([Message("user", "x" * 16 * 1024 * 1024)])


@pytest.fixture(autouse=True)
def trusting(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)

    def trusted() -> ssl.SSLContext:
        return context

    trusted.cache_info = _clients.trusted.cache_info  # type: ignore[attr-defined]
    monkeypatch.setattr(_clients, "trusted", trusted)


class Provider:
    """Speaks TLS. The second request of a connection meets its end, or a stray answer came before it."""

    def __init__(self, *, stray: bool = False, pause: float = 0.0, deaf: bool = False) -> None:
        self.stray = stray
        self.pause = pause
        self.deaf = deaf
        self.on: list[int] = []
        self.heads: list[str] = []
        self.connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                if self.deaf:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.sleep(60)
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode())
                left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                while left:
                    left -= len(await reader.read(256 * 1024))
                    await asyncio.sleep(self.pause)
                self.on.append(number)
                if self.on.count(number) > 1 and not self.stray:
                    break
                writer.write(said(f"answer {number}"))
                if self.stray:
                    writer.write(said("of another"))
                await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", "127.0.0.1", "provider.example").configure_cert(context)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await provider.connected(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await close_clients()
        await asyncio.sleep(0.01)
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def tunnelling(port: int, *, refuse: bool = False) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that takes each CONNECT to the server at `port`."""
    heads: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        tasks.update({asyncio.create_task(pipe(reader, back)), asyncio.create_task(pipe(there, writer))})

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://user:pass-word-1@127.0.0.1:{proxy.sockets[0].getsockname()[1]}", heads
    finally:
        await close_clients()
        await asyncio.sleep(0.01)
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


async def ask(url: str, request: ModelRequest = ASK, **settings: object) -> str | None:
    settings = {"api_key": KEY, "max_retries": 0, **settings}
    model = OpenAIChat("m", base_url=url, **settings)
    return (await model.respond(request, Sink())).message.content


async def test_a_kept_connection_over_tls_that_is_closed_is_met_at_once() -> None:
    provider = Provider()
    async with serving(provider) as port:
        url = f"https://localhost:{port}/v1"
        assert [await ask(url), await ask(url)] == ["answer 0", "answer 1"]
    assert provider.on == [0, 0, 1]


async def test_a_stray_answer_over_tls_is_not_the_next_one() -> None:
    provider = Provider(stray=True)
    async with serving(provider) as port:
        url = f"https://localhost:{port}/v1"
        assert [await ask(url), await ask(url)] == ["answer 0", "answer 1"]


async def test_a_request_that_leaves_slowly_over_tls_is_not_silent_and_one_that_is_not_taken_is() -> None:
    async with serving(Provider(pause=0.03)) as port:
        assert await ask(f"https://localhost:{port}/v1", LONG, timeout=1.0) == "answer 0"
    async with serving(Provider(deaf=True)) as port:
        with pytest.raises(ModelTimeoutError, match="silent"):
            await ask(f"https://localhost:{port}/v1", LONG, timeout=0.4)


@pytest.mark.parametrize("stray", [False, True])
async def test_a_tunnel_shows_the_proxy_no_key(stray: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider(stray=stray)
    async with serving(provider) as port, tunnelling(port) as (proxy, heads):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        url = "https://provider.example/v1"
        assert [await ask(url), await ask(url)] == ["answer 0", "answer 1"]
    assert len(heads) == 2
    assert all(head.startswith("CONNECT provider.example:443 ") for head in heads)
    assert "proxy-authorization: Basic " in heads[0]
    assert KEY not in "".join(heads)
    assert all(f"Bearer {KEY}" in head for head in provider.heads)
    assert "proxy-authorization" not in "".join(provider.heads).lower()


async def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnelling(0, refuse=True) as (proxy, _):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(
            ModelConnectionError, match=r"the proxy on the way to provider\.example refused: 407"
        ):
            await ask("https://provider.example/v1")


# The addresses of a host


def address(port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))


async def test_the_first_address_that_answers_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as good, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        ports = [closed.getsockname()[1], good.getsockname()[1], closed.getsockname()[1]]
        with await _first_of([address(port) for port in ports], None) as found:
            assert found.getpeername()[1] == ports[1]
        with pytest.raises(OSError, match="Connect call failed"):
            await _first_of([address(ports[0]), address(ports[2])], None)


async def test_an_address_that_hesitates_is_not_waited_for() -> None:
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    filling = [socket.socket() for _ in range(4)]
    for sock in filling:
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    try:
        with socket.create_server(("127.0.0.1", 0)) as good:
            ports = [full.getsockname()[1], good.getsockname()[1]]
            with await _first_of([address(port) for port in ports], None) as found:
                assert found.getpeername()[1] == ports[1]
    finally:
        for sock in (full, *filling):
            sock.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_repeats_its_password_shows_it_to_nobody(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def repeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        sent = next(line for line in head.splitlines() if line.lower().startswith("proxy-authorization"))
        body = f"you sent {sent}"
        writer.write(f"HTTP/1.1 407 No {sent}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(repeats, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:a-secret-word@127.0.0.1:{port}")
    model = OpenAIChat("m", base_url=f"{scheme}://provider.example/v1", api_key="any", max_retries=0)
    async with proxy:
        with pytest.raises(ModelError, match=r"proxy-authorization: \*\*\*") as caught:
            await Agent(model=model).arun("hi")
    sent = base64.b64encode(b"user:a-secret-word").decode()
    assert caught.value.run_output is not None
    for text in (str(caught.value), str(caught.value.run_output.to_dict())):
        assert sent not in text
        assert "a-secret-word" not in text
