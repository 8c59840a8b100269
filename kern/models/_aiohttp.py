"""The extra `fast`: requests through aiohttp, whose parser is written in C, with as much of httpx's interface
as the transport needs, and httpx's exceptions.

Imported only where aiohttp is installed; see `kern.models._clients`.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx
import yarl

_Timeouts = tuple[float, float, float, float]
"""Seconds, as httpx has them: connect, read, write, pool."""

_LARGE = 512 * 1024
"""Bytes of a body that is written in pieces, so as not to hold up the event loop."""

# The first that fits. A name that an older aiohttp does not have is an older name's subclass.
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


class AiohttpClient:
    """Sends requests as `httpx.AsyncClient.stream` does; belongs to the event loop that it is made on.

    Args:
        context: For https; None verifies nothing, because nothing is sent over TLS.
        keep: Seconds that a connection may idle.
    """

    def __init__(self, context: ssl.SSLContext | None, *, keep: float) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=context or True, keepalive_timeout=keep)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept", "content-type"),
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
        """A request, sent by `async with`, which gives the response."""
        connect, read, _, pool = timeout
        options = {
            "data": content if len(content) < _LARGE else io.BytesIO(content),
            "headers": headers,
            "allow_redirects": follow_redirects,
            "timeout": aiohttp.ClientTimeout(connect=pool, sock_connect=connect, sock_read=read),
        }
        return AiohttpRequest(self._session, method, url, options)

    @property
    def is_closed(self) -> bool:
        """No request can be made any more."""
        return self._session.closed

    @property
    def connections(self) -> tuple[int, int]:
        """How many are in use, and how many idle."""
        connector = self._session.connector
        assert connector is not None
        return len(connector._acquired), sum(len(kept) for kept in connector._conns.values())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class AiohttpRequest:
    """A request on its way, and its response inside of `async with`."""

    __slots__ = ("_method", "_options", "_response", "_session", "_url")

    _response: aiohttp.ClientResponse

    def __init__(
        self, session: aiohttp.ClientSession, method: str, url: httpx.URL, options: dict[str, Any]
    ) -> None:
        self._session = session
        self._method = method
        self._url = url
        self._options = options

    async def __aenter__(self) -> AiohttpResponse:
        try:
            url = yarl.URL(str(self._url), encoded=True)
            self._response = await self._session.request(self._method, url, **self._options)
        except _CAUGHT as error:
            raise mapped_error(error) from error
        return AiohttpResponse(self._response)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpResponse:
    """As much of an `httpx.Response` as the transport asks for."""

    __slots__ = ("_content", "headers", "status_code")

    is_stream_consumed = False

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.status_code = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_success(self) -> bool:
        """The status is 2xx."""
        return 200 <= self.status_code < 300

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """The body as it comes; aiohttp has undone its compression."""
        return _Chunks(self._content)

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """See `aiter_raw`."""
        return _Chunks(self._content)


class _Chunks:
    """All that has arrived at a time. No generator: one that is left early has to be ended by asyncio."""

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
    """The same as one of httpx's exceptions."""
    try:
        text = str(error)
    except AttributeError:  # some describe a connection that they have not got
        text = type(error).__name__
    return next(mapped for kind, mapped in _ERRORS if isinstance(error, kind))(text)
