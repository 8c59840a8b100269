"""Idle connections: a few stay open for the next job, the others are closed to free their threads."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from kern.db._sqlite_connection import Connection

MOST_IDLE = 16
"""How many idle connections of an event loop stay open."""

IDLE_SECONDS = 10.0
"""How many seconds an idle connection stays open while its event loop runs."""


class _Idle:
    """The idle connections of one event loop, the longest idle first."""

    def __init__(self) -> None:
        self._since: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._since[connection] = loop.time()
        if len(self._since) > MOST_IDLE:
            oldest = next(iter(self._since))
            del self._since[oldest]
            oldest.begin_close()
        if self._timer is None:
            self._timer = loop.call_later(IDLE_SECONDS, self._sweep, loop)

    def discard(self, connection: Connection) -> None:
        self._since.pop(connection, None)

    def stop(self) -> bool:
        """Cancel the timer, which refers to the loop, if no connection is left; returns whether none is."""
        if self._since:
            return False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        due = loop.time() - IDLE_SECONDS
        for connection, since in list(self._since.items()):
            if since > due:
                self._timer = loop.call_at(since + IDLE_SECONDS, self._sweep, loop)
                return
            del self._since[connection]
            connection.begin_close()


_idle: WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle] = WeakKeyDictionary()
"""By event loop, to which an entry refers: `close` removes the entry with its last connection."""


def begin_use(connection: Connection) -> None:
    """Mark the connection as in use. Must be called on its loop, and be followed by `end_use`."""
    connection.users += 1
    if connection.users == 1:
        idle = _idle.get(connection.loop)
        if idle is not None:
            idle.discard(connection)


def end_use(connection: Connection) -> None:
    """Undo `begin_use`. The connection is idle after the last call."""
    connection.users -= 1
    loop = connection.loop
    if connection.users == 0 and connection.file is not None and not loop.is_closed():
        idle = _idle.get(loop)
        if idle is None:
            idle = _idle[loop] = _Idle()
        idle.add(connection, loop)


async def close(connection: Connection) -> None:
    """Close a connection at the end of its loop, and remove the entry, which would keep the loop alive."""
    idle = _idle.get(connection.loop)
    if idle is not None:
        idle.discard(connection)
        if idle.stop():
            del _idle[connection.loop]
    await connection.close()
