"""A network backend for httpcore directly on asyncio, not on anyio as httpcore's own: a read or write that
need not wait costs a few calls instead of about fifty, and the head and body of a small request leave in one
packet.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, cast

import httpcore
from httpcore import SOCKET_OPTION

from kern.models._connect import connect, readable, unsent

_LUMP = 64 * 1024
"""How many bytes are held back until the response is awaited, so that they are sent together."""

_MOST_UNREAD = 256 * 1024
"""How many received bytes may be unread before the other side has to wait."""

_MOST_BEFORE_HEAD = 2 * 1024 * 1024
"""The maximum size in bytes of interim responses (1xx); bytes that were read ahead count, too."""

_STALE_SECONDS = 1.0
"""A reused connection that breaks within this time was closed before the server got the request."""

_LOOKS = 8
"""How often, during a timeout, to check whether the request is still being sent."""


class Network(httpcore.AsyncNetworkBackend):
    """Makes one connection on the running event loop, and keeps it in `stream`."""

    stream: Stream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host.

        Raises:
            ConnectTimeout: It took longer than `timeout` seconds.
            ConnectError: The connection failed.
        """
        try:
            async with asyncio.timeout(timeout):
                transport, self.stream = await connect(Stream, host, port, local_address)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: the host name is invalid
            raise httpcore.ConnectError(str(error)) from error
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return self.stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection, used by one task at a time, which writes a request and then reads the response."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._socket: asyncio.Transport  # below TLS
        self._unread = bytearray()
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._ended = False
        self._error: Exception | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False  # no request was sent since the last response
        self._received = 0  # bytes received since the last response
        self._head_due = True
        self._asked_at: float | None = None
        self._leaving: int | None = None  # unsent bytes of the request at the last check; None: all sent
        self._moved_at = 0.0

    # For the pool.

    def rest(self) -> bool:
        """Note that the response is complete: bytes that arrive before the next request is sent close the
        connection. Return False if there are such bytes already.
        """
        self._resting = True
        self._received = 0
        self._head_due = True
        self._asked_at = None
        return not (self._unread or self._ended)

    def answered(self) -> None:
        """Note that the head of the response is there: the reader counts the bytes that follow."""
        self._head_due = False

    @property
    def received(self) -> int:
        """The number of bytes received since the last response."""
        return self._received

    @property
    def stale(self) -> bool:
        """Whether the server closed the connection before it got the request: no byte of a response arrived,
        and the connection broke at once.
        """
        soon = self._asked_at is None or self._loop.time() - self._asked_at < _STALE_SECONDS
        return soon and not self._received

    # For httpcore.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return received bytes, at least one; b"" at the end.

        Raises:
            ReadTimeout: Nothing was received for `timeout` seconds.
            ReadError: The connection broke.
        """
        self._flush()
        while not self._unread:
            if self._error is not None:
                raise httpcore.ReadError(str(self._error)) from self._error
            if self._ended:
                return b""
            await self._wait(timeout, httpcore.ReadTimeout)
        data = bytes(self._unread if len(self._unread) <= max_bytes else self._unread[:max_bytes])
        del self._unread[:max_bytes]
        if self._reading_paused and len(self._unread) < _MOST_UNREAD:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, at the latest when the response is read.

        Raises:
            WriteTimeout: The other side accepted nothing for `timeout` seconds.
            WriteError: The connection broke.
        """
        self._unsent.append(buffer)
        self._unsent_size += len(buffer)
        if self._unsent_size < _LUMP:
            return
        self._flush()
        while self._writing_paused and not self._ended:
            await self._wait(timeout, httpcore.WriteTimeout)
        if self._ended:
            raise httpcore.WriteError("the connection is closed")

    async def aclose(self) -> None:
        """Close the connection, and drop what is not sent yet."""
        self._transport.abort()
        await asyncio.sleep(0)  # lets asyncio close the socket

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Continue over TLS.

        Raises:
            ConnectTimeout: The handshake took longer than `timeout` seconds.
            ConnectError: The handshake failed.
        """
        try:
            async with asyncio.timeout(timeout):
                transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
            if transport is None:
                raise ConnectionAbortedError("the connection was closed during the TLS handshake")
        except BaseException as error:
            self._transport.abort()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout("the TLS handshake took too long") from error
            if isinstance(error, OSError):  # errors of TLS are OSErrors, too
                raise httpcore.ConnectError(str(error)) from error
            raise
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the connection for httpcore."""
        if info == "is_readable":  # for an idle connection this means that the other side closed it
            return self._ended or bool(self._unread) or readable(self._transport)
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))

    # For asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = self._socket = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        """Receive bytes."""
        if self._resting:  # they do not belong to the next request
            self._ended = True
            self._transport.abort()
            return
        self._received += len(data)
        self._unread += data
        if self._head_due and self._received > _MOST_BEFORE_HEAD:
            self._error = ConnectionError("the server sends interim responses without an end")
            self._ended = True
            self._unread.clear()
            self._transport.abort()
        if len(self._unread) >= _MOST_UNREAD and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note that the other side sends no more; asyncio closes the connection."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is closed."""
        self._ended = True
        self._error = self._error or exc
        self._wake()

    def pause_writing(self) -> None:
        """Note that the send buffer is full."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Note that the send buffer has room again."""
        self._writing_paused = False
        self._wake()

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_size = 0
            if self._ended:
                return
            if self._resting:
                self._resting = False
                self._asked_at = self._loop.time()
            self._leaving = -1
            self._transport.write(data)

    async def _wait(self, seconds: float | None, late: type[httpcore.TimeoutException]) -> None:
        """Wait until anything happens; `late` is raised after `seconds` of silence."""
        self._waiter = waiter = self._loop.create_future()
        if seconds is not None:
            self._moved_at = self._loop.time()
            first = seconds if self._leaving is None else seconds / _LOOKS
            self._timer = self._loop.call_later(first, self._check_timeout, waiter, seconds, late)
        try:
            await waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _check_timeout(
        self, waiter: asyncio.Future[None], seconds: float, late: type[httpcore.TimeoutException]
    ) -> None:
        """Check for silence: none while the request is still being sent and makes progress."""
        if waiter.done():
            return
        now = self._loop.time()
        if self._leaving is not None:
            left = unsent(self._socket)
            if left != self._leaving:
                # The first check only notes the amount; under load it may come late.
                if self._leaving >= 0 or now - self._moved_at > seconds / 2:
                    self._moved_at = now
                self._leaving = left or None
        remaining = self._moved_at + seconds - now
        if remaining <= 0.001:
            waiter.set_exception(late())
            return
        pause = remaining if self._leaving is None else min(remaining, seconds / _LOOKS)
        self._timer = self._loop.call_later(pause, self._check_timeout, waiter, seconds, late)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
