"""The HTTP clients: one per event loop and kind of address, shared by all models, closed by the loop's own
shutdown.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore
import httpx

from kern._loops import LoopLocal
from kern.models._pool import KEPT_SECONDS, Pool
from kern.models._switch import is_loopback


@dataclass(slots=True, frozen=True)
class _Settings:
    """What a client cannot be told per request."""

    tls: bool
    loopback: bool


class Clients:
    """One event loop's clients."""

    def __init__(self) -> None:
        self._clients: dict[_Settings, httpx.AsyncClient] = {}

    def stream(
        self, method: str, url: httpx.URL, **options: Any
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """`httpx.AsyncClient.stream`, on the client for `url`."""
        return self.client(url).stream(method, url, **options)

    def client(self, url: httpx.URL) -> httpx.AsyncClient:
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


def _make(settings: _Settings) -> httpx.AsyncClient:
    # Without TLS an empty context will do, and costs nothing: a handshake under it fails.
    context = trusted() if settings.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A proxy from the environment cannot reach this machine's own loopback.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=KEPT_SECONDS)
    client = httpx.AsyncClient(verify=context, limits=limits, trust_env=not settings.loopback)
    # httpx has no public way to be given another pool. One that is not where it is looked for stays.
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.AsyncConnectionPool):
            transport._pool = Pool(pool.create_connection)  # type: ignore[union-attr]
    return client


@cache
def trusted() -> ssl.SSLContext:
    """The process's certificates, read once: 10 to 20 ms, so from a thread."""
    return httpx.create_ssl_context()


async def _close(clients: Clients) -> None:
    await clients.aclose()


_of_loop: LoopLocal[Clients] = LoopLocal(Clients, _close)


async def clients_for(url: httpx.URL) -> Clients:
    """The running loop's clients, with what `url` needs at hand."""
    if url.scheme == "https" and not trusted.cache_info().currsize:
        await asyncio.to_thread(trusted)
    return _of_loop.get()


async def close_clients() -> None:
    """Close the running loop's connections now, and not at its end; new ones are made on demand."""
    await _of_loop.aclose()
