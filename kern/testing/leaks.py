"""`no_leaks`: checks that a block leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kern._error_text import counted
from kern.testing._http import HttpConnection
from kern.testing.server import ModelServer


@asynccontextmanager
async def no_leaks(
    *servers: ModelServer, idle_connections: bool = True, grace: float = 2.0
) -> AsyncIterator[None]:
    """Check that the block leaves no task, no request and no connection behind.

        async with ModelServer(["Hello!"]) as server, no_leaks(server):
            await agent.arun("Hi")

    It checks the tasks of the running event loop, and the open requests and connections of the servers.
    Whatever ends within `grace` seconds is not a leak. A block that raises is not checked. In an async
    fixture the test is the block; the tasks that run the fixture are not counted.

    Args:
        servers: The servers that the block uses.
        idle_connections: Allow connections without a request, as a client's pool keeps them.
        grace: How long to wait for the end of what is still running, in seconds.

    Raises:
        AssertionError: Something is left; the text names it.
    """
    loop = asyncio.get_running_loop()
    tasks_before = asyncio.all_tasks()
    before = [(server, _busy(server), _open(server)) for server in servers]

    def left() -> list[str]:
        new = asyncio.all_tasks() - tasks_before
        found = [f"task {task!r}" for task in new if task is not here and not _drives_the_loop(task)]
        for number, (server, busy, opened) in enumerate(before):
            if requests := len(_busy(server) - busy):
                found.append(f"{counted(requests, 'open requests')} at server {number}")
            if not idle_connections and (opened_here := len(_open(server) - opened)):
                found.append(f"{counted(opened_here, 'open connections')} at server {number}")
        return found

    yield
    here = asyncio.current_task()  # a fixture may end in another task than it began in
    deadline = loop.time() + grace
    turns = 0
    while found := left():
        if loop.time() > deadline:
            raise AssertionError("left behind: " + "; ".join(found))
        # A few iterations of the loop are usually enough; a server on another thread needs a little time.
        turns += 1
        await asyncio.sleep(0 if turns < 20 else 0.005)


def _drives_the_loop(task: asyncio.Task[object]) -> bool:
    """Whether the event loop runs for this task: `run_until_complete` waits for it."""
    callbacks = task._callbacks or ()  # asyncio and uvloop: (callback, context)
    return any("run_until_complete" in getattr(done, "__qualname__", "") for done, _ in callbacks)


def _open(server: ModelServer) -> set[HttpConnection]:
    return set(server._connections)


def _busy(server: ModelServer) -> set[HttpConnection]:
    return {connection for connection in _open(server) if connection.busy}
