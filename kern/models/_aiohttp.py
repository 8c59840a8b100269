"""The extra `fast`: requests through aiohttp, whose parser is written in C, with as much of httpx's interface
as the transport needs, and httpx's exceptions.

Imported only where aiohttp is installed; see `kern.models._clients`.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context, ContextVar
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import httpx
import yarl
from aiohttp.client_proto import ResponseHandler

from kern.models._connect import WRAPPING, is_wrapping, poll_of, unsent
from kern.models._inflate import ACCEPTED

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage

_Timeouts = tuple[float, float, float, float]
"""Seconds, as httpx has them: connect, read, write, pool."""

_LARGE = 512 * 1024
"""Bodies of this size in bytes are written in pieces, so that they do not block the event loop."""

_LOOKS = 8
"""How often, during a timeout, to check whether the request is still being sent."""

_MOST_INTERIM = 10_000

_STALE_SECONDS = 1.0
"""A reused connection that breaks within this time was closed before the server got the request."""

# The first match counts. Classes that an older aiohttp lacks are subclasses of older ones.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ClientError, httpx.NetworkError),
    (OSError, httpx.NetworkError),
    (ValueError, httpx.LocalProtocolError),  # a header that cannot be sent
)
_CAUGHT = tuple(kind for kind, _ in _ERRORS)


@lru_cache(maxsize=64)
def _timeouts(connect: float, read: float, pool: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=pool, sock_connect=connect, sock_read=read)


class AiohttpClient:
    """Sends requests as `httpx.AsyncClient.stream` does. It belongs to the event loop on which it is made.

    Args:
        context: The TLS context; None: no request is sent over TLS.
        keep: How many seconds a connection may idle.
    """

    def __init__(self, context: ssl.SSLContext | None, *, keep: float) -> None:
        self._asked: tuple[httpx.URL | None, yarl.URL] = (None, yarl.URL())
        connector = _Connector(limit=0, ssl=context or True, keepalive_timeout=keep)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept", "content-type"),
            auto_decompress=False,  # the transport decompresses, with a limit on the size
        )

    def stream(
        self,
        method: str,
        url: httpx.URL,
        *,
        content: bytes,
        headers: Mapping[str, str],
        timeout: _Timeouts,
        follow_redirects: bool = False,
    ) -> AiohttpRequest:
        """Make a request, which `async with` sends, and which yields the response."""
        connect, read, _, pool = timeout
        options = {
            "data": content if len(content) < _LARGE else io.BytesIO(content),
            "headers": headers if "accept-encoding" in headers else {"accept-encoding": ACCEPTED, **headers},
            "allow_redirects": follow_redirects,
            "timeout": _timeouts(connect, read, pool),
        }
        return AiohttpRequest(self, method, url, options)

    async def send(self, method: str, url: httpx.URL, options: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send a request, and return the response, whose body is not read yet."""
        if url is not self._asked[0]:  # usually it is the URL of the last request
            self._asked = url, yarl.URL(str(url), encoded=True)
        return await self._session.request(method, self._asked[1], **options)

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, so that it sends no more requests."""
        return self._session.closed

    @property
    def connections(self) -> tuple[int, int]:
        """The number of connections in use, and of idle ones."""
        connector = self._session.connector
        assert connector is not None
        return len(connector._acquired), sum(len(kept) for kept in connector._conns.values())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class AiohttpRequest:
    """A request, and its response inside `async with`."""

    __slots__ = ("_client", "_method", "_options", "_response", "_url")

    _response: aiohttp.ClientResponse

    def __init__(self, client: AiohttpClient, method: str, url: httpx.URL, options: dict[str, Any]) -> None:
        self._client = client
        self._method = method
        self._url = url
        self._options = options

    async def __aenter__(self) -> AiohttpResponse:
        try:
            try:
                self._response = await self._client.send(self._method, self._url, self._options)
            except _StaleError:
                self._response = await self._send_again()
        except _CAUGHT as error:
            raise mapped_error(error) from error
        return AiohttpResponse(self._response)

    async def _send_again(self) -> aiohttp.ClientResponse:
        token = _new_only.set(True)
        try:
            return await self._client.send(self._method, self._url, self._options)
        finally:
            _new_only.reset(token)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


_new_only: ContextVar[bool] = ContextVar("kern_new_connections_only", default=False)
"""Whether the request that is being sent must not use a kept connection."""


class _StaleError(aiohttp.ServerDisconnectedError):
    """A kept connection was closed before the server got the request."""


class _Connector(aiohttp.TCPConnector):
    """Keeps connections as its base class does, except those on which unrequested bytes arrived."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]

    async def _get(self, key: Any, traces: Any) -> aiohttp.connector.Connection | None:
        if _new_only.get():
            return None
        while (connection := await super()._get(key, traces)) is not None:
            handler = connection.protocol
            if isinstance(handler, _Handler) and handler.is_quiet():
                handler.kept = True
                return connection
            connection.close()
        return None

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, _Handler):
            protocol.rest()


class _Handler(ResponseHandler):
    """A connection that distinguishes silence from a request that is still being sent, and a stale connection
    from one that broke.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.kept = False
        self._resting = False
        self._received = 0  # bytes received since the last request
        self._written = False
        self._interim = 0  # number of interim responses (1xx)
        self._asked_at = 0.0
        self._leaving = -1  # unsent bytes of the request at the last check
        self._timeout_check: asyncio.TimerHandle | None = None
        self._poll: Callable[[int], object] | None = None
        # A cancelled timer keeps its context until the loop removes it: that of a run would keep the run.
        self._context = Context()

    def rest(self) -> None:
        """Note that the request is over: bytes that arrive before the next one close the connection."""
        self._resting = True
        self._stop_timeout_checks()

    def is_quiet(self) -> bool:
        """Whether nothing has arrived since the last response, not even the end."""
        if self.should_close or self.transport is None:
            return False
        if self._poll is None:
            self._poll = poll_of(self.transport)
        return self._poll is not None and not self._poll(0)

    def set_response_params(self, **options: Any) -> None:
        """Note that a request is sent next."""
        self._resting = self._written = False
        self._interim = self._received = 0
        self._asked_at = self._loop.time()
        super().set_response_params(**options)

    def pause_writing(self) -> None:
        """Note that the send buffer is full: the timeout for silence begins now."""
        super().pause_writing()
        if self.read_timeout and self._timeout_check is None:
            self._leaving = -1
            super().start_timeout()
            self._timeout_check = self._loop.call_later(self.read_timeout / _LOOKS, self._check_timeout)

    def start_timeout(self) -> None:
        """Note that the whole request is written, as far as aiohttp knows."""
        self._written = True
        self._context.run(super().start_timeout)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; without any, parse the buffered ones again."""
        if data:
            if self._resting:
                self.force_close()
                self.abort()
                return
            self._received += len(data)
        super().data_received(data)
        body = self._payload
        if body is not None and is_wrapping(self._received, body.total_bytes):
            fault = aiohttp.ClientPayloadError(WRAPPING)
            self.set_exception(fault)
            body.set_exception(fault)
            self.abort()

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Receive the head of a response."""
        if data[0].code < 200:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                self.set_exception(
                    aiohttp.ClientPayloadError("the server sends interim responses without an end")
                )
                return
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Note that the connection broke."""
        soon = self._loop.time() - self._asked_at < _STALE_SECONDS
        broke = isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        if broke and soon and self.kept and not self._received:
            exc = _StaleError(str(exc))
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)

    def close(self) -> None:
        """Close the connection at once: with a server that reads nothing, an orderly close would not end."""
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that the connection is closed."""
        self._stop_timeout_checks()
        super().connection_lost(exc)

    def _check_timeout(self) -> None:
        """Restart the timeout while the request is still being sent and makes progress."""
        self._timeout_check = None
        if self.transport is None or not self.read_timeout:
            return
        left = unsent(self.transport)
        if left != self._leaving and self._leaving >= 0:
            super().start_timeout()
        self._leaving = left
        if left or not self._written:
            self._timeout_check = self._loop.call_later(self.read_timeout / _LOOKS, self._check_timeout)

    def _stop_timeout_checks(self) -> None:
        if self._timeout_check is not None:
            self._timeout_check.cancel()
            self._timeout_check = None


class AiohttpResponse:
    """The part of an `httpx.Response` that the transport uses."""

    __slots__ = ("_content", "headers", "status_code")

    is_stream_consumed = False

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.status_code = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """Return the chunks of the body, as they arrive."""
        return _Chunks(self._content)


class _Chunks:
    """The chunks of a body. Not a generator: asyncio would have to finalize one that is left early."""

    __slots__ = ("_content",)

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except _CAUGHT as error:
            raise mapped_error(error) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk


def mapped_error(error: Exception) -> httpx.TransportError:
    """Turn an exception of aiohttp into the one of httpx."""
    try:
        # Its own text repeats the host, and says "ssl" of any address.
        text = str(error.os_error) if isinstance(error, aiohttp.ClientConnectorError) else str(error)
    except AttributeError:  # some describe a connection that they do not have
        text = type(error).__name__
    return next(mapped for kind, mapped in _ERRORS if isinstance(error, kind))(text)
