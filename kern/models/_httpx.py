"""The default HTTP client: httpcore's connections, as in httpx, with a pool and network layer of our own."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpcore
import httpx

from kern._secrets import Masked, MaskedBytes
from kern.errors import UsageError
from kern.models._connect import WRAPPING, is_wrapping
from kern.models._inflate import ACCEPTED
from kern.models._pool import Line, Pool
from kern.models._stream import Network, Stream

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
    """Sends requests as `httpx.AsyncClient.stream` does. It belongs to the event loop on which it is made.

    It does not use `httpx.AsyncClient`, which keeps cookies: those of one tenant would be sent with the key
    of another.

    Args:
        context: The TLS context; None: no request is sent over TLS.
        keep: How many seconds a connection may idle.
        proxy: The proxy for all requests; None: no proxy.
    """

    def __init__(
        self, context: ssl.SSLContext | None, *, keep: float, proxy: httpx.Proxy | None = None
    ) -> None:
        # Without TLS an empty context is enough, and costs nothing: a handshake with it would fail.
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        def connect(origin: httpcore.Origin) -> Line:
            network = Network()
            if proxy is not None:
                return Line(through(proxy, context, keep, network).create_connection(origin), network)
            connection = httpcore.AsyncHTTPConnection(
                origin, ssl_context=context, keepalive_expiry=keep, network_backend=network
            )
            return Line(connection, network)

        self._pool = Pool(connect)
        self._closed = False

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
        """Make a request, which `async with` sends, and which yields the response. It follows no redirect.

        Raises:
            RuntimeError: The client is closed.
        """
        if self._closed:
            raise RuntimeError("the HTTP client is closed")
        sent = {"host": url.netloc.decode("ascii"), "accept-encoding": ACCEPTED, **headers}
        sent["content-length"] = str(len(content))
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[(name.encode("ascii"), _bytes(value)) for name, value in sent.items()],
            content=content,
            extensions={"timeout": dict(zip(_TIMEOUTS, timeout, strict=True))},
        )
        return HttpxRequest(self._pool, request)

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, so that it sends no more requests."""
        return self._closed

    @property
    def connections(self) -> tuple[int, int]:
        """The number of connections in use, and of idle ones."""
        return self._pool.counts

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        await self._pool.aclose()


def _bytes(value: str) -> bytes:
    raw = value.encode("ascii")
    return MaskedBytes(raw) if isinstance(value, Masked) else raw


def through(
    proxy: httpx.Proxy, context: ssl.SSLContext, keep: float, network: Network
) -> httpcore.AsyncConnectionPool:
    """Return what makes connections through a proxy.

    Raises:
        UsageError: The proxy needs a package that is not installed.
    """
    if proxy.url.scheme in ("socks5", "socks5h"):
        try:
            return httpcore.AsyncSOCKSProxy(
                str(proxy.url),
                proxy_auth=_hidden(proxy.raw_auth),
                ssl_context=context,
                keepalive_expiry=keep,
                network_backend=network,
            )
        except RuntimeError:
            raise UsageError(
                "the proxy in the environment is a SOCKS proxy, which needs a package: pip install socksio"
            ) from None
    headers: list[tuple[bytes, bytes]] = []
    if proxy.raw_auth is not None:
        credentials = MaskedBytes(b64encode(b":".join(proxy.raw_auth)))
        headers.append((b"proxy-authorization", MaskedBytes(b"Basic " + credentials)))
    return httpcore.AsyncHTTPProxy(
        str(proxy.url),
        proxy_headers=headers,
        ssl_context=context,
        proxy_ssl_context=context if proxy.url.scheme == "https" else None,
        keepalive_expiry=keep,
        network_backend=network,
    )


def _hidden(credentials: tuple[bytes, bytes] | None) -> tuple[bytes, bytes] | None:
    return None if credentials is None else (credentials[0], MaskedBytes(credentials[1]))


class HttpxRequest:
    """A request, and its response inside `async with`."""

    __slots__ = ("_pool", "_request", "_response")

    _response: httpx.Response

    def __init__(self, pool: Pool, request: httpcore.Request) -> None:
        self._pool = pool
        self._request = request

    async def __aenter__(self) -> httpx.Response:
        try:
            answer = await self._pool.handle_async_request(self._request)
        except CAUGHT as error:
            raise mapped_error(error) from error
        self._response = httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response. Not a generator: asyncio would have to finalize one that is left early."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.extensions.get("network_stream")
        return _Chunks(aiter(self._response.stream), stream if isinstance(stream, Stream) else None)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        try:
            await self._response.aclose()
        except CAUGHT as error:
            raise mapped_error(error) from error


class _Chunks:
    __slots__ = ("_chunks", "_stream", "_taken")

    def __init__(self, chunks: AsyncIterator[bytes], stream: Stream | None) -> None:
        self._chunks = chunks
        self._stream = stream
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except CAUGHT as error:
            raise mapped_error(error) from error
        self._taken += len(chunk)
        if self._stream is not None and is_wrapping(self._stream.received, self._taken):
            raise httpx.RemoteProtocolError(WRAPPING)
        return chunk


def mapped_error(error: Exception) -> httpx.TransportError:
    """Turn an exception of httpcore into the one of httpx."""
    return next(_ERRORS[kind] for kind in type(error).__mro__ if kind in _ERRORS)(str(error))
