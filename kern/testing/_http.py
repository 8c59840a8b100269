"""As much of an HTTP/1.1 server (RFC 9112) as a `ModelServer` needs: h11 reads the requests; the answers are
written by hand, since a server that plays faults must be able to break the protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import h11

_HEAD_LIMIT = 65_536


class BadRequest(Exception):
    """The data is not HTTP/1.1."""


@dataclass(slots=True, frozen=True)
class HttpRequest:
    """One request, its header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after the answer."""
        return "close" not in self.headers.get("connection", "").lower()


class RequestParser:
    """Parses bytes into requests, without I/O. A new h11 connection parses each request."""

    def __init__(self) -> None:
        self._reader = _reader()
        self._head: h11.Request | None = None
        self._body = bytearray()
        self.wants_continue = False
        """The client waits for "100 Continue" before it sends its body; whoever sends it resets this."""

    def feed(self, data: bytes) -> list[HttpRequest]:
        """The requests that `data` completes.

        Raises:
            BadRequest: It is not HTTP/1.1.
        """
        requests = []
        try:
            if data:
                self._reader.receive_data(data)
            while (request := self._next()) is not None:
                requests.append(request)
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"not HTTP/1.1: {error}") from None
        return requests

    def _next(self) -> HttpRequest | None:
        while True:
            event = self._reader.next_event()
            if isinstance(event, h11.Request):
                if event.http_version != b"1.1":
                    raise BadRequest(f"not HTTP/1.1: HTTP/{event.http_version.decode()}")
                self._head, self._body = event, bytearray()
                self.wants_continue = self._reader.they_are_waiting_for_100_continue
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._complete()
            else:  # more bytes have to come
                return None

    def _complete(self) -> HttpRequest:
        head = self._head
        assert head is not None
        following, _ = self._reader.trailing_data
        self._reader = _reader()
        if following:  # no bytes would mean the end of the connection
            self._reader.receive_data(following)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return HttpRequest(
            head.method.decode("latin-1"), head.target.decode("latin-1"), headers, bytes(self._body)
        )


def _reader() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)


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
        """Whether a request is being answered."""
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
        """Send parts of the body, each as one chunk."""
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
        """End the body."""
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection after the sent data, even if the message is incomplete."""
        self._keep_alive = False
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`: a client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: data has arrived."""
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
        """See `asyncio.Protocol`: the connection was closed."""
        self._connections.discard(self)
        self._waiting.clear()
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads too slowly."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`: the client has caught up."""
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
