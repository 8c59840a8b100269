"""Connections on asyncio: to a host with several addresses, and how much of the sent data has left."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # on Windows

    def _in_kernel(fd: int) -> int:
        return 0

else:

    def _in_kernel(fd: int) -> int:
        return int(struct.unpack("i", ioctl(fd, TIOCOUTQ, bytes(4)))[0])


WRAPPING = "the server sends almost only framing (chunk extensions, trailers) and hardly any body"
_MOST_WRAPPING = 2 * 1024 * 1024
_WRAPPING_PER_BYTE = 16


def is_wrapping(received: int, taken: int) -> bool:
    """Whether a response is a flood of framing: many bytes were received, and few of them are the body.

    A body that is sent byte by byte has five bytes of framing for each. Heads and unread bytes count, too.

    Args:
        received: The number of bytes received.
        taken: The number of bytes of the body.
    """
    return received - taken > _MOST_WRAPPING + _WRAPPING_PER_BYTE * taken


P = TypeVar("P", bound=asyncio.BaseProtocol)

_EYEBALLS_DELAY = 0.25
"""Seconds until the next address of a host is tried in parallel (RFC 8305)."""


async def connect(
    protocol: Callable[[], P], host: str, port: int, local_address: str | None = None
) -> tuple[asyncio.BaseTransport, P]:
    """Connect to the first address of the host that answers, on the running event loop.

    Raises:
        OSError: None answers.
    """
    loop = asyncio.get_running_loop()
    local = (local_address, 0) if local_address else None
    if _is_address(host):
        return await loop.create_connection(protocol, host, port, local_addr=local)
    if isinstance(loop, asyncio.BaseEventLoop):
        return await loop.create_connection(
            protocol, host, port, local_addr=local, happy_eyeballs_delay=_EYEBALLS_DELAY
        )
    # Other loops than asyncio's own, such as uvloop's, try one address after the other.
    sock = await _first_of(await _addresses(host, port), local)
    return await loop.create_connection(protocol, sock=sock)


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _addresses(host: str, port: int) -> list[_Address]:
    """Return the addresses in the resolver's order, alternating between the address families."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [address for address in found if address[0] == found[0][0]]
    other = [address for address in found if address[0] != found[0][0]]
    pairs = itertools.zip_longest(first, other)
    return [address for pair in pairs for address in pair if address is not None]


async def _first_of(addresses: list[_Address], local: tuple[str, int] | None) -> socket.socket:
    """Return the first socket that connects. An address is tried when those before it failed or are slow."""
    tries: set[asyncio.Task[socket.socket]] = set()
    failures: list[BaseException] = []
    waiting = list(reversed(addresses))
    try:
        while True:
            if waiting:
                tries.add(asyncio.create_task(_socket_to(waiting.pop(), local)))
            done, tries = await asyncio.wait(
                tries, timeout=_EYEBALLS_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    tries |= done - {task}
                    return task.result()
                failures.append(failure)
            if not tries and not waiting:
                raise OSError("; ".join(str(failure) for failure in failures))
    finally:
        for task in tries:
            task.cancel()
        for result in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(result, socket.socket):
                result.close()


async def _socket_to(address: _Address, local: tuple[str, int] | None) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if local is not None:
            sock.bind(local)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def unsent(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes the other side has not accepted yet, as far as known: those in the buffers of the
    transport and of the kernel.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with suppress(OSError):
            size += _in_kernel(sock.fileno())
    return size


def readable(transport: asyncio.BaseTransport) -> bool:
    """Whether something has arrived that the event loop has not seen yet, such as the end."""
    poll = poll_of(transport)
    return poll is None or bool(poll(0))


def poll_of(transport: asyncio.BaseTransport) -> Callable[[int], object] | None:
    """Return a function that waits at most that many milliseconds for data; None if the socket is closed."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return None
    if not hasattr(select, "poll"):  # on Windows
        return lambda wait: select.select([sock], [], [], wait / 1000)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll.poll
