"""Connections that are kept between requests: taking one and giving it back costs the same however many there
are.

httpcore's own pool looks at all of its connections whenever a request comes or goes, which for a thousand
requests at once is more work than the requests are. It can also forget a connection whose request was
cancelled in the wrong instant: https://github.com/encode/httpcore/issues/1093. The connections themselves are
httpcore's, TLS, proxies and all.

A kept connection answers the next request or nothing: bytes that nobody has asked for close it, so that no
answer reaches another request than its own. If the server has closed it in the very moment in which it is
used again, the request is sent once more at once, over a new one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import cast

import anyio
import httpcore

from kern.models._stream import Network

KEPT_SECONDS = 30.0
"""How long a connection may idle."""

_MOST_KEPT = 1000

_Key = tuple[bytes, bytes, int]


class Line:
    """A connection, with the network below it.

    Args:
        connection: Connects with its first request.
        network: Connects it.
    """

    __slots__ = ("connection", "network", "until")

    def __init__(self, connection: httpcore.AsyncConnectionInterface, network: Network) -> None:
        self.connection = connection
        self.network = network
        self.until = 0.0

    @property
    def stale(self) -> bool:
        """It was closed before the request came."""
        return self.network.stream is not None and self.network.stream.stale

    def rest(self) -> bool:
        """Ready to be kept for another request; if not, it is to be closed."""
        connection, stream = self.connection, self.network.stream
        if stream is None or not connection.is_idle() or connection.is_closed():
            return False
        return stream.rest() and not _has_unread(connection)


class Pool:
    """Takes the place of an `httpcore.AsyncConnectionPool`, for requests over HTTP/1.1.

    Args:
        connect: Makes a connection for an origin.
    """

    def __init__(self, connect: Callable[[httpcore.Origin], Line]) -> None:
        self._connect = connect
        self._busy: set[Line] = set()
        self._idle: dict[_Key, deque[Line]] = {}

    @property
    def connections(self) -> list[Line]:
        """All connections: those in use, and those that idle."""
        return [*self._busy, *(line for kept in self._idle.values() for line in kept)]

    @property
    def counts(self) -> tuple[int, int]:
        """How many connections are in use, and how many idle."""
        return len(self._busy), sum(len(kept) for kept in self._idle.values())

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send `request`, whose body can be read twice. The response's end gives its connection back.

        Raises:
            UnsupportedProtocol: The address is neither http nor https.
        """
        if request.url.scheme not in (b"http", b"https"):
            raise httpcore.UnsupportedProtocol("the address starts with neither http:// nor https://")
        origin = request.url.origin
        key = (origin.scheme, origin.host, origin.port)
        kept = await self._take(key)
        if kept is not None:
            try:
                return await self._send(key, kept, request)
            except (httpcore.NetworkError, httpcore.RemoteProtocolError):
                if not kept.stale:
                    raise
        return await self._send(key, self._connect(origin), request)

    async def _send(self, key: _Key, line: Line, request: httpcore.Request) -> httpcore.Response:
        self._busy.add(line)
        try:
            response = await line.connection.handle_async_request(request)
        except BaseException:
            await self._release(key, line)
            raise
        if line.network.stream is not None:
            line.network.stream.answered()
        body = _Body(self, key, line, cast("AsyncIterable[bytes]", response.stream))
        return httpcore.Response(
            response.status, headers=response.headers, content=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        lines = self.connections
        self._idle.clear()
        self._busy.clear()
        for line in lines:
            await line.connection.aclose()

    async def _take(self, key: _Key) -> Line | None:
        """The connection that was used last and is still good, if there is one."""
        kept = self._idle.get(key)
        while kept:
            line = kept.pop()
            if not line.connection.has_expired():
                return line
            await _close(line)
        return None

    async def _release(self, key: _Key, line: Line) -> None:
        """The request is over: keep its connection for the next one, or close it if it is not at its end."""
        if line not in self._busy:  # closed meanwhile, with all others
            return
        self._busy.discard(line)
        if not line.rest():
            await _close(line)
            return
        kept = self._idle.setdefault(key, deque())
        now = time.monotonic()
        line.until = now + KEPT_SECONDS
        kept.append(line)
        while len(kept) > _MOST_KEPT or kept[0].until < now:
            await _close(kept.popleft())


class _Body:
    """A response's body, which gives its connection back when it is closed."""

    def __init__(self, pool: Pool, key: _Key, line: Line, stream: AsyncIterable[bytes]) -> None:
        self._pool = pool
        self._key = key
        self._line = line
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._stream.aclose()  # type: ignore[attr-defined]
            finally:
                await self._pool._release(self._key, self._line)


def _has_unread(connection: object) -> bool:
    """More bytes came with the answer than belong to it; httpcore would take them for the next answer.

    There is no public way to see them. Where they are not found, the connection is not used again.
    """
    while connection is not None:
        parser = getattr(connection, "_h11_state", None)
        if parser is not None:
            return bool(parser.trailing_data[0])
        connection = getattr(connection, "_connection", None)
    return True


async def _close(line: Line) -> None:
    with anyio.CancelScope(shield=True):
        await line.connection.aclose()
