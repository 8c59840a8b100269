"""The HTTP clients: one per event loop and kind of address, shared by all models, closed by the loop's own
shutdown.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.request import getproxies

import httpcore
import httpx

from kern._loops import LoopLocal
from kern.models._httpx import HttpxClient
from kern.models._pool import KEPT_SECONDS, Pool
from kern.models._switch import is_loopback


class Client(Protocol):
    """httpx's client, or the one of the extra `fast`."""

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        """Send a request; the response's body is read inside the `async with`."""

    @property
    def is_closed(self) -> bool:
        """No request can be made any more."""

    async def aclose(self) -> None:
        """Close all connections."""


@dataclass(slots=True, frozen=True)
class _Settings:
    """What a client cannot be told per request."""

    tls: bool
    loopback: bool


class Clients:
    """One event loop's clients."""

    def __init__(self) -> None:
        self._clients: dict[_Settings, Client] = {}

    def stream(self, method: str, url: httpx.URL, **options: Any) -> AbstractAsyncContextManager[Any]:
        """`httpx.AsyncClient.stream`, on the client for `url`."""
        return self.client(url).stream(method, url, **options)

    def client(self, url: httpx.URL) -> Client:
        """The client for `url`."""
        settings = _Settings(url.scheme == "https", is_loopback(url.host))
        client = self._clients.get(settings)
        if client is None:
            client = self._clients[settings] = _make(settings)
        return client

    async def aclose(self) -> None:
        """Close all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()


def _make(settings: _Settings) -> Client:
    # Proxies are httpx's business: those of the environment, which cannot reach this machine's own loopback.
    if settings.loopback or not getproxies():
        return (fast_client() or HttpxClient)(trusted() if settings.tls else None, keep=KEPT_SECONDS)
    # Without TLS an empty context will do, and costs nothing: a handshake under it fails.
    context = trusted() if settings.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = httpx.Limits(max_connections=None, keepalive_expiry=KEPT_SECONDS)
    client = httpx.AsyncClient(verify=context, limits=limits)
    # httpx has no public way to be given another pool. One that is not where it is looked for stays.
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.AsyncConnectionPool):
            transport._pool = Pool(pool.create_connection)  # type: ignore[union-attr]
    return client


@cache
def fast_client() -> Callable[..., Client] | None:
    """What the extra `fast` brings, if it is installed: 0.1 s to import, so from a thread."""
    try:
        from kern.models._aiohttp import AiohttpClient
    except ImportError:
        return None
    return AiohttpClient


@cache
def trusted() -> ssl.SSLContext:
    """The process's certificates, read once: 10 to 20 ms, so from a thread."""
    return httpx.create_ssl_context()


async def _close(clients: Clients) -> None:
    await clients.aclose()


_of_loop: LoopLocal[Clients] = LoopLocal(Clients, _close)


async def clients_for(url: httpx.URL) -> Clients:
    """The running loop's clients, with what `url` needs at hand."""
    if not fast_client.cache_info().currsize:
        await asyncio.to_thread(fast_client)
    if url.scheme == "https" and not trusted.cache_info().currsize:
        await asyncio.to_thread(trusted)
    return _of_loop.get()


async def close_clients() -> None:
    """Close the running loop's connections now, and not at its end; new ones are made on demand."""
    await _of_loop.aclose()
