"""Where an MCP server is, and how the two streams of messages to and from it are opened."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from os.path import isabs
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from kern._secrets import Masked, mask
from kern.tools.mcp.http import Answers, make_client

if TYPE_CHECKING:
    import httpx2

Streams = tuple[Any, Any]
"""What is read from the server and what is written to it, as `mcp.client.Transport` has them."""


class Server(Protocol):
    """A server that can be connected to, once the package `mcp` is imported."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def calls_fail_alone(self) -> bool:
        """Each call has a connection of its own below: one that breaks off does not tell of the others."""
        ...

    def clean(self, text: str) -> str:
        """`text` without the server's secrets, which it may have repeated."""
        ...

    def open(self) -> AbstractAsyncContextManager[Streams]:
        """The streams, for as long as the context lasts; to be left in the task that has entered it."""
        ...


@dataclass(slots=True, frozen=True)
class Program:
    """A server that is started as a process, and spoken to over its standard input and output.

    Args:
        name: What errors call it.
        command: The program and its arguments, which may hold secrets.
        env: Environment variables, beside the few harmless ones that it has in any case: secrets.
    """

    name: str
    command: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)

    calls_fail_alone = False

    def clean(self, text: str) -> str:
        """`text` without what the environment hides from others. A path is no secret."""
        return mask(text, [value for value in self.env.values() if not isabs(value)])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Start the program; at the end its input is closed, and if it stays all the same, it is ended."""
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        program, *arguments = self.command
        # Not checked, since that would make plain texts of masked ones: these are local variables below.
        parameters = StdioServerParameters.model_construct(
            command=program, args=[Masked(argument) for argument in arguments], env=dict(self.env)
        )
        # Not sys.stderr, which in a notebook or a test is no file that a process could have.
        async with stdio_client(parameters, sys.__stderr__) as streams:  # type: ignore[arg-type]  # or None
            yield streams


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A server that is reached over HTTP, by the transport that is called streamable HTTP.

    Args:
        name: What errors call it.
        url: Its address, which may hold a secret.
        headers: Sent with each request: secrets.
        connect_seconds: How long it may take to accept a connection.
        max_answer_bytes: The longest message that is taken in; None: any.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    connect_seconds: float
    max_answer_bytes: int | None = None

    calls_fail_alone = True

    def clean(self, text: str) -> str:
        """`text` without what the headers and the address hide from others."""
        return mask(
            text, [*self.headers.values(), *(part for _, part in parse_qsl(urlsplit(self.url).query))]
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Make an HTTP client; at the end the server is told that its session is over."""
        from mcp.client.streamable_http import streamable_http_client

        client = await asyncio.to_thread(self._client)
        async with (
            client,
            streamable_http_client(
                self.url, http_client=client, max_sse_event_size=self.max_answer_bytes
            ) as streams,
        ):
            yield streams

    def _client(self) -> httpx2.AsyncClient:
        """In a thread, because certificates are read."""
        return make_client(self.headers, self.connect_seconds, Answers(self.max_answer_bytes, self.clean))


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
