"""A server of which a test decides every byte and every end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from kern.models._clients import close_clients


@dataclass
class Wire:
    """One connection.

    Args:
        number: Counted from 0, in the order of their coming.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    server: RawServer

    async def request(self) -> bytes:
        """Read a whole request; returns its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.heads.append(head.decode("latin-1"))
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        body = await self.reader.readexactly(length)
        self.server.asked.append((self.number, body))
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER
        self.writer.transport.abort()


@dataclass
class RawServer:
    url: str = ""
    port: int = 0
    heads: list[str] = field(default_factory=list)
    asked: list[tuple[int, bytes]] = field(default_factory=list)
    """The connection and the body of each request."""

    @property
    def on(self) -> list[int]:
        """The connections on which requests came."""
        return [number for number, _ in self.asked]


@asynccontextmanager
async def raw_server(answer: Callable[[Wire], Awaitable[None]]) -> AsyncIterator[RawServer]:
    """Gives each connection to `answer`, and closes it when that returns."""
    tasks: set[asyncio.Task[None]] = set()
    server = RawServer()
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        number, count = count, count + 1
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            await answer(Wire(reader, writer, number, server))
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    # What the kernel has taken and the server has not read looks like silence.
    listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    server.port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}/v1"
    try:
        yield server
    finally:
        await close_clients()
        await asyncio.sleep(0.01)  # whoever has connected is accepted, and closed below
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


def said(text: str, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer of the Chat Completions API, that says `text`."""
    body = json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    ).encode()
    return head(f"content-length: {len(body)}", *headers, status=status) + body


def head(*headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", *headers, "", ""]
    return "\r\n".join(lines).encode()
