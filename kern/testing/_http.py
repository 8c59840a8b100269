"""As much of an HTTP/1.1 server (RFC 9112) as a `ModelServer` needs: keep-alive, chunks, nothing else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

_HEAD_LIMIT = 65_536


class BadRequest(Exception):
    """What came is not HTTP/1.1."""


@dataclass(slots=True, frozen=True)
class HttpRequest:
    """One request, its header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        """The client does not ask for the connection to be closed."""
        return "close" not in self.headers.get("connection", "").lower()


class RequestParser:
    """Bytes in, requests out; no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: HttpRequest | None = None
        self._body = bytearray()
        self.wants_continue = False
        """The client waits for "100 Continue" before it sends its body; whoever sends it resets this."""

    def feed(self, data: bytes) -> list[HttpRequest]:
        """The requests that `data` completes.

        Raises:
            BadRequest: It is not HTTP/1.1.
        """
        self._buffer += data
        requests = []
        while (request := self._next()) is not None:
            requests.append(request)
        return requests

    def _next(self) -> HttpRequest | None:
        if self._head is None and not self._read_head():
            return None
        head = self._head
        assert head is not None
        chunked = "chunked" in head.headers.get("transfer-encoding", "").lower()
        if not (self._read_chunks() if chunked else self._read_length(head)):
            return None
        request = HttpRequest(head.method, head.path, head.headers, bytes(self._body))
        self._head, self._body = None, bytearray()
        return request

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise BadRequest("the head of the request is too long")
            return False
        line, *rows = self._take(end, 4).decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or words[2] != "HTTP/1.1":
            raise BadRequest(f"not an HTTP/1.1 request: {line[:80]!r}")
        headers = {}
        for row in rows:
            name, colon, value = row.partition(":")
            if not colon:
                raise BadRequest(f"not a header: {row[:80]!r}")
            headers[name.lower()] = value.strip()
        self._head = HttpRequest(words[0], words[1], headers)
        self.wants_continue = headers.get("expect", "").lower() == "100-continue"
        return True

    def _read_length(self, head: HttpRequest) -> bool:
        length = _number(head.headers.get("content-length", "0"), 10)
        if len(self._buffer) < length:
            return False
        self._body = bytearray(self._take(length, 0))
        return True

    def _read_chunks(self) -> bool:
        """Move whole chunks into the body; True once the last one, and its trailer, is there."""
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = _number(self._buffer[:end].split(b";")[0].decode("latin-1"), 16)
            if size == 0:
                trailer = self._buffer.find(b"\r\n\r\n", end)
                if trailer < 0:
                    return False
                self._take(trailer, 4)
                return True
            if len(self._buffer) < end + 2 + size + 2:
                return False
            self._take(end, 2)
            self._body += self._take(size, 2)
        return False

    def _take(self, length: int, separator: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[: length + separator]
        return taken


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        raise BadRequest(f"not a length: {text[:80]!r}") from None
    if number < 0:
        raise BadRequest(f"not a length: {text!r}")
    return number


class HttpConnection(asyncio.Protocol):
    """One connection: its requests are handled one after the other, each in a task.

    A client that goes away cancels the task of its request.

    Args:
        handle: Answers a request through `start`, `send`, `finish` of the connection it is given.
        connections: Where the connection is found for as long as it is open.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest, HttpConnection], Awaitable[None]],
        connections: set[HttpConnection],
    ) -> None:
        self._handle = handle
        self._connections = connections
        self._parser = RequestParser()
        self._waiting: deque[HttpRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._chunked = False
        self._keep_alive = True
        self._transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """A request is being answered."""
        return self._task is not None

    def start(self, status: int, headers: Mapping[str, str], *, length: int | None) -> None:
        """Send the head; without a `length` (in bytes) the body goes in chunks."""
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
        self._chunked = length is None
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        rows = [f"HTTP/1.1 {status} {phrase}", framing, *(f"{name}: {headers[name]}" for name in headers)]
        if not self._keep_alive:
            rows.append("connection: close")
        self._transport.write("\r\n".join([*rows, "", ""]).encode("latin-1"))

    def send(self, *pieces: bytes) -> None:
        """Send parts of the body, each as a chunk of its own."""
        if self._chunked:
            self._transport.write(
                b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece])
            )
        else:
            self._transport.write(b"".join(pieces))

    async def drain(self) -> None:
        """Wait while the client reads too slowly."""
        if self._writable is not None:
            await self._writable

    def finish(self) -> None:
        """The body is complete."""
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection once what was sent is on its way, whether the message is complete or not."""
        self._keep_alive = False
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """The client says something."""
        try:
            self._waiting.extend(self._parser.feed(data))
        except BadRequest as error:
            self._keep_alive = False
            text = f"{error}\n".encode()
            self.start(400, {"content-type": "text/plain"}, length=len(text))
            self.send(text)
            self.close()
            return
        if self._parser.wants_continue and not self.busy:
            self._parser.wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._answer_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connections.discard(self)
        self._waiting.clear()
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _answer_next(self) -> None:
        if self._task is None and self._waiting and not self._transport.is_closing():
            request = self._waiting.popleft()
            self._keep_alive = request.keep_alive
            self._task = asyncio.get_running_loop().create_task(self._run(request))
            self._task.add_done_callback(self._answered)

    async def _run(self, request: HttpRequest) -> None:
        await self._handle(request, self)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            self._transport.close()
        elif (error := task.exception()) is not None:
            self._transport.abort()
            raise error  # the loop's exception handler gets it: a bug of the server's
        elif self._keep_alive:
            self._answer_next()
        else:
            self._transport.close()
