"""The usual HTTP client: httpx's, over a transport with our pool and network below it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpcore
import httpx

from kern.models._pool import Pool
from kern.models._stream import Network

_TIMEOUTS = ("connect", "read", "write", "pool")

_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}
CAUGHT = tuple(_ERRORS)


class HttpxClient:
    """Sends requests as `httpx.AsyncClient.stream` does; belongs to the event loop that it is made on.

    Args:
        context: For https; None: nothing will be sent over TLS.
        keep: Seconds that a connection may idle.
    """

    def __init__(self, context: ssl.SSLContext | None, *, keep: float) -> None:
        transport = _Transport(context, keep)
        self._pool = transport.pool
        self._client = httpx.AsyncClient(transport=transport)
        self._encodings = self._client.headers["accept-encoding"]

    def stream(
        self,
        method: str,
        url: httpx.URL,
        *,
        content: bytes,
        headers: Mapping[str, str],
        timeout: tuple[float, float, float, float],
        follow_redirects: bool = False,
    ) -> HttpxRequest:
        """A request, sent by `async with`, which gives the response."""
        request = httpx.Request(
            method,
            url,
            headers={"accept-encoding": self._encodings, **headers},
            content=content,
            extensions={"timeout": dict(zip(_TIMEOUTS, timeout, strict=True))},
        )
        return HttpxRequest(self._client, request, follow_redirects)

    @property
    def is_closed(self) -> bool:
        """No request can be made any more."""
        return self._client.is_closed

    @property
    def connections(self) -> tuple[int, int]:
        """How many are in use, and how many idle."""
        return self._pool.counts

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class HttpxRequest:
    """A request on its way, and its response inside of `async with`."""

    __slots__ = ("_client", "_follow_redirects", "_request", "_response")

    _response: httpx.Response

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request, follow_redirects: bool) -> None:
        self._client = client
        self._request = request
        self._follow_redirects = follow_redirects

    async def __aenter__(self) -> httpx.Response:
        # A request made here: one of the client's own merges settings that it has not got.
        self._response = await self._client.send(
            self._request, stream=True, follow_redirects=self._follow_redirects
        )
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """httpx on httpcore's connections, as its own transport is, with our pool."""

    def __init__(self, context: ssl.SSLContext | None, keep: float) -> None:
        # Without TLS an empty context will do, and costs nothing: a handshake under it fails.
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Another loop than asyncio's, such as uvloop, has no happy eyeballs of its own: there anyio connects.
        network = Network() if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop) else None

        def connect(origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
            return httpcore.AsyncHTTPConnection(
                origin, ssl_context=context, keepalive_expiry=keep, network_backend=network
            )

        self.pool = Pool(connect)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        assert isinstance(request.stream, httpx.AsyncByteStream)
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self.pool.handle_async_request(asked)
        except CAUGHT as error:
            raise mapped_error(error) from error
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self.pool.aclose()


class _Body(httpx.AsyncByteStream):
    """A response's body. No generator: one that is left early has to be ended by asyncio."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(aiter(self._response.stream))  # type: ignore[arg-type]

    async def aclose(self) -> None:
        try:
            await self._response.aclose()
        except CAUGHT as error:
            raise mapped_error(error) from error


class _Chunks:
    __slots__ = ("_chunks",)

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except CAUGHT as error:
            raise mapped_error(error) from error


def mapped_error(error: Exception) -> httpx.TransportError:
    """The same as one of httpx's exceptions."""
    return next(_ERRORS[kind] for kind in type(error).__mro__ if kind in _ERRORS)(str(error))
