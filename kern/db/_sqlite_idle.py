"""Connections at rest: a few stay open for the next job, the others let their thread and descriptors go."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from kern.db._sqlite_connection import Connection

MOST_IDLE = 16
"""How many connections of an event loop that nobody uses stay open."""

IDLE_SECONDS = 10.0
"""How long a connection that nobody uses stays open, while its event loop runs."""


class _Idle:
    """The connections of one event loop that nobody uses, the longest unused first."""

    def __init__(self) -> None:
        self._since: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._since[connection] = loop.time()
        if len(self._since) > MOST_IDLE:
            oldest = next(iter(self._since))
            del self._since[oldest]
            oldest.let_go()
        if self._timer is None:
            self._timer = loop.call_later(IDLE_SECONDS, self._sweep, loop)

    def discard(self, connection: Connection) -> None:
        self._since.pop(connection, None)

    def stop(self) -> bool:
        """Let the timer go, which refers to the loop, if no connection is left; says whether none is."""
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
            connection.let_go()


_idle: WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle] = WeakKeyDictionary()
"""An entry refers to its loop, by its connections and its timer: `close` takes it out with the last one."""


def begin_use(connection: Connection) -> None:
    """The connection is in use, on its loop; `end_use` has to follow."""
    connection.users += 1
    if connection.users == 1:
        idle = _idle.get(connection.loop)
        if idle is not None:
            idle.discard(connection)


def end_use(connection: Connection) -> None:
    """The reverse of `begin_use`: the last one leaves it at rest."""
    connection.users -= 1
    loop = connection.loop
    if connection.users == 0 and connection.file is not None and not loop.is_closed():
        idle = _idle.get(loop)
        if idle is None:
            idle = _idle[loop] = _Idle()
        idle.add(connection, loop)


async def close(connection: Connection) -> None:
    """Close a connection with its loop: nothing of it stays here, which would keep the loop."""
    idle = _idle.get(connection.loop)
    if idle is not None:
        idle.discard(connection)
        if idle.stop():
            del _idle[connection.loop]
    await connection.close()
