"""The HTTP clients: a few per event loop, shared by all models, closed by the loop's own shutdown."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import anyio
import httpx

from kern._loops import LoopLocal
from kern.models._switch import is_loopback

# The pool of one client looks at all its connections for each request that comes or goes, which is quadratic
# in their number. So requests are spread over several clients once one has enough to do.
_ENOUGH = 16
_MOST_CLIENTS = 64
_MARK = "kern_request"
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=2 * _ENOUGH, keepalive_expiry=30.0)


@dataclass(slots=True, eq=False)
class _Client:
    http: httpx.AsyncClient
    busy: int = 0


@dataclass(slots=True, frozen=True)
class _Settings:
    """What a client cannot be told per request."""

    tls: bool
    loopback: bool


class Clients:
    """One event loop's clients."""

    def __init__(self) -> None:
        self._clients: dict[_Settings, list[_Client]] = {}

    @asynccontextmanager
    async def stream(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """`httpx.AsyncClient.stream`, on the least busy client, or on a new one if all have enough to do."""
        client = self._pick(httpx.URL(url))
        mark = object()
        client.busy += 1
        try:
            async with client.http.stream(method, url, extensions={_MARK: mark}, **options) as response:
                yield response
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _close_leftovers(client.http, mark)
            raise
        finally:
            client.busy -= 1

    def _pick(self, url: httpx.URL) -> _Client:
        settings = _Settings(url.scheme == "https", is_loopback(url.host))
        clients = self._clients.setdefault(settings, [])
        client = min(clients, key=lambda client: client.busy, default=None)
        if client is None or (client.busy >= _ENOUGH and len(clients) < _MOST_CLIENTS):
            client = _Client(_make(settings))
            clients.append(client)
        return client

    async def aclose(self) -> None:
        """Close all connections."""
        clients = [client for clients in self._clients.values() for client in clients]
        self._clients.clear()
        for client in clients:
            await client.http.aclose()


def _make(settings: _Settings) -> httpx.AsyncClient:
    # Without TLS an empty context will do, and costs nothing: a handshake under it fails.
    context = trusted() if settings.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A proxy from the environment cannot reach this machine's own loopback.
    return httpx.AsyncClient(verify=context, limits=_LIMITS, trust_env=not settings.loopback)


async def _close_leftovers(client: httpx.AsyncClient, mark: object) -> None:
    """Close what a request that failed or was cancelled has left in the pool.

    A cancellation just after a connection was made or assigned, or while a response is closed, leaves the
    connection in the pool, neither usable nor ever removed: https://github.com/encode/httpcore/issues/1093
    (and #658 there). The pool has no public verb for it, so its own lists are used, where it has them.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        requests, connections = getattr(pool, "_requests", None), getattr(pool, "_connections", None)
        if requests is None or connections is None:
            continue
        requests[:] = [one for one in requests if one.request.extensions.get(_MARK) is not mark]
        held = {id(request.connection) for request in requests}
        for one in list(connections):
            if id(one) not in held and not one.is_idle() and not one.is_closed():
                connections.remove(one)
                await one.aclose()


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
