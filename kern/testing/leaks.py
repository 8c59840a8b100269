"""A check that nothing is left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kern.testing.server import ModelServer


@asynccontextmanager
async def no_leaks(
    *servers: ModelServer, idle_connections: bool = True, grace: float = 2.0
) -> AsyncIterator[None]:
    """Check that the block leaves no task, no request and no connection behind.

        async with ModelServer(["Hello!"]) as server, no_leaks(server):
            await agent.arun("Hi")

    Tasks of the running event loop are counted, and what the servers have open. What ends by itself within
    `grace` is no leak. A block that raises is not checked.

    Args:
        servers: The servers that the block talks to.
        idle_connections: A client's pool may keep connections on which no request is open.
        grace: Seconds.

    Raises:
        AssertionError: Something is left; the text names it.
    """
    loop = asyncio.get_running_loop()
    tasks_before = asyncio.all_tasks()
    requests_before = [server.open_requests for server in servers]
    connections_before = [server.open_connections for server in servers]

    def left() -> list[str]:
        found = [f"task {task!r}" for task in asyncio.all_tasks() - tasks_before]
        for number, server in enumerate(servers):
            requests = server.open_requests - requests_before[number]
            connections = server.open_connections - connections_before[number]
            if requests > 0:
                found.append(f"{requests} open requests at server {number}")
            if connections > 0 and not idle_connections:
                found.append(f"{connections} open connections at server {number}")
        return found

    yield
    deadline = loop.time() + grace
    turns = 0
    while found := left():
        if loop.time() > deadline:
            raise AssertionError("left behind: " + "; ".join(found))
        # Mostly a few turns of the loop are enough; a server on another thread needs a little time.
        turns += 1
        await asyncio.sleep(0 if turns < 20 else 0.005)
