"""One resource per event loop, closed by the shutdown of that loop.

Connections and clients belong to the loop that made them, and applications should not have to close Kern. The
hook is an async generator: `loop.shutdown_asyncgens()`, which `asyncio.run` calls, closes every generator
that was started on the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class LoopLocal(Generic[T]):
    """A resource of which every running event loop has its own.

    Args:
        make: Makes the resource. Called on the loop; must not block.
        close: Closes the resource. Called on the same loop when it shuts down.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._mutex = threading.Lock()
        self._held: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = (
            WeakKeyDictionary()
        )

    def get(self) -> T:
        """Return the resource of the running loop, made on first use."""
        loop = asyncio.get_running_loop()
        entry = self._held.get(loop)
        if entry is None:
            resource = self._make()
            guard = self._guard(loop, resource)
            _step_once(guard)
            with self._mutex:
                for other in [other for other in self._held if other.is_closed()]:
                    del self._held[other]  # closed without shutdown; the value refers to its weak key
                self._held[loop] = entry = (resource, guard)
        return entry[0]

    async def _guard(self, loop: asyncio.AbstractEventLoop, resource: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._mutex:
                self._held.pop(loop, None)
            await self._close(resource)

    async def aclose(self) -> None:
        """Close the resource of the running loop now; the next `get` makes another."""
        entry = self._held.get(asyncio.get_running_loop())
        if entry is not None:
            await entry[1].aclose()


def in_event_loop() -> bool:
    """Whether the calling code runs on an event loop, in a task or a callback."""
    return asyncio._get_running_loop() is not None


def current_task() -> asyncio.Task[Any] | None:
    """Return the running task; None outside an event loop."""
    return asyncio.current_task() if in_event_loop() else None


def _step_once(guard: AsyncGenerator[None, None]) -> None:
    """Run the guard up to its `yield`, which registers it with the running loop."""
    with suppress(StopIteration):
        guard.asend(None).send(None)  # the awaitable has `send`, too
