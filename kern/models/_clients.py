"""The HTTP clients: one per event loop and kind of address, shared by all models, closed by the shutdown of
the loop.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol
from urllib.request import getproxies

import httpx

from kern._secrets import Masked
from kern._sync.loops import LoopLocal
from kern.errors import UsageError
from kern.models._httpx import HttpxClient
from kern.models._pool import KEPT_SECONDS
from kern.models._switch import is_loopback


class Client(Protocol):
    """The client on httpx, or the one of the extra `fast`."""

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        """Send a request. The body of the response is read inside the `async with`."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, so that it sends no more requests."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


@dataclass(slots=True, frozen=True)
class _Settings:
    """The settings of a client, which are the same for all its requests."""

    tls: bool
    proxy: str | None = field(default=None, repr=False)
    """The address of the proxy, which may include a password."""


class Clients:
    """The clients of one event loop."""

    def __init__(self) -> None:
        self._clients: dict[_Settings, Client] = {}
        self._of_host: dict[tuple[str, str], Client] = {}

    def stream(self, method: str, url: httpx.URL, **options: Any) -> AbstractAsyncContextManager[Any]:
        """Send a request on the client for `url`, as `httpx.AsyncClient.stream` does."""
        return self.client(url).stream(method, url, **options)

    def knows(self, url: httpx.URL) -> bool:
        """Whether the client for `url` exists."""
        return (url.scheme, url.host) in self._of_host

    def client(self, url: httpx.URL) -> Client:
        """Return the client for `url`, made on first use."""
        host = (url.scheme, url.host)
        client = self._of_host.get(host)
        if client is None:
            settings = _Settings(url.scheme == "https", proxy_for(url))
            client = self._clients.get(settings)
            if client is None:
                client = self._clients[settings] = _make(settings)
            self._of_host[host] = client
        return client

    async def aclose(self) -> None:
        """Close all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        self._of_host.clear()
        for client in clients:
            await client.aclose()


def _make(settings: _Settings) -> Client:
    if settings.proxy is None:
        return (fast_client() or HttpxClient)(trusted() if settings.tls else None, keep=KEPT_SECONDS)
    proxy = _parsed(settings.proxy)
    if proxy is None:  # raised here: the error of httpx would keep frames that hold the password
        raise UsageError(
            "the address of the proxy in the environment is invalid; it must be like "
            "http://proxy.example:3128: check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        )
    tls = settings.tls or proxy.url.scheme == "https"
    return HttpxClient(trusted() if tls else None, keep=KEPT_SECONDS, proxy=proxy)


def _parsed(address: str) -> httpx.Proxy | None:
    try:
        return httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL):
        return None


def proxy_secrets(url: httpx.URL) -> tuple[str, ...]:
    """Return the password of the proxy in the environment for `url`, and the form in which it is sent.

    A proxy may repeat either of them in its answer.
    """
    address = proxy_for(url)
    proxy = None if address is None else _parsed(address)
    if proxy is None or proxy.raw_auth is None:
        return ()
    name_and_password = b":".join(proxy.raw_auth)
    sent = Masked(f"Basic {b64encode(name_and_password).decode()}")
    return sent, Masked(proxy.raw_auth[1].decode(errors="replace"))


def proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy in the environment for `url`; None for loopback addresses, which it cannot reach."""
    if is_loopback(url.host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or _is_excepted(url.host, proxies.get("no", "")):
        return None
    return Masked(proxy if "://" in proxy else f"http://{proxy}")


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Whether `no_proxy` names the host, or a domain of it, as in curl and other programs."""
    for entry in no_proxy.lower().split(","):
        name = entry.strip().removeprefix("*").removeprefix(".")
        if entry.strip() == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False


@cache
def fast_client() -> Callable[..., Client] | None:
    """Return the client of the extra `fast`, if it is installed. Importing it takes 0.1 s: use a thread."""
    try:
        from kern.models._aiohttp import AiohttpClient
    except ImportError:
        return None
    return AiohttpClient


@cache
def trusted() -> ssl.SSLContext:
    """Return the trusted certificates, read once. That takes 10 to 20 ms: do it in a thread."""
    return httpx.create_ssl_context()


async def _close(clients: Clients) -> None:
    await clients.aclose()


_of_loop: LoopLocal[Clients] = LoopLocal(Clients, _close)


async def clients_for(url: httpx.URL) -> Clients:
    """Return the clients of the running loop, after loading in a thread what `url` needs."""
    clients = _of_loop.get()
    if not clients.knows(url):
        if not fast_client.cache_info().currsize:
            await asyncio.to_thread(fast_client)
        proxy = proxy_for(url) or ""
        if (url.scheme == "https" or proxy.startswith("https:")) and not trusted.cache_info().currsize:
            await asyncio.to_thread(trusted)
    return clients


async def close_clients() -> None:
    """Close the connections of the running loop now, not when it ends. New ones are made on demand."""
    await _of_loop.aclose()
