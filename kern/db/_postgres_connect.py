"""Opens connections to a Postgres server, and notes of each when the server was last heard on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from kern.db._postgres_errors import asyncpg
from kern.db._postgres_server import Server

patience: Final[ContextVar[float | None]] = ContextVar("patience", default=None)
"""How many seconds the running attempt may take to connect."""


@dataclass(slots=True)
class Seen:
    """What is known of a connection, as its attribute `seen`.

    Args:
        at: The monotonic time at which the server was last heard on it.
        first: The number of the host that was tried first.
    """

    at: float
    first: int


@cache
def connection_class() -> Any:
    """The driver's class of connections, with the attribute `seen`."""
    return type("Connection", (asyncpg().Connection,), {"__slots__": ("seen",)})


class Hosts:
    """Connects to the first host that accepts the connection.

    An attempt to connect has no more than the time of `patience`. If it fails, the next one begins at the
    next host: a host that hangs would use up the time of every attempt.

    Args:
        server: The database.
        password: Returns the password in plain text; the driver calls it when it connects.
    """

    def __init__(self, server: Server, password: Callable[[], str | None]) -> None:
        self._urls = server.rotations()
        self._password = password
        self._first = 0

    async def connect(self, *_url: str, **options: Any) -> Any:
        """Open a connection; the driver's pool calls this."""
        first = self._first
        try:
            async with asyncio.timeout(patience.get()):
                raw = await asyncpg().connect(self._urls[first], password=self._password, **options)
                try:
                    await _prepare(raw)
                except BaseException:
                    raw.terminate()  # `close` would wait for the server
                    raise
        except BaseException:
            self.skip(first)
            raise
        raw.seen = Seen(time.monotonic(), first)
        return raw

    def skip(self, first: int) -> None:
        """Begin at the next host, unless another attempt has brought that about already."""
        if self._first == first:
            self._first = (first + 1) % len(self._urls)


async def _prepare(raw: Any) -> None:
    """JSON goes in and comes out as the bytes that it is."""
    await raw.set_type_codec("json", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary")
