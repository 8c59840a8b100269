"""The ends of runs that are still to come, and which of them the running code belongs to."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextvars import ContextVar, Token

from kern.runtime.stream import EventBuffer

_LOOP_SECONDS = 0.2
"""How often one who waits for another loop's run looks whether that loop runs."""

inside: ContextVar[frozenset[Ending]] = ContextVar("kerninside", default=frozenset())
"""The ends of the runs that the running code belongs to."""


class Ending:
    """The end of a run that is still to come."""

    def __init__(self, buffer: EventBuffer | None) -> None:
        self._buffer = buffer
        self.token: Token[frozenset[Ending]] | None = None
        self.exclusive = False
        """The run has the session to itself."""
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop = asyncio.get_running_loop()

    @property
    def abandoned(self) -> bool:
        """The consumer of the run's events has walked away."""
        return self._buffer is not None and self._buffer.abandoned

    async def passed(self) -> None:
        """Wait until the run is committed, or its event loop stands still, on which it would end."""
        done = asyncio.wrap_future(self.done)
        while not self.done.done() and self._loop.is_running():
            await asyncio.wait([done], timeout=_LOOP_SECONDS)
