"""Connections that are kept between requests: taking one and giving it back costs the same however many there
are.

httpcore's own pool looks at all of its connections whenever a request comes or goes, which for a thousand
requests at once is more work than the requests are. It can also forget a connection whose request was
cancelled in the wrong instant: https://github.com/encode/httpcore/issues/1093. The connections themselves are
httpcore's, TLS, proxies and all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import cast

import anyio
import httpcore

KEPT_SECONDS = 30.0
"""How long a connection may idle."""

_MOST_KEPT = 1000


class Pool:
    """Takes the place of an `httpcore.AsyncConnectionPool`, for requests over HTTP/1.1.

    Args:
        connect: Makes a connection for an origin; it connects with its first request.
    """

    def __init__(self, connect: Callable[[httpcore.Origin], httpcore.AsyncConnectionInterface]) -> None:
        self._connect = connect
        self._busy: set[httpcore.AsyncConnectionInterface] = set()
        self._idle: dict[tuple[bytes, bytes, int], deque[_Idle]] = {}

    @property
    def connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """All connections: those in use, and those that idle."""
        return [*self._busy, *(idle.connection for kept in self._idle.values() for idle in kept)]

    @property
    def counts(self) -> tuple[int, int]:
        """How many connections are in use, and how many idle."""
        return len(self._busy), sum(len(kept) for kept in self._idle.values())

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send `request`; its connection is in use until the response is closed.

        Raises:
            UnsupportedProtocol: The address is neither http nor https.
        """
        if request.url.scheme not in (b"http", b"https"):
            raise httpcore.UnsupportedProtocol("the address starts with neither http:// nor https://")
        origin = request.url.origin
        key = (origin.scheme, origin.host, origin.port)
        connection = await self._take(key) or self._connect(origin)
        self._busy.add(connection)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._release(key, connection)
            raise
        body = _Body(self, key, connection, cast("AsyncIterable[bytes]", response.stream))
        return httpcore.Response(
            response.status, headers=response.headers, content=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        connections = self.connections
        self._idle.clear()
        self._busy.clear()
        for connection in connections:
            await connection.aclose()

    async def _take(self, key: tuple[bytes, bytes, int]) -> httpcore.AsyncConnectionInterface | None:
        """The connection that was used last and is still good, if there is one."""
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop().connection
            if not connection.has_expired():
                return connection
            await _close(connection)
        return None

    async def _release(
        self, key: tuple[bytes, bytes, int], connection: httpcore.AsyncConnectionInterface
    ) -> None:
        """The request is over: keep its connection for the next one, or close it if it is not at its end."""
        if connection not in self._busy:  # closed meanwhile, with all others
            return
        self._busy.discard(connection)
        if not connection.is_idle() or connection.is_closed():
            await _close(connection)
            return
        kept = self._idle.setdefault(key, deque())
        now = time.monotonic()
        kept.append(_Idle(connection, now + KEPT_SECONDS))
        while len(kept) > _MOST_KEPT or kept[0].until < now:
            await _close(kept.popleft().connection)


class _Idle:
    __slots__ = ("connection", "until")

    def __init__(self, connection: httpcore.AsyncConnectionInterface, until: float) -> None:
        self.connection = connection
        self.until = until


class _Body:
    """A response's body, which gives its connection back when it is closed."""

    def __init__(
        self,
        pool: Pool,
        key: tuple[bytes, bytes, int],
        connection: httpcore.AsyncConnectionInterface,
        stream: AsyncIterable[bytes],
    ) -> None:
        self._pool = pool
        self._key = key
        self._connection = connection
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._stream.aclose()  # type: ignore[attr-defined]
            finally:
                await self._pool._release(self._key, self._connection)


async def _close(connection: httpcore.AsyncConnectionInterface) -> None:
    with anyio.CancelScope(shield=True):
        await connection.aclose()
