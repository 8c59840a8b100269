"""A pool of connections that are kept between requests. Taking and returning one costs the same for any
number of connections.

httpcore's own pool looks at all its connections whenever a request begins or ends: for a thousand requests at
once, that is more work than the requests themselves. It can also lose a connection whose request is cancelled
at the wrong moment: https://github.com/encode/httpcore/issues/1093. The connections themselves, with TLS and
proxies, are httpcore's.

An idle connection is closed if bytes arrive on it, so that no response reaches another request than its own.
If the server closes it just when it is used again, the request is sent again at once, over a new connection.
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
"""How many seconds a connection may idle."""

_MOST_KEPT = 1000

_Key = tuple[bytes, bytes, int]


class Line:
    """A connection, with the network below it.

    Args:
        connection: The HTTP connection, which connects at its first request.
        network: Makes the network connection.
    """

    __slots__ = ("connection", "network", "until")

    def __init__(self, connection: httpcore.AsyncConnectionInterface, network: Network) -> None:
        self.connection = connection
        self.network = network
        self.until = 0.0

    @property
    def stale(self) -> bool:
        """Whether the server closed the connection before it got the request."""
        return self.network.stream is not None and self.network.stream.stale

    def rest(self) -> bool:
        """Prepare the connection for another request. Return False if it must be closed."""
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
        """All connections, in use and idle."""
        return [*self._busy, *(line for kept in self._idle.values() for line in kept)]

    @property
    def counts(self) -> tuple[int, int]:
        """The number of connections in use, and of idle ones."""
        return len(self._busy), sum(len(kept) for kept in self._idle.values())

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send `request`, whose body can be read twice. Its connection returns to the pool when the response
        is closed.

        Raises:
            UnsupportedProtocol: The scheme of the URL is neither http nor https.
        """
        if request.url.scheme not in (b"http", b"https"):
            raise httpcore.UnsupportedProtocol("the URL must start with http:// or https://")
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
        """Return the most recently used connection that is still open, or None."""
        kept = self._idle.get(key)
        while kept:
            line = kept.pop()
            if not line.connection.has_expired():
                return line
            await _close(line)
        return None

    async def _release(self, key: _Key, line: Line) -> None:
        """End a request: keep its connection for the next one, or close it if the response is incomplete."""
        if line not in self._busy:  # closed meanwhile by `aclose`
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
    """The body of a response, which returns its connection to the pool when it is closed."""

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
    """Whether bytes beyond the end of the response arrived; httpcore would take them for the next response.

    There is no public way to see them. If they cannot be found out, the connection is not used again.
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
