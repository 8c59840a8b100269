"""Where an MCP server is, and how the two streams of messages to and from it are opened."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import httpx2

Streams = tuple[Any, Any]
"""What is read from the server and what is written to it, as `mcp.client.Transport` has them."""


class Server(Protocol):
    """A server that can be connected to, once the package `mcp` is imported."""

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def calls_fail_alone(self) -> bool:
        """Each call has a connection of its own below: one that breaks off does not tell of the others."""

    def open(self) -> AbstractAsyncContextManager[Streams]:
        """The streams, for as long as the context lasts; to be left in the task that has entered it."""


@dataclass(slots=True, frozen=True)
class Program:
    """A server that is started as a process, and spoken to over its standard input and output.

    Args:
        name: What errors call it.
        command: The program and its arguments.
        env: Environment variables, beside the few harmless ones that it has in any case.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]

    calls_fail_alone = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Start the program; at the end its input is closed, and if it stays all the same, it is ended."""
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        program, *arguments = self.command
        parameters = StdioServerParameters(command=program, args=arguments, env=dict(self.env))
        # Not sys.stderr, which in a notebook or a test is no file that a process could have.
        async with stdio_client(parameters, sys.__stderr__) as streams:  # type: ignore[arg-type]  # or None
            yield streams


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A server that is reached over HTTP, by the transport that is called streamable HTTP.

    Args:
        name: What errors call it.
        url: Its address.
        headers: Sent with each request.
        connect_seconds: How long it may take to accept a connection.
    """

    name: str
    url: str
    headers: Mapping[str, str]
    connect_seconds: float

    calls_fail_alone = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Make an HTTP client; at the end the server is told that its session is over."""
        from mcp.client.streamable_http import streamable_http_client

        client = await asyncio.to_thread(self._client)
        async with client, streamable_http_client(self.url, http_client=client) as streams:
            yield streams

    def _client(self) -> httpx2.AsyncClient:
        """In a thread, because certificates are read."""
        import httpx2

        return httpx2.AsyncClient(
            headers=dict(self.headers),
            # An answer may take as long as the call: that has a timeout of its own.
            timeout=httpx2.Timeout(self.connect_seconds, read=None),
            # Each call has a connection while it lasts; one that had to wait too long would end them all.
            limits=httpx2.Limits(max_connections=None),
        )


@asynccontextmanager
async def watched(
    streams: AbstractAsyncContextManager[Streams], ended: Callable[[], None]
) -> AsyncIterator[Streams]:
    """The same streams; `ended` is called as soon as nothing more will come from the server."""
    async with streams as (incoming, outgoing):
        yield _Watched(incoming, ended), outgoing


class _Watched:
    """A stream of messages that tells when its reader leaves it, which is at its end."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    @property
    def last_context(self) -> Any:
        """In which context the last message was put in; transports that have none lack it."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()

    async def __aenter__(self) -> _Watched:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended()
        await self._stream.__aexit__(kind, error, trace)
