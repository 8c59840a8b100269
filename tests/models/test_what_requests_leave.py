"""What requests over HTTP leave in memory when the run that made them has ended: nothing of the run."""

from __future__ import annotations

import gc
from types import FunctionType

import pytest

from kern import Agent
from kern.models.openai import OpenAIChat
from kern.runtime.active_runs import ActiveRun
from kern.testing import ModelServer
from tests.garbage import garbage_of_block


def runs_in_memory() -> int:
    return sum(type(found) is ActiveRun for found in gc.get_objects())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.usefixtures("client")
async def test_a_run_over_http_is_freed_when_it_ends(*, stream: bool) -> None:
    async with ModelServer(lambda ask: "one two three") as server:
        agent = Agent(model=OpenAIChat("m", base_url=server.base_url))
        await agent.arun("Hi")  # the connection belongs to its context
        with garbage_of_block():  # `get_objects` leaves out what was there before
            for _ in range(5):
                if stream:
                    async with agent.arun("Hi", stream=True) as events:
                        async for _ in events:
                            pass
                else:
                    await agent.arun("Hi")
                assert runs_in_memory() == 0


@pytest.mark.usefixtures("client")
async def test_streams_over_http_leave_no_garbage() -> None:
    async with ModelServer(lambda ask: "one two three") as server:
        agent = Agent(model=OpenAIChat("m", base_url=server.base_url))

        async def run() -> None:
            async with agent.arun("Hi", stream=True) as events:
                async for _ in events:
                    pass

        await run()
        with garbage_of_block() as garbage:
            await run()
        functions = [found for found in garbage if isinstance(found, FunctionType)]
        assert [found for found in functions if found.__module__.startswith("kern.models")] == []
